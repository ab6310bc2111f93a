//! How the app is built: plain files with hashed names under /assets, nothing inlined, so that a strict CSP holds.

import react from "@vitejs/plugin-react";
import { loadEnv } from "vite";
import { defineConfig } from "vitest/config";

/** Where `npm run dev` finds the API: a running server, or `dev/mock.mjs`. */
const API = loadEnv("", ".", "AUSCULT_")["AUSCULT_API"] ?? "http://127.0.0.1:8787";

export default defineConfig({
  plugins: [react()],
  build: {
    outDir: "dist",
    assetsDir: "assets",
    // A data: URL would need an exception in the content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    sourcemap: false,
  },
  worker: { format: "es" },
  server: {
    host: "127.0.0.1",
    proxy: { "/api": { target: API, ws: true } },
  },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
