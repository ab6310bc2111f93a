//! How patients are named: FAMILY, Given on clinical screens, initials where passers-by can read along.

import type { PatientLine } from "../api/types.ts";
import { birthDateText, patientAge } from "./time.ts";

/** `MÜLLER, Anna`. */
export function fullName(patient: Pick<PatientLine, "family" | "given">): string {
  return `${patient.family.toLocaleUpperCase()}, ${patient.given}`;
}

/** `M. A.`: family first, as the full name has it. */
export function initials(patient: Pick<PatientLine, "family" | "given">): string {
  return [patient.family, patient.given]
    .map((name) => Array.from(name.trim())[0])
    .filter((letter) => letter !== undefined)
    .map((letter) => `${letter.toLocaleUpperCase()}.`)
    .join(" ");
}

export function genderText(gender: PatientLine["gender"]): string {
  return { male: "Male", female: "Female", other: "Other", unknown: "Not Known" }[gender] ?? "Not Known";
}

/** `14-Jul-1945 (81y)`. */
export function bornText(birthDate: string | null, today: Date): string {
  const age = patientAge(birthDate, today);
  return age === null ? birthDateText(birthDate) : `${birthDateText(birthDate)} (${age})`;
}

export function roleText(role: string): string {
  return role.charAt(0).toUpperCase() + role.slice(1).replaceAll("-", " ");
}
