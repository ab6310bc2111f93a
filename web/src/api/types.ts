//! The shapes of the JSON API, as `docs/reference/json-api.md` states them.

export type Role =
  | "administrator"
  | "physician"
  | "nurse"
  | "biomedical-engineer"
  | "auditor"
  | "integrator"
  | "patient"
  | "caregiver";
export type Priority = "high" | "medium" | "low";

export interface User {
  id: string;
  name: string;
  display: string;
  role: Role;
  /** Wards this person may see; `null` means all. */
  wards: string[] | null;
  care_teams: string[];
  /** Of a person with the role patient: who they are in the chart. */
  patient: string | null;
}

/** How a person proves themselves a second time, or again. */
export type Factor = "passkey" | "totp" | "recovery-code" | "demo-link";

export interface Session {
  state: "setup-needed" | "signed-out" | "second-factor-needed" | "enrolment-needed" | "signed-in";
  site: { name: string; demo: boolean; demo_people?: { name: string; display: string; role: Role }[] };
  user: User | null;
  /** Names of what this person may do, as the policies have it: `read-chart`. */
  permissions: string[];
  idle_timeout_s: number;
  expires_at: string | null;
  /** Whether passkeys work under this address. */
  passkeys: boolean;
  second_factors: Factor[];
  /** Until when acts that need a fresh proof pass without one. */
  fresh_until: string | null;
  recovery_codes_left: number | null;
  is_complete: boolean;
  /** Who at an identity provider becomes this person with the proof that is still outstanding. */
  linking: { issuer: string; subject: string } | null;
}

export interface Place {
  id: string;
  name: string;
  kind: "ward" | "bed" | "home" | "room";
  ward_id: string | null;
}

export interface PatientLine {
  id: string;
  family: string;
  given: string;
  /** YYYY-MM-DD. */
  birth_date: string | null;
  gender: "male" | "female" | "other" | "unknown";
  record_number: string;
  place: Place | null;
  ward_id: string | null;
  active?: boolean;
}

export interface Finding {
  name: string;
  text: string;
}

export interface Component {
  measure: string;
  short: string;
  value: string | null;
  absent: string | null;
  findings: Finding[];
}

/** A value as the device sent it: digits stay text, so that no precision is invented. */
export interface Vital {
  measure: string;
  short: string;
  display: string;
  value: string | null;
  absent: string | null;
  unit: string;
  unit_display: string;
  measured_at: string;
  received_at: string;
  committed_at: string;
  device_id: string;
  stale_after_s: number;
  findings: Finding[];
  observation_id: string;
  components?: Component[];
}

export interface DeviceState {
  id: string;
  name: string;
  kind: string;
  model: string;
  link: "live" | "silent" | "never";
  last_heard_at: string | null;
  battery_percent: string | null;
  expected_interval_s: number | null;
}

export interface Strip {
  measure: string;
  short: string;
  device_id: string;
}

export interface AlertStep {
  state: string;
  at: string;
  by: { id: string; display: string } | null;
  note: string | null;
}

export interface Alert {
  id: string;
  priority: Priority;
  technical: boolean;
  state: "raised" | "acknowledged" | "resolved";
  condition_active: boolean;
  latched: boolean;
  kind: "threshold" | "device-silent" | "battery-low" | "data-late" | "device-alarm";
  text: string;
  patient: PatientLine | null;
  place: Place | null;
  device: { id: string; name: string };
  raised_at: string;
  condition_ended_at: string | null;
  steps: AlertStep[];
}

export interface Limit {
  measure: string;
  low: number | null;
  high: number | null;
  priority: Priority;
  persistence_s: number;
  hysteresis: number;
}

export interface Tile {
  place: Place;
  patient: PatientLine | null;
  devices: DeviceState[];
  vitals: Vital[];
  strips: Strip[];
  alerts: Alert[];
  /** Classes of data that a sharing rule keeps from this person. */
  withheld?: string[];
}

export interface Board {
  ward: { id: string; name: string };
  position: string;
  server_time: string;
  tiles: Tile[];
}

/** GET /status: how the server fares. */
export interface ServerStatus {
  ingest: {
    state: "ok" | "shedding" | "stopping";
    /** Classes that had to give way within the last minute, the most urgent first. */
    shedding: ("alarm" | "live" | "backfill")[];
    oldest_waits_ms: number;
    refused_frames: Record<string, number>;
  };
  quarantine: { items: number; bytes: number; is_full: boolean };
}

export interface WardLine {
  id: string;
  name: string;
  places: number;
  /** `null` where these may not be seen. */
  patients: number | null;
  alerts: Record<Priority, number> | null;
}

export interface SeriesInfo {
  measure: string;
  short: string;
  display: string;
  unit_display: string;
  kind: "scalar" | "panel" | "waveform" | "event";
  device_id: string;
}

/** Something that happened: a dose, an alarm of a device, messages that did not arrive. */
export interface ChartEvent {
  measure: string;
  display: string;
  at: string;
  amount: string | null;
  unit: string | null;
  text: string | null;
  device_id: string;
}

export interface PatientChart {
  patient: PatientLine;
  place: Place | null;
  ward: { id: string; name: string } | null;
  latest: Vital[];
  series: SeriesInfo[];
  devices: DeviceState[];
  alerts: Alert[];
  limits: Limit[];
  events: ChartEvent[];
  /** Classes of data that a sharing rule keeps from this person. */
  withheld?: string[];
  position: string;
  server_time: string;
}

export interface TrendSeries {
  measure: string;
  device_id: string;
  unit_display: string;
  t: number[];
  min: number[];
  mean: number[];
  max: number[];
  count: number[];
  observation_id: (string | null)[];
}

export interface Trend {
  from: string;
  to: string;
  bucket_ms: number;
  series: TrendSeries[];
}

export interface WaveformHistory {
  measure: string;
  /** Samples per second. */
  rate: number;
  unit_display: string;
  /** Each with its own rate: blocks of another device, or after a change of its setting, are of another. */
  segments: { start_ms: number; rate: number; device_id: string; gain: number; offset: number; samples_base64: string }[];
}

export interface ExplainedField {
  offset: number;
  length: number;
  name: string;
  raw_hex: string;
  meaning: string;
}

export interface Provenance {
  vital: Vital;
  /** `null` for those who do not care for the patient. */
  device: DeviceState | null;
  patient: PatientLine | null;
  measured_at: string;
  received_at: string;
  committed_at: string;
  assignment: { id: string; start: string; end: string | null } | null;
  frames: { kind: string; received_at: string; committed_at: string; hex: string; explained: ExplainedField[] }[];
}

export interface Assignment {
  id: string;
  device_id: string;
  subject: { kind: "patient" | "place"; id: string; label: string };
  start: string;
  end: string | null;
}

export type ClockRule = { rule: "trust" } | { rule: "use-received" } | { rule: "shift"; seconds: number };

export interface Device extends DeviceState {
  manufacturer: string;
  serial: string;
  clock: ClockRule;
  utc_offset_min: number;
  retired: boolean;
  at_most_once: boolean;
  waiting_in_quarantine: number;
  assignment: Assignment | null;
  assignments?: Assignment[];
  version?: number | string;
}

export interface QuarantineItem {
  id: string;
  device: { id: string; name: string };
  kind: string;
  received_at: string;
  reason: string;
  what: string;
  offset: number;
  size_bytes: number;
  state: "waiting" | "released" | "discarded";
}

export interface QuarantineList {
  items: QuarantineItem[];
  count: { items: number; bytes: number; limit_items: number };
  /** Given back as `before`, it leads to the next page; nothing at the end. */
  next_before?: string | null;
}

export interface QuarantineDetail {
  item: QuarantineItem;
  hex: string;
  explained: ExplainedField[];
}
