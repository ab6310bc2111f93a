//! How long each class of data is kept, what would go, what is held back by law, and the run itself.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { get, post, put, query, remove } from "../../api/client.ts";
import type { DryRun, Hold, KeepDays, Retention } from "../../api/keys.ts";
import { fromLocalField, instantText } from "../../format/time.ts";
import { ActForm, ReasonForm } from "../../ui/act-form.tsx";
import { Dialog, Empty, Failure, Field, PageTitle, useDocumentTitle, Waiting } from "../../ui/basics.tsx";
import { bytesText } from "../../ui/progress.tsx";
import { type Picked, WithPatient } from "../../ui/search.tsx";
import { Table } from "../../ui/table.tsx";
import { TimeField } from "../../ui/time-field.tsx";

/** How often the page looks again while a run goes on, in ms. */
const RUNNING_MS = 1_000;

/** Fewest days that details of the audit log are kept: six years, leap days included. */
const AUDIT_DAYS_MIN = 2_192;

const CLASSES: Record<string, string> = {
  waveforms: "Waveforms",
  readings: "Readings",
  events: "Events",
  "raw-frames": "Raw frames of devices",
  alerts: "Alerts",
  quarantine: "Quarantine",
  "audit-details": "Details of the audit log",
};
const classText = (name: string) => CLASSES[name] ?? name;

export function RetentionPage() {
  useDocumentTitle("Retention");
  const client = useQueryClient();
  const [open, setOpen] = useState<"edit" | "run" | "hold" | { lift: Hold } | null>(null);
  const found = useQuery({
    queryKey: ["retention"],
    queryFn: ({ signal }) => get<Retention>("/retention", signal),
    refetchInterval: ({ state }) => (state.data?.run?.state === "running" ? RUNNING_MS : false),
  });
  const runState = found.data?.run?.state;
  useEffect(() => {
    // What would go is something else once a run has ended.
    if (runState !== "running") void client.invalidateQueries({ queryKey: ["dry-run"] });
  }, [client, runState]);
  const changed = () => {
    void client.invalidateQueries({ queryKey: ["retention"] });
    void client.invalidateQueries({ queryKey: ["holds"] });
    void client.invalidateQueries({ queryKey: ["dry-run"] });
    setOpen(null);
  };
  return (
    <div className="page">
      <PageTitle
        seenBy="administrators."
        actions={
          <>
            <button type="button" onClick={() => setOpen("edit")} disabled={!found.data}>
              Change
            </button>
            <button type="button" className="danger" onClick={() => setOpen("run")} disabled={!found.data || found.data.run?.state === "running"}>
              Remove what is due
            </button>
          </>
        }
      >
        Retention
      </PageTitle>
      {found.isPending && <Waiting what="the policy" />}
      {found.isError && <Failure error={found.error} retry={() => void found.refetch()} />}
      {found.data && (
        <>
          <RunState retention={found.data} />
          <WhatGoes keep={null} current={found.data.keep_days} />
          <p className="hint">
            {found.data.version === 0 ? "No policy has been set yet: everything is kept for ever." : `Version ${found.data.version} of the policy${found.data.updated_at ? `, of ${instantText(found.data.updated_at)}` : ""}.`} Trends are computed from readings, and go with them. The audit log's rows stay provable when their details have gone.
          </p>
        </>
      )}
      <Holds onAdd={() => setOpen("hold")} onLift={(hold) => setOpen({ lift: hold })} />
      {open === "edit" && found.data && <EditDialog retention={found.data} onClose={() => setOpen(null)} onDone={changed} />}
      {open === "run" && <RunDialog onClose={() => setOpen(null)} onDone={changed} />}
      {open === "hold" && <HoldDialog onClose={() => setOpen(null)} onDone={changed} />}
      {open !== null && typeof open === "object" && <LiftDialog hold={open.lift} onClose={() => setOpen(null)} onDone={changed} />}
    </div>
  );
}

function RunState({ retention: { run } }: { retention: Retention }) {
  if (run === null) return null;
  const removed = rowsText(run.removed);
  if (run.state === "running") {
    return (
      <p className="message message-note" role="status">
        <strong>Removing {classText(run.class).toLowerCase()} …</strong> {removed} so far.
      </p>
    );
  }
  return (
    <p className={run.state === "failed" ? "message message-bad" : "message message-good"} role="status">
      {run.state === "failed" ? `The run of ${instantText(run.begun_at)} failed: ${run.error ?? "no reason was given"}. Removed before that: ` : `Last run ended ${instantText(run.ended_at)}. Removed: `}
      {removed}.
    </p>
  );
}

/** What would go under the policy, or under a proposal. */
function WhatGoes({ keep, current }: { keep: KeepDays | null; current: KeepDays }) {
  const asked = keep === null ? {} : Object.fromEntries(Object.entries(keep).map(([name, days]) => [name, days === null ? undefined : days]));
  const found = useQuery({ queryKey: ["dry-run", keep], queryFn: ({ signal }) => get<DryRun>(`/retention/dry-run${query(asked)}`, signal) });
  const days = keep ?? current;
  // What is kept for ever is in no dry run, and has its line all the same.
  const classes = Object.keys(current).map((name) => [name, found.data?.classes.find((one) => one.class === name)] as const);
  return (
    <>
      {found.isPending && <Waiting what="what would go" />}
      {found.isError && <Failure error={found.error} retry={() => void found.refetch()} />}
      {found.data && (
        <Table heads={["Class", "Kept", { figures: "Would go now" }, { figures: "Patients" }, "From", "To", { figures: "Held back by law" }]} caption="What is kept how long, and what would go now">
          {classes.map(([name, one]) => (
            <tr key={name}>
              <th scope="row">{classText(name)}</th>
              <td data-label="Kept">{keepText(days[name] ?? null)}</td>
              <td data-label="Would go now" className="number">
                {!one || one.rows === 0 ? <span className="muted">Nothing</span> : rowsText(one)}
              </td>
              <td data-label="Patients" className="number">
                {one?.patients ?? 0}
              </td>
              <td data-label="From">{one?.oldest ? instantText(one.oldest) : <span className="muted">None</span>}</td>
              <td data-label="To">{one?.newest ? instantText(one.newest) : <span className="muted">None</span>}</td>
              <td data-label="Held back by law" className="number">
                {one?.held_rows ?? 0}
              </td>
            </tr>
          ))}
        </Table>
      )}
    </>
  );
}

/** Rows as the store keeps them: a row of readings holds up to thousands. */
const rowsText = ({ rows, bytes }: { rows: number; bytes: number }) => `${rows} stored ${rows === 1 ? "row" : "rows"}, ${bytesText(bytes)}`;

function keepText(days: number | null): string {
  if (days === null) return "For ever";
  if (days === 1) return "1 day";
  return days % 365 === 0 ? (days === 365 ? "1 year" : `${days / 365} years`) : `${days} days`;
}

interface DoneProps {
  onClose: () => void;
  onDone: () => void;
}

function EditDialog({ retention, onClose, onDone }: DoneProps & { retention: Retention }) {
  const [form, setForm] = useState<Record<string, string>>(() => Object.fromEntries(Object.entries(retention.keep_days).map(([name, days]) => [name, days === null ? "" : String(days)])));
  const [reason, setReason] = useState("");
  const [shown, setShown] = useState<KeepDays | null>(null);
  const keep: KeepDays = Object.fromEntries(Object.entries(form).map(([name, days]) => [name, days === "" ? null : Number(days)]));
  const save = useMutation({ mutationFn: () => put<Retention>("/retention", { version: retention.version, keep_days: keep, reason: reason.trim() }), onSuccess: onDone });
  return (
    <Dialog title="Change retention" onClose={onClose} wide>
      <ActForm action={save} verb="Save" onClose={onClose}>
        <p className="hint">Days; empty keeps for ever. Nothing goes until somebody starts the run.</p>
        <div className="field-grid">
          {Object.entries(form).map(([name, days]) => (
            <Field key={name} label={classText(name)} {...(name === "audit-details" ? { hint: `At least ${AUDIT_DAYS_MIN} (six years)` } : {})}>
              <input type="number" min={name === "audit-details" ? AUDIT_DAYS_MIN : 1} step={1} value={days} placeholder="For ever" onChange={(event) => setForm({ ...form, [name]: event.target.value })} />
            </Field>
          ))}
        </div>
        <button type="button" onClick={() => setShown(keep)}>
          Show what would go
        </button>
        {shown !== null && <WhatGoes keep={shown} current={retention.keep_days} />}
        <Field label="Reason">
          <input required autoComplete="off" value={reason} onChange={(event) => setReason(event.target.value)} />
        </Field>
      </ActForm>
    </Dialog>
  );
}

function RunDialog({ onClose, onDone }: DoneProps) {
  return (
    <Dialog title="Remove what is due" onClose={onClose}>
      <ReasonForm act={(reason) => post<unknown>("/retention/run", { reason })} onDone={onDone} verb="Remove for good" dangerous onClose={onClose}>
        <p>Everything that the table lists is removed for good, in small steps beside the work. What is held back by law stays.</p>
      </ReasonForm>
    </Dialog>
  );
}

function Holds({ onAdd, onLift }: { onAdd: () => void; onLift: (hold: Hold) => void }) {
  const holds = useQuery({ queryKey: ["holds"], queryFn: ({ signal }) => get<{ holds: Hold[] }>("/holds", signal) });
  return (
    <section aria-labelledby="holds">
      <header className="card-head above-table">
        <h2 id="holds">Legal holds</h2>
        <button type="button" onClick={onAdd}>
          Hold a patient's data
        </button>
      </header>
      {holds.isPending && <Waiting what="holds" />}
      {holds.isError && <Failure error={holds.error} retry={() => void holds.refetch()} />}
      {holds.data && holds.data.holds.length === 0 && <Empty>Nothing is held back.</Empty>}
      {holds.data && holds.data.holds.length > 0 && (
        <Table heads={["Patient", "Reason", "By", "Since", "Until", { acts: "Act" }]}>
          {holds.data.holds.map((hold) => (
            <tr key={hold.patient}>
              <th scope="row">{hold.label}</th>
              <td data-label="Reason">{hold.reason}</td>
              <td data-label="By">{hold.by.label}</td>
              <td data-label="Since">{instantText(hold.since)}</td>
              <td data-label="Until">{hold.until === null ? "Lifted by somebody" : instantText(hold.until)}</td>
              <td className="acts">
                <button type="button" onClick={() => onLift(hold)} aria-label={`Lift the hold of ${hold.label}`}>
                  Lift
                </button>
              </td>
            </tr>
          ))}
        </Table>
      )}
    </section>
  );
}

function HoldDialog({ onClose, onDone }: DoneProps) {
  return (
    <Dialog title="Hold a patient's data" onClose={onClose}>
      <WithPatient>{(patient) => <HoldForm patient={patient} onClose={onClose} onDone={onDone} />}</WithPatient>
    </Dialog>
  );
}

function HoldForm({ patient, onClose, onDone }: DoneProps & { patient: Picked }) {
  const [reason, setReason] = useState("");
  const [until, setUntil] = useState("");
  const badUntil = until.trim() !== "" && fromLocalField(until) === null;
  const hold = useMutation({ mutationFn: () => put<Hold>(`/patients/${patient.id}/hold`, { reason: reason.trim(), until: fromLocalField(until) }), onSuccess: onDone });
  return (
    <ActForm action={hold} verb="Hold" blocked={badUntil} onClose={onClose}>
      <p>
        Nothing of <strong>{patient.label}</strong> is removed or erased while the hold stands, whatever the policy says.
      </p>
      <Field label="Reason" hint="E.g. the case number; it is shown to administrators">
        <input required autoFocus autoComplete="off" value={reason} onChange={(event) => setReason(event.target.value)} />
      </Field>
      <TimeField label="Until" hint="Empty: until somebody lifts it" value={until} onChange={setUntil} />
    </ActForm>
  );
}

function LiftDialog({ hold, onClose, onDone }: DoneProps & { hold: Hold }) {
  return (
    <Dialog title={`Lift the hold of ${hold.label}`} onClose={onClose}>
      <ReasonForm act={(reason) => remove<unknown>(`/patients/${hold.patient}/hold`, { reason })} onDone={onDone} verb="Lift" dangerous onClose={onClose}>
        <p>Retention and erasure apply to this patient again.</p>
      </ReasonForm>
    </Dialog>
  );
}
