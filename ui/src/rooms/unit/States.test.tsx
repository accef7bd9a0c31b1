import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { cleanup, render, screen } from "@testing-library/react";
import { afterEach, describe, expect, it } from "vitest";
import { unitStates } from "~/api/queries";
import type { KeptState, Page } from "~/api/types";
import { States } from "./States";

const kept = (instance_id: number): KeptState => ({
  service: { id: "s1", codename: "counter", title: "Counter" },
  subject: { id: "g1", label: "fleet" },
  instance_id,
  checksum: "ab12",
  size: 12,
  kept_at: "2026-01-01T00:00:00Z",
});

function show(items: KeptState[]) {
  const client = new QueryClient({ defaultOptions: { queries: { staleTime: Number.POSITIVE_INFINITY } } });
  const page: Page<KeptState> = { items, total: items.length, offset: 0 };
  client.setQueryData(unitStates("u1").queryKey, page);
  render(
    <QueryClientProvider client={client}>
      <MantineProvider>
        <States id="u1" system="vehicle-7" />
      </MantineProvider>
    </QueryClientProvider>,
  );
}

describe("the states of a Unit", () => {
  afterEach(cleanup);

  it("names whose each is, and how long it is", () => {
    show([kept(0), kept(1)]);
    const list = screen.getByRole("list", { name: "States kept in the cloud" });
    expect(list.children.length).toBe(2);
    expect(list.textContent).toContain("#1Counter for fleet12 bytes");
    expect(screen.getByText("2 states")).toBeTruthy();
  });

  it("says what a state is while there is none", () => {
    show([]);
    expect(screen.getByText("No instance has told a state")).toBeTruthy();
    expect(screen.queryByRole("list", { name: "States kept in the cloud" })).toBeNull();
  });
});
