//! What the page and the drawing worker say to each other.

import type { StripLayout } from "./sweep.ts";

export type ToWorker =
  | { type: "canvas"; canvas: OffscreenCanvas }
  | { type: "layout"; width: number; height: number; dpr: number; strips: StripLayout[] }
  | { type: "skew"; skewMs: number };

export interface StripStatus {
  id: string;
  state: "waiting" | "live" | "silent";
  /** How far the picture is behind the server's clock. */
  delay_ms: number;
  unit_display: string;
}

export type FromWorker = { type: "status"; strips: StripStatus[] };
