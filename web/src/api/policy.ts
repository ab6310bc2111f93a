//! The shapes of the API about policies.

export interface PolicySet {
  version: string | number;
  source: string;
  loaded_at: string;
  error: string | null;
  /** What can be permitted at all. */
  permissions?: { name: string; meaning: string }[];
  /** What each role may by itself, before wards, consents and the like narrow it. */
  roles?: { role: string; may: string[] }[];
  policies: { id: string; effect: "permit" | "forbid"; text: string; file: string; description: string }[];
}

export interface Explained {
  allowed: boolean;
  reasons: { id: string; effect: "permit" | "forbid"; description: string }[];
  text: string;
}
