//! The keys: where the key-encryption key comes from, how far a turn has come, and what waits for one.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get, post } from "../../api/client.ts";
import type { Keys } from "../../api/keys.ts";
import { instantText } from "../../format/time.ts";
import { ReasonForm } from "../../ui/act-form.tsx";
import { Dialog, Fact, Failure, PageTitle, useDocumentTitle, Waiting } from "../../ui/basics.tsx";
import { Progress } from "../../ui/progress.tsx";
import { type Picked, WithPatient } from "../../ui/search.tsx";

/** How often progress is asked for while something turns, and otherwise, in ms. */
const TURNING_MS = 1_000;
const QUIET_MS = 15_000;

const PROVIDERS: Record<Keys["provider"], string> = {
  file: "A file",
  credential: "A credential of the service manager",
  command: "A command",
  pkcs11: "A security module (PKCS #11)",
};

const STEPS: Record<NonNullable<Keys["turn"]>["state"], string> = {
  "waiting-for-nodes": "Waiting until every node has the new key",
  wrapping: "Wrapping the data keys anew",
  destroying: "Destroying the old key's traces",
};

export function KeysPage() {
  useDocumentTitle("Keys");
  const client = useQueryClient();
  const [open, setOpen] = useState<"turn" | "patient" | null>(null);
  const [turned, setTurned] = useState<(Picked & { at: number }) | null>(null);
  const keys = useQuery({
    queryKey: ["keys"],
    queryFn: ({ signal }) => get<Keys>("/keys", signal),
    refetchInterval: ({ state }) => (state.data?.turn || state.data?.patient_turns.length ? TURNING_MS : QUIET_MS),
  });
  const changed = () => {
    void client.invalidateQueries({ queryKey: ["keys"] });
    setOpen(null);
  };
  return (
    <div className="page page-narrow">
      <PageTitle
        seenBy="administrators. No key is ever shown to anybody."
        actions={
          <>
            <button type="button" onClick={() => setOpen("patient")}>
              Turn one patient's key
            </button>
            <button type="button" className="primary" onClick={() => setOpen("turn")}>
              Turn the main key
            </button>
          </>
        }
      >
        Keys
      </PageTitle>
      {keys.isPending && <Waiting what="keys" />}
      {keys.isError && <Failure error={keys.error} retry={() => void keys.refetch()} />}
      {keys.data && <State keys={keys.data} />}
      {turned && keys.data && keys.dataUpdatedAt > turned.at && !keys.data.patient_turns.some(({ patient }) => patient === turned.id) && (
        <p className="message message-good" role="status">
          Everything of <strong>{turned.label}</strong> is sealed with a new key, and the old key is destroyed.
        </p>
      )}
      {open === "turn" && <TurnDialog onClose={() => setOpen(null)} onDone={changed} />}
      {open === "patient" && (
        <PatientTurnDialog
          onClose={() => setOpen(null)}
          onDone={(patient) => {
            setTurned({ ...patient, at: Date.now() });
            changed();
          }}
        />
      )}
    </div>
  );
}

function State({ keys }: { keys: Keys }) {
  return (
    <>
      {keys.same_volume && (
        <p className="message message-bad" role="alert">
          <strong>Key and data lie on the same disk.</strong> Whoever takes the disk has both. Move the key: a security module, a credential, or another disk.
        </p>
      )}
      {keys.turn_due && (
        <p className="message message-note">
          <strong>A turn of the main key is due by {instantText(keys.turn_due.by)}.</strong> {keys.turn_due.erasures === 1 ? "One erased patient" : `${keys.turn_due.erasures} erased patients`} could still be read in older
          backups until then.
        </p>
      )}
      <section className="card" aria-labelledby="main-key">
        <h2 id="main-key">Main key (key-encryption key)</h2>
        <dl className="facts">
          <Fact label="Comes from">{PROVIDERS[keys.provider] ?? keys.provider}</Fact>
          <Fact label="Place">
            <span className="mono">{keys.place}</span>
          </Fact>
          <Fact label="Fingerprint">
            <span className="mono">{keys.epoch.fingerprint}</span>
          </Fact>
          <Fact label="In use since">{keys.epoch.since === null ? "The beginning" : instantText(keys.epoch.since)}</Fact>
        </dl>
        {keys.turn && (
          <Progress label={`${STEPS[keys.turn.state] ?? keys.turn.state}, to ${keys.turn.to}${keys.turn.nodes_waiting > 0 ? `, ${keys.turn.nodes_waiting} nodes to go` : ""}`} done={keys.turn.done} all={keys.turn.all} />
        )}
      </section>
      <section className="card" aria-labelledby="data-keys">
        <h2 id="data-keys">Data keys</h2>
        <dl className="facts">
          <Fact label="Of patients">{keys.data_keys.patients}</Fact>
          <Fact label="Of the system">{keys.data_keys.system}</Fact>
          <Fact label="Of the journal (live for hours)">{keys.data_keys.journal}</Fact>
        </dl>
        {keys.patient_turns.map((turn) => (
          <Progress key={turn.patient} label={`New key for ${turn.label}`} done={turn.done} all={turn.all} />
        ))}
      </section>
    </>
  );
}

interface DoneProps {
  onClose: () => void;
  onDone: () => void;
}

function TurnDialog({ onClose, onDone }: DoneProps) {
  return (
    <Dialog title="Turn the main key" onClose={onClose}>
      <ReasonForm act={(reason) => post<unknown>("/keys/turn", { reason })} onDone={onDone} verb="Turn the key" onClose={onClose}>
        <p>A new main key takes over and the old one is destroyed. No data are rewritten; work goes on. Backups made before cannot be opened with the new key.</p>
      </ReasonForm>
    </Dialog>
  );
}

function PatientTurnDialog({ onClose, onDone }: { onClose: () => void; onDone: (patient: Picked) => void }) {
  return (
    <Dialog title="Turn one patient's key" onClose={onClose}>
      <WithPatient>
        {(patient) => (
          <ReasonForm act={(reason) => post<unknown>(`/patients/${patient.id}/key/turn`, { reason })} onDone={() => onDone(patient)} verb="Turn the key" onClose={onClose}>
            <p>
              Everything of <strong>{patient.label}</strong> is sealed with a new key in the background, and the old key is destroyed at the end.
            </p>
          </ReasonForm>
        )}
      </WithPatient>
    </Dialog>
  );
}
