import { useQuery } from "@tanstack/react-query";
import { Suspense } from "react";
import { Redirect, Route, Switch, useLocation } from "wouter";
import { me } from "./api/queries";
import { Loading, Trouble } from "./parts/small";
import { Door } from "./rooms/door/Door";
import { NotFound } from "./rooms/NotFound";
import { lazily } from "./shell/lazily";
import { Shell } from "./shell/Shell";

const Units = lazily(() => import("./rooms/units/Units"));
const Unit = lazily(() => import("./rooms/unit/Unit"));
const Services = lazily(() => import("./rooms/services/Services"));
const Service = lazily(() => import("./rooms/services/Service"));
const Bundle = lazily(() => import("./rooms/services/Bundle"));
const Assignments = lazily(() => import("./rooms/assignments/Assignments"));
const Assignment = lazily(() => import("./rooms/assignments/Assignment"));
const Models = lazily(() => import("./rooms/models/Models"));
const Model = lazily(() => import("./rooms/models/Model"));
const ClaimCodes = lazily(() => import("./rooms/claims/ClaimCodes"));
const Alerts = lazily(() => import("./rooms/alerts/Alerts"));
const Audit = lazily(() => import("./rooms/audit/Audit"));

/** Who may come in, and which room an address leads to. */
export function App() {
  const [location] = useLocation();
  const user = useQuery({ ...me(), enabled: location !== "/welcome" });

  if (location === "/welcome") return <Door way="welcome" />;
  if (user.data === undefined) {
    return user.error ? (
      <main style={{ maxWidth: 560, margin: "18vh auto", padding: 16 }}>
        <Trouble error={user.error} doing="Could not start" retry={() => void user.refetch()} />
      </main>
    ) : null;
  }
  if (user.data === null) return <Door way="sign-in" />;
  return (
    <Shell user={user.data}>
      <Suspense fallback={<Loading />}>
        <Switch>
          <Route path="/units">
            <Units />
          </Route>
          <Route path="/units/:id/:part?">
            {({ id, part }) => <Unit id={id} part={part ?? "overview"} />}
          </Route>
          <Route path="/services">
            <Services part="services" />
          </Route>
          <Route path="/bundles">
            <Services part="bundles" />
          </Route>
          <Route path="/bundles/:id">{({ id }) => <Bundle id={id} />}</Route>
          <Route path="/services/:id">{({ id }) => <Service id={id} />}</Route>
          <Route path="/assignments">
            <Assignments />
          </Route>
          <Route path="/assignments/:id">{({ id }) => <Assignment id={id} />}</Route>
          <Route path="/models">
            <Models />
          </Route>
          <Route path="/models/:id">{({ id }) => <Model id={id} />}</Route>
          <Route path="/claim-codes">
            <ClaimCodes />
          </Route>
          <Route path="/alerts">
            <Alerts />
          </Route>
          <Route path="/audit">
            <Audit />
          </Route>
          <Route path="/">
            <Redirect to="/units" replace />
          </Route>
          <Route path="/sign-in">
            <Redirect to="/units" replace />
          </Route>
          <Route>
            <NotFound />
          </Route>
        </Switch>
      </Suspense>
    </Shell>
  );
}
