//! Finding patients, and taking a new one in.

import { useMutation } from "@tanstack/react-query";
import { useState } from "react";

import { post } from "../api/client.ts";
import type { PatientLine } from "../api/types.ts";
import { bornText, fullName, genderText } from "../format/people.ts";
import { fromDateField } from "../format/time.ts";
import { Link, navigate } from "../router.tsx";
import { useRights } from "../session.tsx";
import { ActForm } from "../ui/act-form.tsx";
import { Dialog, Empty, Failure, Field, PageTitle, useDocumentTitle, Waiting } from "../ui/basics.tsx";
import { BreakGlassButton } from "../ui/glass.tsx";
import { PlaceOptions, usePlaces, usePlaceText } from "../ui/places.tsx";
import { mayAdmitPatients } from "../ui/roles.ts";
import { usePatientSearch } from "../ui/search.tsx";
import { Table } from "../ui/table.tsx";

export function PatientsPage() {
  useDocumentTitle("Patients");
  const rights = useRights();
  const [text, setText] = useState("");
  const [adding, setAdding] = useState(false);
  const { enabled, patients, busy, error } = usePatientSearch(text);
  return (
    <div className="page">
      <PageTitle
        seenBy="clinicians and administrators; each finds only whom they may see."
        actions={
          <>
            <BreakGlassButton />
            {mayAdmitPatients(rights) && (
              <button type="button" onClick={() => setAdding(true)}>
                New patient
              </button>
            )}
          </>
        }
      >
        Patients
      </PageTitle>
      <Field label="Find a patient" hint="Start of the family name or the given name, or the whole record number">
        <input type="search" value={text} autoComplete="off" onChange={(event) => setText(event.target.value)} />
      </Field>
      {error && <Failure error={error} />}
      {busy && <Waiting what="patients" />}
      {enabled && !busy && patients.length === 0 && !error && <Empty>Nobody found.</Empty>}
      {patients.length > 0 && <Found patients={patients} />}
      {adding && <NewPatient onClose={() => setAdding(false)} />}
    </div>
  );
}

function Found({ patients }: { patients: PatientLine[] }) {
  const placeText = usePlaceText();
  return (
    <Table heads={["Name", "Born", "Gender", "Record No.", "Place"]}>
      {patients.map((patient) => (
        <tr key={patient.id}>
          <th scope="row">
            <Link to={`/patients/${patient.id}`}>{fullName(patient)}</Link>
          </th>
          <td data-label="Born">{bornText(patient.birth_date, new Date())}</td>
          <td data-label="Gender">{genderText(patient.gender)}</td>
          <td data-label="Record No." className="mono">{patient.record_number}</td>
          <td data-label="Place">{patient.place ? placeText(patient.place) : <span className="muted">None</span>}</td>
        </tr>
      ))}
    </Table>
  );
}

function NewPatient({ onClose }: { onClose: () => void }) {
  const places = usePlaces();
  const [form, setForm] = useState({ family: "", given: "", birth_date: "", gender: "unknown", record_number: "", place_id: "" });
  const set = (key: keyof typeof form) => (event: { target: { value: string } }) => setForm({ ...form, [key]: event.target.value });
  const badDate = form.birth_date.trim() !== "" && fromDateField(form.birth_date) === null;
  const save = useMutation({
    mutationFn: () => post<PatientLine>("/patients", { ...form, birth_date: fromDateField(form.birth_date), place_id: form.place_id || null }),
    onSuccess: (patient) => {
      onClose();
      navigate(`/patients/${patient.id}`);
    },
  });
  return (
    <Dialog title="New patient" onClose={onClose}>
      <ActForm action={save} verb="Take in" blocked={badDate} onClose={onClose}>
        <Field label="Family name">
          <input required autoFocus value={form.family} onChange={set("family")} />
        </Field>
        <Field label="Given name">
          <input required value={form.given} onChange={set("given")} />
        </Field>
        <Field label="Born" hint="As 14-Jul-1945; leave empty where it is not known">
          <input autoComplete="off" aria-invalid={badDate} value={form.birth_date} onChange={set("birth_date")} />
        </Field>
        {badDate && (
          <p className="bad" role="status">
            This is no date. Write day, month and year as in 14-Jul-1945.
          </p>
        )}
        <Field label="Gender">
          <select value={form.gender} onChange={set("gender")}>
            {(["female", "male", "other", "unknown"] as const).map((gender) => (
              <option key={gender} value={gender}>
                {genderText(gender)}
              </option>
            ))}
          </select>
        </Field>
        <Field label="Record number">
          <input required value={form.record_number} onChange={set("record_number")} />
        </Field>
        <Field label="Bed or home">
          <select value={form.place_id} onChange={set("place_id")}>
            <option value="">None yet</option>
            <PlaceOptions places={places.data?.places ?? []} />
          </select>
        </Field>
      </ActForm>
    </Dialog>
  );
}
