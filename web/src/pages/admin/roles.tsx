//! What each role may, as the policies in force say it; and asking the policies about one case.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get, post } from "../../api/client.ts";
import type { PersonLine } from "../../api/people.ts";
import type { Explained, PolicySet } from "../../api/policy.ts";
import type { Role } from "../../api/types.ts";
import { roleText } from "../../format/people.ts";
import { instantText } from "../../format/time.ts";
import { Fact, Failure, Field, PageTitle, useDocumentTitle, Waiting } from "../../ui/basics.tsx";
import { Icon } from "../../ui/icons.tsx";
import { useWards } from "./people.tsx";

const PURPOSES = ["TREAT", "ETREAT", "HOPERAT", "HPAYMT", "HRESCH", "PUBHLTH", "PATRQT", "FAMRQT"] as const;

export function RolesPage() {
  useDocumentTitle("Roles and policies");
  const client = useQueryClient();
  const set = useQuery({ queryKey: ["policies"], queryFn: ({ signal }) => get<PolicySet>("/policies", signal) });
  const reload = useMutation({ mutationFn: () => post<PolicySet>("/policies/reload"), onSettled: () => void client.invalidateQueries({ queryKey: ["policies"] }) });
  return (
    <div className="page">
      <PageTitle
        seenBy="administrators."
        actions={
          <button type="button" disabled={reload.isPending} onClick={() => reload.mutate()}>
            Read the files again
          </button>
        }
      >
        Roles and policies
      </PageTitle>
      {reload.isError && <Failure error={reload.error} />}
      {set.isPending && <Waiting what="policies" />}
      {set.isError && <Failure error={set.error} retry={() => void set.refetch()} />}
      {set.data && (
        <>
          {set.data.error !== null && (
            <p className="message message-bad" role="alert">
              <strong>The files cannot be used; the policies from before stay in force.</strong> <span className="mono">{set.data.error}</span>
            </p>
          )}
          <section className="card">
            <dl className="facts">
              <Fact label="Policies from">{set.data.source === "built-in" ? "This program (built in)" : set.data.source}</Fact>
              <Fact label="Read">{instantText(set.data.loaded_at)}</Fact>
              <Fact label="How many">{set.data.policies.length}</Fact>
            </dl>
            <p className="hint">Whatever no policy permits is refused; a policy that forbids wins over all that permit. Files are changed on the server, and checked with “auscult policy check” before they are read again.</p>
          </section>
          <Matrix permissions={set.data.permissions} />
          <Explain />
          <section aria-labelledby="all-policies">
            <h2 id="all-policies" className="above-table">
              Policies in force
            </h2>
            <ul className="lines policies">
              {set.data.policies.map((policy) => (
                <li key={policy.id}>
                  <details>
                    <summary>
                      <span className={policy.effect === "permit" ? "tag tag-good" : "tag tag-bad"}>{policy.effect === "permit" ? "Permits" : "Forbids"}</span> <strong>{policy.description || policy.id}</strong>{" "}
                      <span className="muted mono">{policy.id}</span>
                    </summary>
                    <p className="hint mono">{policy.file}</p>
                    <pre className="source" tabIndex={0}>
                      {policy.text}
                    </pre>
                  </details>
                </li>
              ))}
            </ul>
          </section>
        </>
      )}
    </div>
  );
}

/** The order of the columns: who cares for patients first. */
const ROLES: Role[] = ["nurse", "physician", "biomedical-engineer", "auditor", "administrator", "integrator", "patient", "caregiver"];

function Matrix({ permissions }: { permissions: PolicySet["permissions"] }) {
  return (
    <section aria-labelledby="matrix">
      <h2 id="matrix" className="above-table">
        What each role may
      </h2>
      <p className="muted">Wards, care teams, patients' rules and broken glasses decide besides, whose data it is about.</p>
      <div className="table-scroll" tabIndex={0} role="region" aria-labelledby="matrix">
        <table className="matrix">
          <thead>
            <tr>
              <th scope="col">May</th>
              {ROLES.map((role) => (
                <th key={role} scope="col">
                  {roleText(role)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {permissions.map(({ name, meaning, roles }) => (
              <tr key={name}>
                <th scope="row">
                  {meaning} <span className="muted mono">{name}</span>
                </th>
                {ROLES.map((role) => (
                  <td key={role}>
                    {roles.includes(role) && <Icon name="check" />}
                    <span className="sr-only">{roles.includes(role) ? "Yes" : "No"}</span>
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function Explain() {
  const users = useQuery({ queryKey: ["users"], queryFn: ({ signal }) => get<{ users: PersonLine[] }>("/users", signal), retry: false });
  const wards = useWards();
  const [form, setForm] = useState({ who: "", action: "read-chart", on: "site", purpose: "" });
  const set = (key: keyof typeof form) => (event: { target: { value: string } }) => setForm({ ...form, [key]: event.target.value });
  const ask = useMutation({
    mutationFn: () => post<Explained>("/policies/explain", { who: form.who, action: form.action.trim(), on: form.on.trim(), ...(form.purpose === "" ? {} : { purpose: form.purpose }) }),
  });
  return (
    <section className="card" aria-labelledby="explain">
      <h2 id="explain">May they?</h2>
      <form
        className="inline-form"
        onSubmit={(event) => {
          event.preventDefault();
          ask.mutate();
        }}
      >
        <Field label="Who">
          <input list="people-names" required autoComplete="off" placeholder="Sign-in name" value={form.who} onChange={set("who")} />
        </Field>
        <datalist id="people-names">
          {users.data?.users.map((user) => (
            <option key={user.id} value={user.name}>
              {user.display}
            </option>
          ))}
        </datalist>
        <Field label="Action">
          <input required autoComplete="off" spellCheck={false} value={form.action} onChange={set("action")} />
        </Field>
        <Field label="On">
          <input list="what-on" required autoComplete="off" spellCheck={false} placeholder="site, ward/ID, patient/ID" value={form.on} onChange={set("on")} />
        </Field>
        <datalist id="what-on">
          <option value="site">The whole site</option>
          {wards.data?.wards.map((ward) => (
            <option key={ward.id} value={`ward/${ward.id}`}>
              {ward.name}
            </option>
          ))}
        </datalist>
        <Field label="Purpose">
          <select value={form.purpose} onChange={set("purpose")}>
            <option value="">As usual</option>
            {PURPOSES.map((purpose) => (
              <option key={purpose}>{purpose}</option>
            ))}
          </select>
        </Field>
        <button type="submit" className="primary" disabled={ask.isPending}>
          Ask
        </button>
      </form>
      {ask.isError && <Failure error={ask.error} />}
      {ask.data && (
        <div className={ask.data.allowed ? "message message-good" : "message message-bad"} role="status">
          <strong>{ask.data.allowed ? "Yes." : "No."}</strong> {ask.data.text}
          <ul>
            {ask.data.reasons.map((reason) => (
              <li key={reason.id}>
                {reason.effect === "permit" ? "Permitted" : "Forbidden"} by <span className="mono">{reason.id}</span>: {reason.description}
              </li>
            ))}
          </ul>
        </div>
      )}
    </section>
  );
}
