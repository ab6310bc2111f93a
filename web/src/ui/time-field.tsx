//! A field for a time as this app writes times everywhere: dd-Mmm-yyyy, 24-hour clock, the viewer's zone.

import { fromLocalField, zoneText } from "../format/time.ts";
import { Field } from "./basics.tsx";

interface TimeFieldProps {
  label: string;
  hint?: string;
  required?: boolean;
  value: string;
  onChange: (text: string) => void;
}

export function TimeField({ label, hint, required = false, value, onChange }: TimeFieldProps) {
  const bad = value.trim() === "" ? false : fromLocalField(value) === null;
  return (
    <Field label={`${label} (${zoneText(new Date())})`} hint={bad ? "Write it as 22-Nov-2026 14:05:00" : (hint ?? "As 22-Nov-2026 14:05:00")}>
      <input inputMode="text" autoComplete="off" spellCheck={false} required={required} aria-invalid={bad} value={value} onChange={(event) => onChange(event.target.value)} />
    </Field>
  );
}
