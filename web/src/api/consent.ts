//! The shapes of the API about what patients allow, and about breaking the glass.

export type Decision = "permit" | "deny";

export interface Who {
  kind: "person" | "caregiver" | "role" | "ward" | "program";
  id: string;
  display?: string;
}

/** Who may see what, why, and when; `except` says otherwise for a part of it. */
export interface Rule {
  decision: Decision;
  /** Empty: everybody. */
  who: Who[];
  /** Empty: in any way. */
  actions: string[];
  /** Empty: for any purpose. */
  purposes: string[];
  /** With `measures` both empty: everything. */
  classes: string[];
  measures: string[];
  from?: string | null;
  until?: string | null;
  except: Rule[];
}

export interface Consent {
  id: string;
  version: number;
  patient_id: string;
  status: string;
  /** Whether it counts now: active, and its period runs. */
  is_effective: boolean;
  written_at: string;
  written_by: string | null;
  /** What holds for everything that the rule does not touch; of consents that came from elsewhere. */
  base: Decision | null;
  rule: Rule | null;
  /** The rule as a sentence. */
  says: string;
  /** False where it is nested deeper than the form shows. */
  is_simple: boolean;
}

export interface ConsentChoices {
  classes: { code: string; display: string; measures: string[] }[];
  purposes: { code: string; display: string }[];
  actions: { code: string; display: string }[];
  roles: { code: string; display: string }[];
  wards: { id: string; name: string }[];
  people: { id: string; display: string; role: string }[];
  programs: string[];
}

export type Defaults = Record<string, Decision>;

/** One breaking of the glass: who, whose data, why, until when, and what a reviewer found. */
export interface Glass {
  id: string;
  version: number;
  patient_id: string;
  /** `null` where the patient was erased since; reviewers see the record number alone. */
  patient: { family: string | null; given: string | null; record_number: string } | null;
  by: { id: string; display: string };
  reason: string;
  text: string;
  opened_at: string;
  until: string;
  ended_at?: string | null;
  stands: boolean;
  remaining_s: number;
  review_due_at: string;
  is_overdue: boolean;
  review?: { finding: "justified" | "not-justified"; note: string; at: string; by: { id: string; display: string } } | null;
}
