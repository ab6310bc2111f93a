//! Finding a patient by name or record number, with the keyboard alone if wished.

import { useQuery } from "@tanstack/react-query";
import { type KeyboardEvent, type ReactNode, useEffect, useId, useState } from "react";

import { get, query } from "../api/client.ts";
import type { PatientLine } from "../api/types.ts";
import { bornText, fullName, genderText } from "../format/people.ts";
import { navigate } from "../router.tsx";
import { Dialog, Failure } from "./basics.tsx";
import { usePlaceText } from "./places.tsx";

/** Pause in typing after which a search is made, in ms: each search is an entry in the audit log. */
const PAUSE_MS = 250;
/** Fewest characters that are searched for. */
const LEAST = 2;

export function useDebounced(text: string): string {
  const [settled, setSettled] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(text), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return settled;
}

export function usePatientSearch(text: string) {
  const wanted = useDebounced(text.trim());
  const enabled = wanted.length >= LEAST;
  const found = useQuery({
    queryKey: ["patients", wanted],
    queryFn: ({ signal }) => get<{ patients: PatientLine[] }>(`/patients${query({ query: wanted })}`, signal),
    enabled,
  });
  return { enabled, patients: enabled ? (found.data?.patients ?? []) : [], busy: enabled && found.isFetching, error: found.error, settled: wanted };
}

interface PickerProps {
  onPick: (patient: PatientLine) => void;
  label: string;
  autoFocus?: boolean;
}

/** A text field with a list below it: arrows choose, Enter takes. */
export function PatientPicker({ onPick, label, autoFocus = false }: PickerProps) {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const id = useId();
  const placeText = usePlaceText();
  const { enabled, patients, busy, error } = usePatientSearch(text);
  const chosen = Math.min(at, patients.length - 1);
  const onKey = (event: KeyboardEvent) => {
    if (event.key === "ArrowDown") setAt(Math.min(chosen + 1, patients.length - 1));
    else if (event.key === "ArrowUp") setAt(Math.max(chosen - 1, 0));
    else if (event.key === "Enter") {
      const patient = patients[chosen];
      if (patient) onPick(patient);
    } else return;
    event.preventDefault();
  };
  return (
    <div className="picker">
      <input
        type="search"
        role="combobox"
        aria-label={label}
        aria-expanded={patients.length > 0}
        aria-controls={`${id}-list`}
        aria-activedescendant={patients.length > 0 ? `${id}-${chosen}` : undefined}
        autoComplete="off"
        placeholder="Start of a name, or a whole record number"
        autoFocus={autoFocus}
        value={text}
        onChange={(event) => {
          setText(event.target.value);
          setAt(0);
        }}
        onKeyDown={onKey}
      />
      <p className="hint" role="status">
        {!enabled && `Type at least ${LEAST} characters.`}
        {enabled && busy && "Searching …"}
        {enabled && !busy && !error && (patients.length === 0 ? "Nobody found." : `${patients.length} found.`)}
      </p>
      {error && <Failure error={error} />}
      <ul role="listbox" id={`${id}-list`} aria-label="Patients found">
        {patients.map((patient, index) => (
          <li
            key={patient.id}
            id={`${id}-${index}`}
            role="option"
            aria-selected={index === chosen}
            onClick={() => onPick(patient)}
            onMouseEnter={() => setAt(index)}
          >
            <strong>{fullName(patient)}</strong>
            <span>Born {bornText(patient.birth_date, new Date())}</span>
            <span>{genderText(patient.gender)}</span>
            <span>Record {patient.record_number}</span>
            <span>{patient.place ? placeText(patient.place) : "No place"}</span>
          </li>
        ))}
      </ul>
    </div>
  );
}

/** Whom an act is about, before its form. */
export interface Picked {
  id: string;
  label: string;
}

/** Asks for a patient first, then shows what is to be done. */
export function WithPatient({ before, children }: { before?: ReactNode; children: (patient: Picked) => ReactNode }) {
  const [patient, setPatient] = useState<Picked | null>(null);
  if (patient !== null) return children(patient);
  return (
    <>
      {before}
      <PatientPicker label="Patient" autoFocus onPick={(found) => setPatient({ id: found.id, label: fullName(found) })} />
    </>
  );
}

export function SearchDialog({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Find a patient" onClose={onClose} wide>
      <PatientPicker
        label="Find a patient"
        autoFocus
        onPick={(patient) => {
          onClose();
          navigate(`/patients/${patient.id}`);
        }}
      />
    </Dialog>
  );
}
