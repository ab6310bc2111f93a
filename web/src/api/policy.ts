//! The shapes of the API about policies.

import type { Role } from "./types.ts";

export interface PolicySet {
  source: string;
  loaded_at: string;
  error: string | null;
  /** What can be permitted at all. */
  permissions: {
    name: string;
    meaning: string;
    /** Who holds it, before wards, consents and the like narrow it. */
    roles: Role[];
  }[];
  policies: { id: string; effect: "permit" | "forbid"; text: string; file: string; description: string }[];
}

export interface Explained {
  allowed: boolean;
  reasons: { id: string; effect: "permit" | "forbid"; description: string }[];
  text: string;
}
