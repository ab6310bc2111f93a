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

/** A purpose of use (HL7 v3 ActReason) in words; an unknown code stays as it is. */
export const purposeText = (code: string): string => PURPOSES[code] ?? code;
