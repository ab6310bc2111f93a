//! The shapes of the API about people: their ways in, their sessions, and who administers them.

import type { User } from "./types.ts";

/** A WebAuthn question with the id under which its answer is taken. */
export interface Ceremony {
  ceremony: string;
  options: Record<string, unknown>;
}

export interface Passkey {
  id: string;
  name: string;
  added_at: string;
  last_used_at: string | null;
  /** Kept by the maker of the browser or phone on all of the person's devices. */
  is_synced: boolean;
}

/** By whom of an identity provider somebody is known here. */
export interface ProviderLink {
  id: string;
  issuer: string;
  subject: string;
  linked_at: string;
}

/** GET /account: one's own ways in. */
export interface Account {
  user: User;
  has_password: boolean;
  totp: { added_at: string } | null;
  passkeys: Passkey[];
  recovery_codes_left: number;
  is_complete: boolean;
  provider_links: ProviderLink[];
}

export interface TotpSecret {
  /** Base32, for typing in. */
  secret: string;
  /** `otpauth://…`, for the QR code. */
  otpauth_uri: string;
}

export interface OwnSession {
  id: string;
  is_current: boolean;
  started_at: string;
  seen_at: string;
  address: string | null;
  browser: string | null;
  signed_in_by: string;
}

/** A person as administrators see them. */
export interface PersonLine extends User {
  disabled: boolean;
  has_password: boolean;
  has_totp: boolean;
  passkeys: number;
  is_complete: boolean;
  invitation_expires_at: string | null;
  last_sign_in_at: string | null;
  provider_links: ProviderLink[];
  /** The provider whose first visitor under this sign-in name becomes this person. */
  awaited_provider: string | null;
  version: number;
}

/** A one-time link, as a path of this site. */
export interface Invitation {
  path: string;
  expires_at: string;
}
