//! The shapes of the API about keys, retention, legal holds and erasure.

export interface Keys {
  provider: "file" | "credential" | "command" | "pkcs11";
  place: string;
  same_volume: boolean;
  epoch: { fingerprint: string; since: string | null };
  turn: { to: string; state: "waiting-for-nodes" | "wrapping" | "destroying"; done: number; all: number; nodes_waiting: number } | null;
  turn_due: { since: string; by: string; erasures: number } | null;
  data_keys: { patients: number; system: number; journal: number };
  patient_turns: { patient: string; label: string; begun_at: string; done: number; all: number }[];
}

export type KeepDays = Record<string, number | null>;

export interface RetentionRun {
  id: string;
  begun_at: string;
  ended_at: string | null;
  class: string;
  removed: { rows: number; bytes: number };
  state: "running" | "done" | "failed";
  error: string | null;
}

export interface Retention {
  version: number;
  updated_at: string | null;
  keep_days: KeepDays;
  versions: { version: number; updated_at: string }[];
  run: RetentionRun | null;
}

export interface DryRun {
  at: string;
  classes: {
    class: string;
    before: string | null;
    rows: number;
    bytes: number;
    patients: number;
    oldest: string | null;
    newest: string | null;
    held_rows: number;
  }[];
}

export interface Hold {
  patient: string;
  label: string;
  reason: string;
  by: { id: string; label: string };
  since: string;
  until: string | null;
}

export interface ErasureDryRun {
  patient: string;
  label: string;
  hold: Hold | null;
  rows: Record<string, number>;
  bytes: number;
  oldest: string | null;
  newest: string | null;
  devices: { id: string; name: string }[];
  alerts_open: number;
  /** What must be typed: the record number. */
  confirm: string;
}

export interface Erasure {
  id: string;
  patient: string;
  request: string;
  by: { id: string; label: string };
  begun_at: string;
  state: "purging" | "waiting-for-turn" | "complete";
  removed: Record<string, number>;
  purged_at: string | null;
  epoch: string;
  epoch_destroyed_at: string | null;
  turn_due_by: string;
}
