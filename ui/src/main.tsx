import "@mantine/core/styles.css";
import "@mantine/notifications/styles.css";
import "./theme/global.css";
import { MantineProvider } from "@mantine/core";
import { Notifications } from "@mantine/notifications";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { onSignedOut, Refusal } from "./api/client";
import { makeEvents } from "./api/events";
import { App } from "./app";
import { theme, variables } from "./theme/theme";

const client = new QueryClient({
  defaultOptions: {
    queries: {
      // Events say what changed; a read is trusted until one does.
      staleTime: 30_000,
      retry: (failures, error) =>
        failures < 2 && error instanceof Refusal && (error.status === 0 || error.status >= 500),
    },
    mutations: { retry: false },
  },
});
// Made before anything is shown, so that no part can miss a change of the link.
makeEvents(client);
onSignedOut(() => client.setQueryData(["me"], null));

const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <MantineProvider theme={theme} cssVariablesResolver={variables} defaultColorScheme="auto">
        <Notifications position="bottom-right" autoClose={5000} />
        <QueryClientProvider client={client}>
          <App />
        </QueryClientProvider>
      </MantineProvider>
    </StrictMode>,
  );
}
