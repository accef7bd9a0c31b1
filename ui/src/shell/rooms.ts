import {
  Bell,
  Boxes,
  Cpu,
  KeyRound,
  type LucideIcon,
  ScrollText,
  Share2,
  SlidersHorizontal,
} from "lucide-react";

/** A room of the house: where it is, how it is called, which key leads there after `g`. */
export interface RoomLink {
  to: string;
  also: string[];
  name: string;
  short: string;
  key: string;
  icon: LucideIcon;
  main: boolean;
}

/** All rooms in the order of the navigation. */
export const ROOMS: RoomLink[] = [
  { to: "/units", also: [], name: "Units", short: "Units", key: "u", icon: Cpu, main: true },
  {
    to: "/services",
    also: ["/bundles"],
    name: "Services",
    short: "Services",
    key: "s",
    icon: Boxes,
    main: true,
  },
  { to: "/assignments", also: [], name: "Assignments", short: "Assign", key: "a", icon: Share2, main: true },
  { to: "/alerts", also: [], name: "Alerts", short: "Alerts", key: "e", icon: Bell, main: true },
  {
    to: "/models",
    also: [],
    name: "Unit models",
    short: "Models",
    key: "m",
    icon: SlidersHorizontal,
    main: false,
  },
  {
    to: "/claim-codes",
    also: [],
    name: "Claim codes",
    short: "Codes",
    key: "c",
    icon: KeyRound,
    main: false,
  },
  { to: "/audit", also: [], name: "Audit", short: "Audit", key: "l", icon: ScrollText, main: false },
];

/** Whether an address lies in a room. */
export function isIn(room: RoomLink, location: string): boolean {
  return [room.to, ...room.also].some((start) => location === start || location.startsWith(`${start}/`));
}
