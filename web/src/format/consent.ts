//! How sharing rules and purposes of use read.

const PURPOSES: Record<string, string> = {
  TREAT: "Treatment",
  ETREAT: "Emergency treatment",
  BTG: "Emergency (glass broken)",
  HPAYMT: "Payment",
  HOPERAT: "Running the hospital",
  HRESCH: "Research",
  PUBHLTH: "Public health",
  PATRQT: "The patient's own wish",
  FAMRQT: "The family's wish",
  COVERAGE: "Insurance cover",
};

const CLASSES: Record<string, string> = {
  record: "name and place",
  "vital-signs": "vital signs",
  waveforms: "curves",
  glucose: "blood glucose",
  medication: "doses",
  activity: "activity",
  location: "whereabouts",
  scores: "scores",
  device: "devices",
};

/** What is not shown although it is there: missing readings must never look like a bed in which nothing is measured. */
export const withheldText = (classes: string[]): string => `Not shared by a rule: ${classes.map((code) => CLASSES[code] ?? code).join(", ")}`;

/** A purpose of use (HL7 v3 ActReason) in words; an unknown code stays as it is. */
export const purposeText = (code: string): string => PURPOSES[code] ?? code;
