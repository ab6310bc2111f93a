//! Programs: apps that ask people to let them in, services that work by themselves, and programs with certificates.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get, post, put, remove } from "../../api/client.ts";
import type { ProgramLine } from "../../api/enrolment.ts";
import type { Client } from "../../api/oauth.ts";
import { instantText } from "../../format/time.ts";
import { useRights } from "../../session.tsx";
import { ActForm, ReasonForm } from "../../ui/act-form.tsx";
import { Dialog, Empty, Failure, Field, PageTitle, useDocumentTitle, Waiting } from "../../ui/basics.tsx";
import { CopyButton } from "../../ui/once.tsx";
import { maySeePatients } from "../../ui/roles.ts";
import { Table } from "../../ui/table.tsx";

type Open = { add: true } | { edit: Client } | { drop: Client } | { scopes: ProgramLine } | { revoke: ProgramLine } | null;

export function AppsPage() {
  useDocumentTitle("Apps");
  const client = useQueryClient();
  const [open, setOpen] = useState<Open>(null);
  const clients = useQuery({ queryKey: ["clients"], queryFn: ({ signal }) => get<{ clients: Client[] }>("/clients", signal) });
  const services = maySeePatients(useRights());
  const close = () => setOpen(null);
  const changed = () => {
    void client.invalidateQueries({ queryKey: ["clients"] });
    void client.invalidateQueries({ queryKey: ["programs"] });
    close();
  };
  return (
    <div className="page">
      <PageTitle
        seenBy="administrators and integrators."
        actions={
          <button type="button" className="primary" onClick={() => setOpen({ add: true })}>
            Register an app
          </button>
        }
      >
        Apps
      </PageTitle>
      <p className="muted">An app gets only what its registration, the person who lets it in, and the policies all allow. Its keys are its own: no secret is kept here.</p>
      {clients.isPending && <Waiting what="apps" />}
      {clients.isError && <Failure error={clients.error} retry={() => void clients.refetch()} />}
      {clients.data && clients.data.clients.length === 0 && <Empty>No app is registered.</Empty>}
      {clients.data && clients.data.clients.length > 0 && (
        <Table heads={["Name", "Kind", "Client id", "At most", "State", { acts: "Acts" }]}>
          {clients.data.clients.map((one) => (
            <tr key={one.id} className={one.disabled ? "row-off" : undefined}>
              <th scope="row">{one.name}</th>
              <td data-label="Kind">
                {one.kind === "app" ? "App, let in by people" : "Service, works by itself"}
                {one.is_confidential ? ", proves itself by key" : ", public"}
              </td>
              <td data-label="Client id">
                <span className="mono">{one.id}</span> <CopyButton text={one.id} />
              </td>
              <td data-label="At most" className="mono wrap">
                {one.scopes}
              </td>
              <td data-label="State">{one.disabled ? <span className="tag">Disabled</span> : "In use"}</td>
              <td className="acts">
                {one.kind === "app" || services ? (
                  <>
                    <button type="button" onClick={() => setOpen({ edit: one })} aria-label={`Change ${one.name}`}>
                      Change
                    </button>
                    <button type="button" className="danger" onClick={() => setOpen({ drop: one })} aria-label={`Remove ${one.name}`}>
                      Remove
                    </button>
                  </>
                ) : (
                  <span className="muted">Changed by administrators</span>
                )}
              </td>
            </tr>
          ))}
        </Table>
      )}
      <Programs onOpen={setOpen} />
      {open !== null && "add" in open && <ClientDialog onClose={close} onDone={changed} />}
      {open !== null && "edit" in open && <ClientDialog client={open.edit} onClose={close} onDone={changed} />}
      {open !== null && "drop" in open && <RemoveDialog client={open.drop} onClose={close} onDone={changed} />}
      {open !== null && "scopes" in open && <ScopesDialog program={open.scopes} onClose={close} onDone={changed} />}
      {open !== null && "revoke" in open && <RevokeDialog program={open.revoke} onClose={close} onDone={changed} />}
    </div>
  );
}

interface DoneProps {
  onClose: () => void;
  onDone: () => void;
}

const lines = (text: string): string[] =>
  text
    .split(/\s+/)
    .map((line) => line.trim())
    .filter(Boolean);

function ClientDialog({ client, onClose, onDone }: DoneProps & { client?: Client }) {
  const rights = useRights();
  const [form, setForm] = useState({
    name: client?.name ?? "",
    kind: client?.kind ?? ("app" as Client["kind"]),
    redirects: client?.redirect_uris.join("\n") ?? "",
    scopes: client?.scopes ?? "launch/patient openid fhirUser patient/*.rs",
    keys: client?.jwks ? JSON.stringify(client.jwks, null, 2) : "",
    disabled: client?.disabled ?? false,
  });
  const set = (key: keyof typeof form) => (event: { target: { value: string } }) => setForm({ ...form, [key]: event.target.value });
  const keys = form.keys.trim();
  const isPem = keys.startsWith("-----BEGIN");
  let jwks: Client["jwks"] = null;
  let badKeys = false;
  if (keys !== "" && !isPem) {
    try {
      const read = JSON.parse(keys) as Client["jwks"] & { kty?: string };
      jwks = read && "keys" in read ? read : ({ keys: [read] } as unknown as Client["jwks"]);
    } catch {
      badKeys = true;
    }
  }
  const save = useMutation({
    mutationFn: () => {
      const body = { name: form.name, kind: form.kind, redirect_uris: form.kind === "app" ? lines(form.redirects) : [], scopes: lines(form.scopes).join(" "), jwks, pem: isPem ? keys : null };
      return client === undefined ? post<Client>("/clients", body) : put<Client>(`/clients/${encodeURIComponent(client.id)}`, { ...body, disabled: form.disabled, version: client.version });
    },
    onSuccess: onDone,
  });
  return (
    <Dialog title={client === undefined ? "Register an app" : `Change ${client.name}`} onClose={onClose} wide>
      <ActForm action={save} verb={client === undefined ? "Register" : "Save"} blocked={badKeys} onClose={onClose}>
        <Field label="Name" hint="As people read it when the app asks them">
          <input required autoFocus autoComplete="off" value={form.name} onChange={set("name")} />
        </Field>
        <fieldset className="radio-group">
          <legend>Kind</legend>
          <label className="check">
            <input type="radio" name="kind" checked={form.kind === "app"} onChange={() => setForm({ ...form, kind: "app", scopes: client?.scopes ?? "launch/patient openid fhirUser patient/*.rs" })} />
            App: a person lets it in (SMART App Launch)
          </label>
          <label className="check">
            <input type="radio" name="kind" disabled={!maySeePatients(rights)} checked={form.kind === "service"} onChange={() => setForm({ ...form, kind: "service", scopes: client?.scopes ?? "system/*.rs" })} />
            Service: works by itself with its key (SMART Backend Services){!maySeePatients(rights) && "; registered by administrators"}
          </label>
        </fieldset>
        {form.kind === "app" && (
          <Field label="Addresses to return to" hint="One a line; each must be exactly what the app sends">
            <textarea rows={2} required spellCheck={false} className="mono" value={form.redirects} onChange={set("redirects")} />
          </Field>
        )}
        <Field label="Scopes" hint="At most what the app may ask for, e.g. patient/Observation.rs?category=vital-signs">
          <textarea rows={2} required spellCheck={false} className="mono" value={form.scopes} onChange={set("scopes")} />
        </Field>
        <Field label={form.kind === "service" ? "Public key" : "Public key, if it has one"} hint={badKeys ? "This is neither a JSON Web Key (Set) nor a PEM" : "A JSON Web Key Set, or a PEM that begins with BEGIN PUBLIC KEY; empty for an app that cannot keep a key"}>
          <textarea rows={4} required={form.kind === "service"} spellCheck={false} className="mono" aria-invalid={badKeys} value={form.keys} onChange={set("keys")} />
        </Field>
        {client !== undefined && (
          <label className="check">
            <input type="checkbox" checked={form.disabled} onChange={(event) => setForm({ ...form, disabled: event.target.checked })} />
            Disabled: its tokens end at once
          </label>
        )}
      </ActForm>
    </Dialog>
  );
}

function RemoveDialog({ client, onClose, onDone }: DoneProps & { client: Client }) {
  const drop = useMutation({ mutationFn: () => remove<void>(`/clients/${encodeURIComponent(client.id)}`), onSuccess: onDone });
  return (
    <Dialog title={`Remove ${client.name}`} onClose={onClose}>
      <ActForm action={drop} verb="Remove" dangerous onClose={onClose}>
        <p>Its tokens end at once, and nobody can let it in any more. What it did stays in the audit log.</p>
      </ActForm>
    </Dialog>
  );
}

function Programs({ onOpen }: { onOpen: (open: Open) => void }) {
  const programs = useQuery({ queryKey: ["programs"], queryFn: ({ signal }) => get<{ programs: ProgramLine[] }>("/programs", signal) });
  return (
    <section aria-labelledby="programs">
      <h2 id="programs" className="above-table">
        Programs with certificates
      </h2>
      {programs.isPending && <Waiting what="programs" />}
      {programs.isError && <Failure error={programs.error} retry={() => void programs.refetch()} />}
      {programs.data && programs.data.programs.length === 0 && (
        <Empty>
          None. On the server, <span className="mono">auscult pki issue --program NAME</span> makes one.
        </Empty>
      )}
      {programs.data && programs.data.programs.length > 0 && (
        <Table heads={["Name", "At most", "Certificate", { acts: "Acts" }]}>
          {programs.data.programs.map((program) => {
            const valid = program.certificates.filter((one) => one.revoked_at === null && Date.parse(one.not_after) > Date.now());
            return (
              <tr key={program.name} className={valid.length === 0 ? "row-off" : undefined}>
                <th scope="row">{program.name}</th>
                <td data-label="At most" className="mono wrap">
                  {program.scopes.join(" ")}
                </td>
                <td data-label="Certificate">{valid.length === 0 ? <span className="tag">None in force</span> : `In force until ${instantText(valid.map((one) => one.not_after).sort().at(-1))}`}</td>
                <td className="acts">
                  <button type="button" onClick={() => onOpen({ scopes: program })} aria-label={`Scopes of ${program.name}`}>
                    Scopes
                  </button>
                  {valid.length > 0 && (
                    <button type="button" className="danger" onClick={() => onOpen({ revoke: program })} aria-label={`Revoke ${program.name}`}>
                      Revoke
                    </button>
                  )}
                </td>
              </tr>
            );
          })}
        </Table>
      )}
    </section>
  );
}

function ScopesDialog({ program, onClose, onDone }: DoneProps & { program: ProgramLine }) {
  const [text, setText] = useState(program.scopes.join("\n"));
  const save = useMutation({ mutationFn: () => put<ProgramLine>(`/programs/${encodeURIComponent(program.name)}/scopes`, { scopes: lines(text) }), onSuccess: onDone });
  return (
    <Dialog title={`Scopes of ${program.name}`} onClose={onClose}>
      <ActForm action={save} verb="Save" onClose={onClose}>
        <Field label="Scopes" hint="One a line; system/*.rs reads everything, system/Observation.c may send observations. In force within a second">
          <textarea rows={4} required autoFocus spellCheck={false} className="mono" value={text} onChange={(event) => setText(event.target.value)} />
        </Field>
      </ActForm>
    </Dialog>
  );
}

function RevokeDialog({ program, onClose, onDone }: DoneProps & { program: ProgramLine }) {
  return (
    <Dialog title={`Revoke ${program.name}`} onClose={onClose}>
      <ReasonForm act={(reason) => post<unknown>(`/programs/${encodeURIComponent(program.name)}/revoke`, { reason })} onDone={onDone} verb="Revoke" dangerous onClose={onClose}>
        <p>All its certificates are refused from now on; its open connections end within a second. This cannot be taken back.</p>
      </ReasonForm>
    </Dialog>
  );
}
