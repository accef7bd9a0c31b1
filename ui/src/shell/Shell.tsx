import { useDisclosure } from "@mantine/hooks";
import { useQueryClient } from "@tanstack/react-query";
import { Search as SearchIcon } from "lucide-react";
import { type ReactNode, useEffect, useMemo, useRef } from "react";
import { Link, useLocation } from "wouter";
import { makeEvents } from "~/api/events";
import type { Me } from "~/api/types";
import { Account } from "./Account";
import { Boundary } from "./Boundary";
import { Keys } from "./Keys";
import { LinkBanner, LinkState } from "./LinkState";
import { Logo } from "./Logo";
import { isIn, ROOMS, type RoomLink } from "./rooms";
import { Search } from "./Search";
import css from "./shell.module.css";
import { useShortcuts } from "./shortcuts";

function Place({ room, location, tab }: { room: RoomLink; location: string; tab?: boolean }) {
  const Icon = room.icon;
  return (
    <Link
      href={room.to}
      className={tab ? css.tab : css.place}
      aria-current={isIn(room, location) ? "page" : undefined}
      title={tab ? undefined : `${room.name} (g ${room.key})`}
    >
      <Icon size={tab ? 19 : 16} strokeWidth={1.8} aria-hidden />
      <span>{tab ? room.short : room.name}</span>
    </Link>
  );
}

/** What stands around every room: navigation, search, account, and how the link to the cloud is. */
export function Shell({ user, children }: { user: Me; children: ReactNode }) {
  const client = useQueryClient();
  const [location, go] = useLocation();
  const [searching, search] = useDisclosure(false);
  const [keys, help] = useDisclosure(false);
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);

  useEffect(() => makeEvents(client).start(), [client]);
  useShortcuts(useMemo(() => ({ go, search: search.open, help: help.open }), [go, search.open, help.open]));

  // A new room begins at its top, and a screen reader hears its title.
  const room = location.split("/").slice(0, 3).join("/");
  // biome-ignore lint/correctness/useExhaustiveDependencies: runs when the room changes
  useEffect(() => {
    if (first.current) {
      first.current = false;
      return;
    }
    window.scrollTo(0, 0);
    main.current?.focus({ preventScroll: true });
  }, [room]);

  return (
    <div className={css.shell}>
      <a href="#room" className={css.skip}>
        Skip to content
      </a>
      <header className={css.rail}>
        <Link href="/units" className={css.logo} aria-label="AosCloud, to Units">
          <Logo />
        </Link>
        <button
          type="button"
          className={css.search}
          onClick={search.open}
          aria-label="Search"
          aria-keyshortcuts="/"
        >
          <SearchIcon size={14} aria-hidden />
          <span>Search</span>
          <kbd>/</kbd>
        </button>
        <nav className={css.places} aria-label="Rooms">
          {ROOMS.filter((each) => each.main).map((each) => (
            <Place key={each.to} room={each} location={location} />
          ))}
          <hr />
          {ROOMS.filter((each) => !each.main).map((each) => (
            <Place key={each.to} room={each} location={location} />
          ))}
        </nav>
        <div className={css.foot}>
          <LinkState />
          <Account user={user} help={help.open} />
        </div>
      </header>
      <div className={css.stage}>
        <LinkBanner />
        <main id="room" ref={main} tabIndex={-1} className={css.room}>
          <Boundary room={room}>{children}</Boundary>
        </main>
      </div>
      <nav className={css.tabs} aria-label="Rooms">
        {ROOMS.filter((each) => each.to !== "/audit").map((each) => (
          <Place key={each.to} room={each} location={location} tab />
        ))}
      </nav>
      <Search opened={searching} close={search.close} />
      <Keys opened={keys} close={help.close} />
    </div>
  );
}
