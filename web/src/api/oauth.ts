//! The shapes of the API about programs and identity providers.

import type { Role } from "./types.ts";

/** A program that may ask for people's consent, or works by itself. */
export interface Client {
  id: string;
  name: string;
  kind: "app" | "service";
  redirect_uris: string[];
  scopes: string;
  jwks: { keys: Record<string, unknown>[] } | null;
  is_confidential: boolean;
  disabled: boolean;
  version: number;
  created_by: string;
  created_at: string;
}

/** An app that somebody has let in. */
export interface Grant {
  id: string;
  client: { id: string; name: string };
  scopes: string;
  patient: { id: string; display: string } | null;
  created_at: string;
  last_used_at: string | null;
  expires_at: string | null;
  is_offline: boolean;
}

export interface AskedScope {
  scope: string;
  words: string;
  needs_patient: boolean;
}

/** What the authorisation page shows. */
export interface AskConsent {
  step: "consent";
  client: { id: string; name: string; registered_at: string; is_confidential: boolean };
  redirect_host: string;
  user: { name: string; display: string };
  scopes: AskedScope[];
  refused_scopes: string[];
  needs_patient: boolean;
  patient: { id: string; display: string } | null;
  lasts: "session" | "offline" | "short";
}

export type Authorize = AskConsent | { step: "return"; redirect_to: string };

export interface Provider {
  id: string;
  name: string;
  issuer: string;
  client_id: string;
  /** Written, never read: `null` keeps it, `""` removes it. */
  client_secret?: string | null;
  has_secret: boolean;
  uses_key: boolean;
  scopes: string;
  name_claim: string;
  allowed_domains: string[];
  provisioning: "existing" | "just-in-time";
  role_claim: string | null;
  roles: { value: string; role: Role; wards: string[] | null }[];
  trusts_mfa: boolean;
  mfa_values: string[];
  enabled: boolean;
  version: number;
}
