import { Button, PasswordInput, Stack, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useEffect, useState } from "react";
import { Link, useLocation } from "wouter";
import { post, Refusal } from "~/api/client";
import type { Session } from "~/api/types";
import { Command, Trouble } from "~/parts/small";
import { Logo } from "~/shell/Logo";
import css from "./door.module.css";

const LEAST = 10;

// The token leaves the address bar at once, so that it stays neither in the history nor on the screen.
function takeToken(): string {
  const token = new URLSearchParams(window.location.hash.slice(1)).get("token") ?? "";
  if (token !== "") window.history.replaceState(null, "", "/welcome");
  return token;
}
let token: string | undefined;

/** The way in: signing in, or making the owner with the one-time link. */
export function Door({ way }: { way: "sign-in" | "welcome" }) {
  if (token === undefined && way === "welcome") token = takeToken();
  return (
    <main className={css.door}>
      <div className={css.panel}>
        <div className={css.mark}>
          <Logo big />
        </div>
        {way === "welcome" ? <Welcome token={token ?? ""} /> : <SignIn />}
      </div>
      <p className={css.foot}>{window.location.host}</p>
    </main>
  );
}

function useEnter(at: string, to?: string) {
  const client = useQueryClient();
  const [, go] = useLocation();
  return useMutation({
    mutationFn: (body: Record<string, string>) => post<Session>(at, body),
    onSuccess: (session) => {
      client.setQueryData(["me"], session.user);
      if (to) go(to, { replace: true });
    },
  });
}

function fields(event: FormEvent<HTMLFormElement>): Record<string, string> {
  event.preventDefault();
  return Object.fromEntries(
    [...new FormData(event.currentTarget)].map(([name, value]) => [name, String(value)]),
  );
}

function SignIn() {
  const enter = useEnter("/sign-in/");
  useEffect(() => {
    document.title = "Sign in · AosCloud";
  }, []);
  return (
    <form
      onSubmit={(event) => {
        const { username = "", password = "" } = fields(event);
        enter.mutate({ username: username.trim(), password });
      }}
    >
      <h1>Sign in</h1>
      <Stack gap="sm">
        <TextInput
          label="Name"
          name="username"
          autoComplete="username"
          size="md"
          required
          autoFocus
          withAsterisk={false}
        />
        <PasswordInput
          label="Password"
          name="password"
          autoComplete="current-password"
          size="md"
          required
          withAsterisk={false}
          visibilityToggleButtonProps={{ "aria-label": "Show or hide the password" }}
        />
        <Trouble error={enter.error} />
        <Button type="submit" size="md" fullWidth loading={enter.isPending}>
          Sign in
        </Button>
      </Stack>
      <details className={css.help}>
        <summary>First time here, or cannot get in?</summary>
        <p>
          The first start of the cloud writes a one-time link that makes the owner. Open it on the machine
          that runs the cloud:
        </p>
        <Command text="cat <data folder>/owner-link.txt" />
        <p>A user certificate works too: install it in the browser and load this page again.</p>
      </details>
    </form>
  );
}

function Welcome({ token }: { token: string }) {
  const enter = useEnter("/owner-setup/", "/units");
  const [wrong, setWrong] = useState<{ field: "username" | "password" | "again"; text: string } | null>(null);
  useEffect(() => {
    document.title = "Welcome · AosCloud";
  }, []);
  if (token === "") {
    return (
      <div>
        <h1>This link is not whole</h1>
        <p className={css.text}>
          The one-time link ends in <code>#token=…</code>; this one has no token. Copy the whole line from the
          file that the first start of the cloud wrote:
        </p>
        <Command text="cat <data folder>/owner-link.txt" />
        <p className={css.text}>
          If the owner exists already, <Link href="/sign-in">sign in</Link>.
        </p>
      </div>
    );
  }
  const used = enter.error instanceof Refusal && (enter.error.status === 401 || enter.error.status === 409);
  return (
    <form
      noValidate
      onSubmit={(event) => {
        const { username = "", password = "", again = "" } = fields(event);
        const name = username.trim();
        if (name === "" || /\s/.test(name) || name.length > 64) {
          setWrong({ field: "username", text: "1 to 64 characters without spaces." });
        } else if (password.length < LEAST) {
          setWrong({ field: "password", text: `At least ${LEAST} characters; this has ${password.length}.` });
        } else if (again !== password) {
          setWrong({ field: "again", text: "The two passwords differ." });
        } else {
          setWrong(null);
          enter.mutate({ token, username: name, password });
        }
      }}
    >
      <h1>Welcome</h1>
      <p className={css.text}>This makes the owner of this AosCloud. The link works once.</p>
      <Stack gap="sm">
        <TextInput
          label="Name"
          name="username"
          autoComplete="username"
          size="md"
          autoFocus
          defaultValue="owner"
          error={wrong?.field === "username" && wrong.text}
        />
        <PasswordInput
          label="Password"
          description={`At least ${LEAST} characters. A few words are easy to remember.`}
          name="password"
          autoComplete="new-password"
          size="md"
          error={wrong?.field === "password" && wrong.text}
          visibilityToggleButtonProps={{ "aria-label": "Show or hide the password" }}
        />
        <PasswordInput
          label="Password again"
          name="again"
          autoComplete="new-password"
          size="md"
          error={wrong?.field === "again" && wrong.text}
          visibilityToggleButtonProps={{ "aria-label": "Show or hide the password" }}
        />
        <Trouble error={enter.error} />
        {used && (
          <p className={css.text}>
            If the owner exists already, <Link href="/sign-in">sign in</Link>.
          </p>
        )}
        <Button type="submit" size="md" fullWidth loading={enter.isPending}>
          Make the owner and sign in
        </Button>
      </Stack>
    </form>
  );
}
