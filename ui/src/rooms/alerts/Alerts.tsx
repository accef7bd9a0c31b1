import { Head } from "~/parts/Room";
import { AlertList } from "./AlertList";

/** Alerts of all Units. */
export default function Alerts() {
  return (
    <>
      <Head title="Alerts" page="Alerts" under="What Units complain of, told last first." />
      <AlertList />
    </>
  );
}
