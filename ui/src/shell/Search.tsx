import { Modal } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { Boxes, CornerDownLeft, Cpu, type LucideIcon, Share2 } from "lucide-react";
import { useEffect, useId, useState } from "react";
import { useLocation } from "wouter";
import { services, subjects, units } from "~/api/queries";
import { Trouble } from "~/parts/small";
import { ROOMS } from "./rooms";
import css from "./shell.module.css";

interface Found {
  to: string;
  name: string;
  sub: string;
  kind: string;
  icon: LucideIcon;
}

function useFound(text: string, opened: boolean): { found: Found[]; error: Error | null; busy: boolean } {
  const narrowed = { search: text, limit: 6 };
  const enabled = opened && text !== "";
  const unit = useQuery({ ...units(narrowed), enabled });
  const service = useQuery({ ...services(narrowed), enabled });
  const subject = useQuery({ ...subjects(narrowed), enabled });
  const rooms = ROOMS.filter((room) => room.name.toLowerCase().includes(text.toLowerCase())).map((room) => ({
    to: room.to,
    name: room.name,
    sub: `g ${room.key}`,
    kind: "Room",
    icon: room.icon,
  }));
  if (text === "") return { found: rooms, error: null, busy: false };
  const found: Found[] = [
    ...(unit.data?.items ?? []).map((each) => ({
      to: `/units/${each.id}`,
      name: each.title || each.system_uid,
      sub: `${each.system_uid} · ${each.online_status}`,
      kind: "Unit",
      icon: Cpu,
    })),
    ...(service.data?.items ?? []).map((each) => ({
      to: `/services/${each.id}`,
      name: each.title || each.codename,
      sub: `${each.codename} · ${each.latest_version ?? "no version"}`,
      kind: "Service",
      icon: Boxes,
    })),
    ...(subject.data?.items ?? []).map((each) => ({
      to: `/assignments/${each.id}`,
      name: each.label,
      sub: each.is_group ? "Group of Units" : "Person",
      kind: "Assignment",
      icon: Share2,
    })),
    ...rooms,
  ];
  return {
    found,
    error: unit.error ?? service.error ?? subject.error,
    busy: unit.isFetching || service.isFetching || subject.isFetching,
  };
}

/** Finds Units, services, assignments and rooms by name or id, without leaving the keyboard. */
export function Search({ opened, close }: { opened: boolean; close: () => void }) {
  const [, go] = useLocation();
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const [search] = useDebouncedValue(text.trim(), 120);
  const { found, error, busy } = useFound(search, opened);
  const list = useId();
  const here = Math.min(at, Math.max(0, found.length - 1));

  useEffect(() => {
    if (opened) setText("");
  }, [opened]);
  useEffect(() => {
    if (search !== "") setAt(0);
  }, [search]);

  const open = (to: string | undefined) => {
    if (to === undefined) return;
    close();
    go(to);
  };
  return (
    <Modal.Root opened={opened} onClose={close} size={560} yOffset="12vh" centered={false}>
      <Modal.Overlay />
      <Modal.Content aria-label="Search">
        <Modal.Body p={0}>
          <input
            className={css.find}
            type="text"
            role="combobox"
            aria-label="Search Units, services, assignments"
            aria-expanded="true"
            aria-controls={list}
            aria-activedescendant={found.length > 0 ? `${list}-${here}` : undefined}
            autoComplete="off"
            spellCheck={false}
            placeholder="Search Units, services, assignments…"
            data-autofocus
            value={text}
            onChange={(event) => setText(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === "ArrowDown") setAt((here + 1) % Math.max(1, found.length));
              else if (event.key === "ArrowUp") setAt((here - 1 + found.length) % Math.max(1, found.length));
              else if (event.key === "Enter") open(found[here]?.to);
              else return;
              event.preventDefault();
            }}
          />
          <div id={list} role="listbox" aria-label="Found" className={css.found}>
            {found.map((each, n) => {
              const Icon = each.icon;
              return (
                // biome-ignore lint/a11y/useFocusableInteractive: the focus stays in the text field, which names the active option
                // biome-ignore lint/a11y/useKeyWithClickEvents: Enter in the text field opens it
                <div
                  key={each.to}
                  id={`${list}-${n}`}
                  role="option"
                  aria-selected={n === here}
                  className={css.option}
                  onMouseMove={() => setAt(n)}
                  onClick={() => open(each.to)}
                >
                  <Icon size={16} strokeWidth={1.8} aria-hidden />
                  <span>
                    <b>{each.name}</b>
                    <small>{each.sub}</small>
                  </span>
                  <em>{each.kind}</em>
                  {n === here && <CornerDownLeft size={13} aria-hidden />}
                </div>
              );
            })}
            {found.length === 0 && !error && (
              <p className={css.nothing} role="status">
                {busy || search !== text.trim()
                  ? "Searching…"
                  : `Nothing is called “${search}”. Search by name, system id or codename.`}
              </p>
            )}
            <Trouble error={error} doing="Search failed" />
          </div>
        </Modal.Body>
      </Modal.Content>
    </Modal.Root>
  );
}
