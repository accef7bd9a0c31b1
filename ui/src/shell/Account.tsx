import { Menu, useMantineColorScheme } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import {
  BookOpen,
  Check,
  ChevronsUpDown,
  Keyboard,
  LogOut,
  Monitor,
  Moon,
  Scale,
  ScrollText,
  Sun,
} from "lucide-react";
import { Link } from "wouter";
import { post } from "~/api/client";
import type { Me } from "~/api/types";
import { explained } from "~/parts/small";
import css from "./shell.module.css";

const SCHEMES = [
  ["auto", "As the system", Monitor],
  ["light", "Light", Sun],
  ["dark", "Dark", Moon],
] as const;

/** Who is signed in, the look of the page, and the way out. */
export function Account({ user, help }: { user: Me; help: () => void }) {
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  const client = useQueryClient();
  const out = useMutation({
    mutationFn: () => post("/sign-out/"),
    onSuccess: () => {
      client.clear();
      // A full load: nothing of this session stays in memory.
      window.location.assign("/sign-in");
    },
    onError: (error) => {
      const { message, hint } = explained(error);
      notifications.show({ color: "red", title: "Could not sign out", message: `${message} ${hint ?? ""}` });
    },
  });
  return (
    <Menu position="top-start" width={232}>
      <Menu.Target>
        <button type="button" className={css.account}>
          <span className={css.letter} aria-hidden="true">
            {user.username.slice(0, 1).toUpperCase()}
          </span>
          <span className={css.who}>
            <span className="only-heard">Account: </span>
            <b>{user.username}</b>
            <small>{user.domain}</small>
          </span>
          <ChevronsUpDown size={14} aria-hidden />
        </button>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>
          {user.username} · {user.oem.title}
        </Menu.Label>
        <Menu.Divider />
        <Menu.Label>Look</Menu.Label>
        {SCHEMES.map(([scheme, name, Icon]) => (
          <Menu.Item
            key={scheme}
            closeMenuOnClick={false}
            leftSection={<Icon size={15} aria-hidden />}
            rightSection={colorScheme === scheme ? <Check size={14} aria-hidden /> : null}
            onClick={() => setColorScheme(scheme)}
          >
            {name}
            {colorScheme === scheme && <span className="only-heard">, chosen</span>}
          </Menu.Item>
        ))}
        <Menu.Divider />
        <Menu.Item leftSection={<Keyboard size={15} aria-hidden />} onClick={help}>
          Keyboard
        </Menu.Item>
        <Menu.Item leftSection={<ScrollText size={15} aria-hidden />} component={Link} href="/audit">
          Audit
        </Menu.Item>
        <Menu.Item leftSection={<BookOpen size={15} aria-hidden />} component="a" href="/api/v11/docs">
          REST API
        </Menu.Item>
        <Menu.Item leftSection={<Scale size={15} aria-hidden />} component="a" href="/licences.txt">
          Licences
        </Menu.Item>
        {user.signed_in_by === "session" && (
          <>
            <Menu.Divider />
            <Menu.Item leftSection={<LogOut size={15} aria-hidden />} onClick={() => out.mutate()}>
              Sign out
            </Menu.Item>
          </>
        )}
      </Menu.Dropdown>
    </Menu>
  );
}
