//! Assigning a device to a patient or a place, from a given time on.

import { useMutation } from "@tanstack/react-query";
import { useState } from "react";

import { explain, post } from "../api/client.ts";
import type { Assignment, PatientLine } from "../api/types.ts";
import { bornText, fullName } from "../format/people.ts";
import { fromLocalField, toLocalField } from "../format/time.ts";
import { useRights } from "../session.tsx";
import { ActForm } from "./act-form.tsx";
import { Dialog, Field } from "./basics.tsx";
import { PlaceOptions, usePlaces, usePlaceText } from "./places.tsx";
import { maySeePatients } from "./roles.ts";
import { PatientPicker } from "./search.tsx";
import { TimeField } from "./time-field.tsx";

interface AssignProps {
  device: { id: string; name: string };
  /** When the assignment should begin, ISO; now where it is left out. */
  suggestedStart?: string;
  onClose: () => void;
  onDone: (assignment: Assignment) => void;
}

export function AssignDialog({ device, suggestedStart, onClose, onDone }: AssignProps) {
  const seesPatients = maySeePatients(useRights());
  const [kind, setKind] = useState<"patient" | "place">(seesPatients ? "patient" : "place");
  const [patient, setPatient] = useState<PatientLine | null>(null);
  const [placeId, setPlaceId] = useState("");
  const [start, setStart] = useState(() => toLocalField(suggestedStart ? new Date(suggestedStart) : new Date()));
  const [end, setEnd] = useState("");
  const places = usePlaces();
  const placeText = usePlaceText();
  const startAt = fromLocalField(start);
  const subject = kind === "patient" ? patient?.id : placeId || undefined;
  const send = useMutation({
    mutationFn: () => post<Assignment>(`/devices/${device.id}/assignments`, { subject: { kind, id: subject }, start: startAt, end: fromLocalField(end) }),
    onSuccess: (assignment) => {
      onDone(assignment);
      onClose();
    },
  });
  return (
    <Dialog title={`Assign ${device.name}`} onClose={onClose}>
      {seesPatients && <fieldset className="radio-group">
        <legend>To</legend>
        <label className="check">
          <input type="radio" name="kind" checked={kind === "patient"} onChange={() => setKind("patient")} /> A patient
        </label>
        <label className="check">
          <input type="radio" name="kind" checked={kind === "place"} onChange={() => setKind("place")} /> A place
        </label>
      </fieldset>}
      {kind === "patient" && patient === null && <PatientPicker label="Patient" autoFocus onPick={setPatient} />}
      {kind === "patient" && patient !== null && (
        <p className="message message-note picked">
          <span>
            <strong>{fullName(patient)}</strong>, born {bornText(patient.birth_date, new Date())}, record {patient.record_number}, {patient.place ? placeText(patient.place) : "no place"}
          </span>
          <button type="button" onClick={() => setPatient(null)}>
            Another
          </button>
        </p>
      )}
      <ActForm action={send} verb="Assign" refusals={{ overlap: `${explain(send.error)} End the other assignment first, or choose another time.` }} blocked={subject === undefined || startAt === null || (end.trim() !== "" && fromLocalField(end) === null)} onClose={onClose}>
        {kind === "place" && (
          <Field label="Place">
            <select required value={placeId} onChange={(event) => setPlaceId(event.target.value)}>
              <option value="">Choose a place</option>
              <PlaceOptions places={places.data?.places ?? []} withWards />
            </select>
          </Field>
        )}
        <TimeField label="From" hint="Readings measured from this time on belong to the patient or place" required value={start} onChange={setStart} />
        <TimeField label="Until" hint="Leave empty while the device stays" value={end} onChange={setEnd} />
      </ActForm>
    </Dialog>
  );
}
