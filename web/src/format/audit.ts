//! How rows of the audit log read: the words of the log for auditors, sentences for patients.

import type { AuditRow } from "../api/audit.ts";

/** The words of the log for what was done, as the server takes them in a search. */
export const ACTIONS = [
  "read",
  "search",
  "stream",
  "create",
  "update",
  "delete",
  "assign",
  "answer",
  "quarantine",
  "export",
  "erase",
  "break-glass",
  "consent",
  "sign-in",
  "sign-out",
  "administer",
  "policy",
  "keys",
] as const;

export const OUTCOMES = ["success", "refused", "failed"] as const;

const WHOLE: Record<string, string> = {
  "administer User": "Changed your account",
  "create Patient": "Took you in",
  "create User": "Gave you an account",
  "stream live alerts": "Saw that you had an alert",
  "update User": "Changed your account",
};

/** Acts whose object adds nothing for the patient whose data they are about. */
const ACTS: Record<string, string> = {
  assign: "Assigned a device",
  answer: "Answered an alert",
  "break-glass": "Broke the glass",
  consent: "Wrote down what you allow",
  export: "Took out your record",
  keys: "Renewed the key of your data",
  quarantine: "Mended a reading that could not be placed",
};

const VERBS: Record<string, string> = { read: "Looked at", search: "Looked at", stream: "Watched live:", create: "Wrote", update: "Changed", delete: "Removed" };

/** What of a patient's data an act was about. */
const THINGS: Record<string, string> = {
  Alert: "your alerts",
  "Alert limits": "your alert limits",
  "audit log": "who looked at your data",
  Consent: "what you allow",
  "consent choices": "whom you can name in a rule",
  Device: "your devices",
  everything: "everything about you",
  export: "an export of your data",
  "legal hold": "the legal hold of your data",
  "live events": "your readings and alerts",
  "live waveforms": "your curves",
  Location: "where you are cared for",
  Observation: "your readings",
  "own audit log": "who looked at your data",
  Patient: "your name and details",
  provenance: "where a reading came from",
  Quarantine: "a reading that could not be placed",
  readings: "your readings",
  record: "everything about you",
  trend: "your trends",
  "ward board": "the board of your ward",
  waveform: "your curves",
};

/** What was done, as the patient reads it; in the words of the log where there are no plainer ones. */
export function doneText({ action, object }: Pick<AuditRow, "action" | "object">): string {
  const act = WHOLE[`${action} ${object}`] ?? ACTS[action];
  if (act !== undefined) return act;
  const [verb, thing] = [VERBS[action], THINGS[object ?? ""]];
  return verb === undefined || thing === undefined ? [action, object].filter(Boolean).join(" ") : `${verb} ${thing}`;
}
