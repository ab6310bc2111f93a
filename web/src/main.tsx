//! Starts the app.

import "@fontsource-variable/inter/index.css";
import "uplot/dist/uPlot.min.css";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/board.css";
import "./styles/patient.css";
import "./styles/pages.css";
import "./styles/trust.css";
import "./styles/proof.css";

import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { createRoot } from "react-dom/client";

import { ApiError } from "./api/client.ts";
import { App } from "./app.tsx";
import { Failure, Waiting } from "./ui/basics.tsx";
import { SessionProvider } from "./session.tsx";

/** How often a failed read is repeated before the failure is shown. */
const RETRIES = 2;

const client = new QueryClient({
  defaultOptions: {
    queries: {
      // Health data is shown as of now or not at all; each reading is an entry in the audit log, so none is made in vain.
      staleTime: 2_000,
      gcTime: 60_000,
      refetchOnWindowFocus: false,
      retry: (count, error) => count < RETRIES && !(error instanceof ApiError && error.status >= 400 && error.status < 500),
    },
  },
});

const root = document.getElementById("app");
if (root === null) throw new Error("index.html has no element with the id app");

createRoot(root).render(
  <QueryClientProvider client={client}>
    <SessionProvider
      waiting={<Waiting what="Auscult" />}
      failed={(error, retry) => (
        <main className="alone">
          <h1>Auscult</h1>
          <Failure error={error} retry={retry} />
        </main>
      )}
    >
      <App />
    </SessionProvider>
  </QueryClientProvider>,
);
