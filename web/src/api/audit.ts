//! The shapes of the API about the audit log and its proofs.

export interface AuditRow {
  sequence: number;
  at: string;
  actor: { kind: string; id: string; label: string };
  action: string;
  outcome: string;
  patient: { id: string; label: string } | null;
  device: { id: string; name: string } | null;
  object: string | null;
  detail: string | null;
  /** Purpose of use, as a code of HL7 v3 ActReason. */
  purpose: string | null;
  /** The breaking of the glass under which it was done. */
  break_glass: string | null;
  /** Which policies decided. */
  policies: string[];
  role: string | null;
  address: string | null;
  /** A signed checkpoint covers the row. */
  provable: boolean;
}

export interface AuditPageOfRows {
  rows: AuditRow[];
  more: boolean;
  next_before: number | null;
}

export interface AuditGroup {
  group: number;
  committed_at: string;
  sources: { device: { id: string; name: string }; frames: number; facts: number; quarantined: number; sha256: string }[];
}

/** Why a row must be in the log, as far as the server can say it; the browser checks each part again. */
export interface RowProof {
  log: string;
  origin: string;
  sequence: number;
  index: number;
  size: number;
  leaf_input: string;
  leaf: string;
  path: string[];
  root: string;
  checkpoint: string;
  log_keys: string[];
  witness_keys: string[];
  content: { header: string; blinding: string; payload: string } | null;
  tlog_proof: string;
}

export interface LogState {
  logs: {
    log: string;
    origin: string;
    epoch: number;
    rows: number;
    size: number;
    checkpoint: { size: number; at: string; note: string; cosigned_by: string[] } | null;
  }[];
  keys: { vkey: string; id: string; active: boolean }[];
  witnesses: { name: string; url: string; state: string; last_at: string | null; last_size: number | null; what: string }[];
  alarms: string[];
}
