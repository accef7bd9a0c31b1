import { Button } from "@mantine/core";
import { Component, type ReactNode } from "react";
import { Trouble } from "~/parts/small";

/** Catches what a room throws, so that the rest of the page stays. Another `room` is another try. */
export class Boundary extends Component<
  { room: string; children: ReactNode },
  { failed: unknown; room: string }
> {
  override state = { failed: null as unknown, room: this.props.room };

  static getDerivedStateFromError(failed: unknown) {
    return { failed };
  }

  static getDerivedStateFromProps(properties: { room: string }, state: { room: string }) {
    return properties.room === state.room ? null : { failed: null, room: properties.room };
  }

  override render() {
    if (this.state.failed === null) return this.props.children;
    return (
      <div style={{ display: "grid", gap: 12, justifyItems: "start" }}>
        <Trouble error={this.state.failed} doing="This room could not be shown" />
        <Button onClick={() => window.location.reload()}>Reload the page</Button>
      </div>
    );
  }
}
