//! What of the audit log is looked at: whose data, by whom, with which device, which acts, when, how it ended.

import { type FormEvent, useEffect, useState } from "react";

import { query } from "../../api/client.ts";
import { ACTIONS, OUTCOMES } from "../../format/audit.ts";
import { fullName } from "../../format/people.ts";
import { fromLocalField, toLocalField } from "../../format/time.ts";
import { useRights } from "../../session.tsx";
import { Dialog, Field } from "../../ui/basics.tsx";
import { maySeePatients } from "../../ui/roles.ts";
import { PatientPicker } from "../../ui/search.tsx";
import { TimeField } from "../../ui/time-field.tsx";

export interface Wanted {
  patient: { id: string; label: string } | null;
  actor: string;
  device: string;
  action: string;
  outcome: string;
  breakGlass: boolean;
  from: string;
  to: string;
}

export function wantedIn(search: string): Wanted {
  const asked = new URLSearchParams(search);
  const word = (key: string) => asked.get(key) ?? "";
  const patient = word("patient");
  return {
    // The address holds the id alone: a name in an address would be kept by the browser's history.
    patient: patient === "" ? null : { id: patient, label: "" },
    actor: word("actor"),
    device: word("device"),
    action: word("action"),
    outcome: word("outcome"),
    breakGlass: word("break_glass") === "true",
    from: word("from"),
    to: word("to"),
  };
}

/** The same, as the API and the page's address spell it. */
export function askedOf(wanted: Wanted): Record<string, string | null> {
  return {
    patient: wanted.patient?.id ?? null,
    actor: wanted.actor || null,
    device: wanted.device || null,
    action: wanted.action || null,
    outcome: wanted.outcome || null,
    break_glass: wanted.breakGlass ? "true" : null,
    from: wanted.from || null,
    to: wanted.to || null,
  };
}

const field = (iso: string) => (iso === "" ? "" : toLocalField(new Date(iso)));

interface FiltersProps {
  wanted: Wanted;
  onChange: (wanted: Wanted) => void;
  onAgain: () => void;
}

export function Filters({ wanted, onChange, onAgain }: FiltersProps) {
  const rights = useRights();
  const [picking, setPicking] = useState(false);
  const mayPick = maySeePatients(rights);
  const patientId = wanted.patient?.id ?? "";
  const [draft, setDraft] = useState({ patient: patientId, actor: wanted.actor, device: wanted.device, from: field(wanted.from), to: field(wanted.to) });
  const [label, setLabel] = useState<{ id: string; label: string } | null>(null);
  const { actor, device, from, to } = wanted;
  useEffect(() => setDraft({ patient: patientId, actor, device, from: field(from), to: field(to) }), [patientId, actor, device, from, to]);
  const set = (key: keyof typeof draft) => (event: { target: { value: string } }) => setDraft({ ...draft, [key]: event.target.value });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const typed = draft.patient.trim();
    const patient = mayPick ? wanted.patient : typed === "" ? null : { id: typed, label: "" };
    onChange({ ...wanted, patient, actor: draft.actor.trim(), device: draft.device.trim(), from: fromLocalField(draft.from) ?? "", to: fromLocalField(draft.to) ?? "" });
  };
  const any = Object.values(askedOf(wanted)).some((value) => value !== null);
  const asked = askedOf(wanted);
  return (
    <form className="audit-filters" onSubmit={submit} aria-label="Filter the log">
      <div className="filters">
        {!mayPick && (
          <Field label="Patient">
            <input autoComplete="off" spellCheck={false} placeholder="Record number" value={draft.patient} onChange={set("patient")} />
          </Field>
        )}
        <Field label="Who">
          <input autoComplete="off" spellCheck={false} placeholder="Sign-in name" value={draft.actor} onChange={set("actor")} />
        </Field>
        <Field label="Did">
          <select value={wanted.action} onChange={(event) => onChange({ ...wanted, action: event.target.value })}>
            <option value="">Anything</option>
            {ACTIONS.map((action) => (
              <option key={action}>{action}</option>
            ))}
          </select>
        </Field>
        <Field label="Outcome">
          <select value={wanted.outcome} onChange={(event) => onChange({ ...wanted, outcome: event.target.value })}>
            <option value="">Any</option>
            {OUTCOMES.map((outcome) => (
              <option key={outcome}>{outcome}</option>
            ))}
          </select>
        </Field>
        <Field label="Device">
          <input autoComplete="off" spellCheck={false} placeholder="Name or serial" value={draft.device} onChange={set("device")} />
        </Field>
        <TimeField label="From" value={draft.from} onChange={(value) => setDraft({ ...draft, from: value })} />
        <TimeField label="To" value={draft.to} onChange={(value) => setDraft({ ...draft, to: value })} />
      </div>
      <div className="filters">
        <label className="check">
          <input type="checkbox" checked={wanted.breakGlass} onChange={(event) => onChange({ ...wanted, breakGlass: event.target.checked })} /> Only with a broken glass
        </label>
        {wanted.patient === null ? (
          mayPick && (
            <button type="button" onClick={() => setPicking(true)}>
              Of one patient …
            </button>
          )
        ) : (
          <span className="chip">
            Of <strong>{wanted.patient.label || (label?.id === wanted.patient.id ? label.label : "one patient")}</strong>
            <button type="button" className="link" onClick={() => onChange({ ...wanted, patient: null })}>
              Of all
            </button>
          </span>
        )}
        <button type="submit" className="primary">
          Search
        </button>
        {any && (
          <button type="button" onClick={() => onChange(wantedIn(""))}>
            Show all
          </button>
        )}
        <button type="button" onClick={onAgain}>
          Look again
        </button>
        <span className="spring" />
        <span className="hint">To read. For a proof: auscult audit export</span>
        <a className="button" href={`/api/v1/audit/export${query({ ...asked, format: "ndjson" })}`} download>
          Export FHIR
        </a>
        <a className="button" href={`/api/v1/audit/export${query({ ...asked, format: "csv" })}`} download>
          Export CSV
        </a>
      </div>
      {picking && (
        <Dialog title="Whose data?" onClose={() => setPicking(false)} wide>
          <PatientPicker
            label="Patient"
            autoFocus
            onPick={(found) => {
              const patient = { id: found.id, label: fullName(found) };
              setLabel(patient);
              onChange({ ...wanted, patient });
              setPicking(false);
            }}
          />
        </Dialog>
      )}
    </form>
  );
}
