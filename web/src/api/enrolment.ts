//! The shapes of the API about certificates of devices and programs.

export type EnrolmentState = "none" | "claimable" | "enrolled" | "renewal-due" | "expired" | "renewal-to-review" | "revoked" | "decommissioned";

export interface Certificate {
  serial_hex: string;
  not_before: string;
  not_after: string;
  /** Not known of those that an operator issued beside the server. */
  issued_at: string | null;
  via: "claim" | "est" | "renewal" | "operator";
  revoked_at: string | null;
  revoked_because: string | null;
}

export interface Enrolment {
  device_id: string;
  name: string;
  manufacturer: string;
  model: string;
  serial: string;
  retired: boolean;
  state: EnrolmentState;
  claim: { created_at: string; expires_at: string; state: "open" | "used" | "expired" | "withdrawn"; created_by: { id: string; label: string } | null } | null;
  certificate: Certificate | null;
  certificates: number;
  last_renewed_at: string | null;
  review: { asked_at: string; expired_at: string; serial_hex: string } | null;
  /** Newest first; on the answer about one device only. */
  history?: Certificate[];
}

export interface Authority {
  name: string;
  root_sha256: string;
  root_not_after: string;
  issuing: { id: string; not_after: string; is_current: boolean; crl_path: string }[];
  /** The root's key still lies on the server, where it should not stay. */
  is_root_key_here: boolean;
}

/** A claim code, shown once. */
export interface Claim {
  code: string;
  qr_text: string;
  claim_url: string;
  expires_at: string;
}

export interface Decommissioned {
  proof: {
    device_id: string;
    serial: string;
    reason: string;
    at: string;
    by: { id: string; label: string };
    revoked: string[];
    crl_paths: string[];
    assignment_ended: boolean;
  };
  enrolment: Enrolment;
}

export interface ProgramLine {
  name: string;
  scopes: string[];
  registered_at: string | null;
  certificates: { serial_hex: string; not_after: string; revoked_at: string | null }[];
}
