//! Erasing a patient in two steps, the certificates of those who were erased, and handing patients their data.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get, post } from "../../api/client.ts";
import type { Erasure, ErasureDryRun } from "../../api/keys.ts";
import { instantText } from "../../format/time.ts";
import { ExportButtons } from "../../patient/export.tsx";
import { useRights } from "../../session.tsx";
import { ActForm } from "../../ui/act-form.tsx";
import { Dialog, Empty, Fact, Failure, Field, PageTitle, useDocumentTitle, Waiting } from "../../ui/basics.tsx";
import { bytesText } from "../../ui/progress.tsx";
import { WithPatient } from "../../ui/search.tsx";
import { Table } from "../../ui/table.tsx";

/** How often the list is read again while an erasure goes on, in ms. */
const GOING_ON_MS = 2_000;

const STATES: Record<Erasure["state"], string> = {
  purging: "Being removed",
  "waiting-for-turn": "Removed; backups readable until the main key turns",
  complete: "Complete: backups cannot be read either",
};

/** Rows of the store, as they are sealed and removed: how many readings stand in a block is not known without opening it. */
const ROWS: Record<string, string> = {
  readings: "Stored blocks of readings",
  waveforms: "Stored blocks of curves",
  events: "Events",
  raw_frames: "Bundles of raw frames",
  documents: "Documents, with all versions",
  quarantine: "In quarantine",
  audit_details: "Details in the audit log",
};

type Open = { erase: true } | { export: true } | null;

export function ErasurePage() {
  useDocumentTitle("Erasure and export");
  const rights = useRights();
  const client = useQueryClient();
  const [open, setOpen] = useState<Open>(null);
  const mayErase = rights.may.has("erase-data");
  const erasures = useQuery({
    queryKey: ["erasures"],
    queryFn: ({ signal }) => get<{ erasures: Erasure[] }>("/erasures", signal),
    enabled: mayErase,
    refetchInterval: ({ state }) => (state.data?.erasures.some((one) => one.state === "purging") ? GOING_ON_MS : false),
  });
  return (
    <div className="page">
      <PageTitle
        seenBy="administrators, and whoever the policies let erase or export."
        actions={
          <>
            {rights.may.has("export-patient") && (
              <button type="button" onClick={() => setOpen({ export: true })}>
                Export a patient
              </button>
            )}
            {mayErase && (
              <button type="button" className="danger" onClick={() => setOpen({ erase: true })}>
                Erase a patient …
              </button>
            )}
          </>
        }
      >
        Erasure and export
      </PageTitle>
      <p className="muted">An erased patient's key is destroyed, so that nobody can bring the data back, and a signed certificate says so. An export hands patients everything kept about them.</p>
      {mayErase && (
        <>
          {erasures.isPending && <Waiting what="erasures" />}
          {erasures.isError && <Failure error={erasures.error} retry={() => void erasures.refetch()} />}
          {erasures.data && erasures.data.erasures.length === 0 && <Empty>Nobody has been erased.</Empty>}
          {erasures.data && erasures.data.erasures.length > 0 && <Erased erasures={erasures.data.erasures} />}
        </>
      )}
      {open !== null && "erase" in open && (
        <EraseDialog
          onClose={() => setOpen(null)}
          onDone={() => {
            void client.invalidateQueries({ queryKey: ["erasures"] });
            setOpen(null);
          }}
        />
      )}
      {open !== null && "export" in open && <ExportDialog onClose={() => setOpen(null)} />}
    </div>
  );
}

function Erased({ erasures }: { erasures: Erasure[] }) {
  return (
    <>
      <Table heads={["Begun", "Request", "Patient (id only)", "By", "State", "Certificate"]}>
        {erasures.map((one) => (
          <tr key={one.id}>
            <td data-label="Begun">{instantText(one.begun_at)}</td>
            <td data-label="Request">{one.request}</td>
            <td data-label="Patient" className="mono">
              {one.patient}
            </td>
            <td data-label="By">{one.by.label}</td>
            <td data-label="State">
              {STATES[one.state] ?? one.state}
              {one.state === "waiting-for-turn" && <span className="muted"> (due by {instantText(one.turn_due_by)})</span>}
            </td>
            <td data-label="Certificate" className="acts">
              {one.state === "purging" ? (
                <span className="muted">Not yet</span>
              ) : (
                <>
                  <a className="button" href={`/api/v1/erasures/${one.id}/certificate.json`} download>
                    JSON
                  </a>
                  <a className="button" href={`/api/v1/erasures/${one.id}/certificate.sig`} download>
                    Signature
                  </a>
                </>
              )}
            </td>
          </tr>
        ))}
      </Table>
      <p className="hint">
        Anybody can check a certificate with openssl and the <a href="/api/v1/erasures/signer.pem" download>signer's certificate</a>: openssl dgst -sha256 -verify …
      </p>
    </>
  );
}

interface DoneProps {
  onClose: () => void;
  onDone: () => void;
}

function EraseDialog({ onClose, onDone }: DoneProps) {
  return (
    <Dialog title="Erase a patient" onClose={onClose} wide>
      <WithPatient before={<p>First you see what would go. Nothing is erased until you confirm it.</p>}>{(patient) => <Confirm patient={patient.id} onClose={onClose} onDone={onDone} />}</WithPatient>
    </Dialog>
  );
}

function Confirm({ patient, onClose, onDone }: DoneProps & { patient: string }) {
  const [form, setForm] = useState({ reason: "", request: "", confirm: "" });
  const set = (key: keyof typeof form) => (event: { target: { value: string } }) => setForm({ ...form, [key]: event.target.value });
  const dry = useQuery({ queryKey: ["erasure-dry-run", patient], queryFn: () => post<ErasureDryRun>(`/patients/${patient}/erasure/dry-run`), gcTime: 0, staleTime: Infinity });
  const erase = useMutation({ mutationFn: () => post<unknown>(`/patients/${patient}/erasure`, form), onSuccess: onDone });
  if (dry.isPending) return <Waiting what="what would go" />;
  if (dry.isError) return <Failure error={dry.error} retry={() => void dry.refetch()} />;
  const what = dry.data;
  return (
    <ActForm action={erase} verb="Erase for good" refusals={{ "on-hold": "This patient is on legal hold. Nothing was erased." }} blocked={form.confirm !== what.confirm || what.hold !== null} dangerous onClose={onClose}>
      <h3>{what.label}</h3>
      {what.hold !== null && (
        <p className="message message-bad">
          <strong>On legal hold</strong> since {instantText(what.hold.since)}: {what.hold.reason}. Nothing can be erased until the hold is lifted.
        </p>
      )}
      {what.alerts_open > 0 && <p className="message message-note">{what.alerts_open === 1 ? "One alert" : `${what.alerts_open} alerts`} of this patient {what.alerts_open === 1 ? "is" : "are"} still open.</p>}
      <dl className="facts">
        {Object.entries(what.rows).map(([name, count]) => (
          <Fact key={name} label={ROWS[name] ?? name}>
            {count}
          </Fact>
        ))}
        <Fact label="Together">{bytesText(what.bytes)}</Fact>
        <Fact label="From">{instantText(what.oldest)}</Fact>
        <Fact label="To">{instantText(what.newest)}</Fact>
        <Fact label="Devices in use">{what.devices.map(({ name }) => name).join(", ") || "None"}</Fact>
      </dl>
      <p className="message message-bad">
        The patient's key is destroyed: nobody can bring these data back. That it happened stays provable in the audit log, without what was read.
      </p>
      <Field label="Request" hint="Case number, without names: it stands on the certificate">
        <input required autoComplete="off" value={form.request} onChange={set("request")} />
      </Field>
      <Field label="Reason">
        <input required autoComplete="off" value={form.reason} onChange={set("reason")} />
      </Field>
      <Field label={`Type ${what.confirm} to confirm`}>
        <input required autoComplete="off" spellCheck={false} className="mono" value={form.confirm} onChange={set("confirm")} />
      </Field>
    </ActForm>
  );
}

function ExportDialog({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Export a patient" onClose={onClose}>
      <WithPatient>
        {(patient) => (
          <>
            <p>
              Everything kept about <strong>{patient.label}</strong>: readings, curves, alerts, limits, devices, sharing rules, and who looked at it.
            </p>
            <ExportButtons patientId={patient.id} />
          </>
        )}
      </WithPatient>
    </Dialog>
  );
}
