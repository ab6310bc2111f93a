//! The people who may sign in: inviting, changing, disabling, giving a new way in, ending sessions.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get, post, put, remove } from "../../api/client.ts";
import type { Invitation, OwnSession, PersonLine } from "../../api/people.ts";
import type { PatientLine, Role, WardLine } from "../../api/types.ts";
import { fullName, roleText } from "../../format/people.ts";
import { ageSeconds, agoText, instantText } from "../../format/time.ts";
import { useNow } from "../../live/context.tsx";
import { useUser } from "../../session.tsx";
import { ActForm } from "../../ui/act-form.tsx";
import { Dialog, Empty, Failure, Field, PageTitle, useDocumentTitle, Waiting } from "../../ui/basics.tsx";
import { CopyButton, OneTimeText } from "../../ui/once.tsx";
import { QrCode } from "../../ui/qr.tsx";
import { PatientPicker } from "../../ui/search.tsx";
import { Table } from "../../ui/table.tsx";
import { isNew, ProviderDialog, useProviders } from "./provider-links.tsx";

const ROLES: Role[] = ["nurse", "physician", "biomedical-engineer", "auditor", "administrator", "integrator", "patient", "caregiver"];
/** Roles whose sight is bounded by wards. */
const hasWards = (role: Role) => role !== "patient" && role !== "caregiver";

export function useWards() {
  return useQuery({ queryKey: ["wards"], queryFn: ({ signal }) => get<{ wards: WardLine[] }>("/wards", signal) });
}

type Open = { add: true } | { edit: PersonLine } | { reset: PersonLine } | { sessions: PersonLine } | { provider: string } | { link: Invitation; person: PersonLine } | null;

export function PeoplePage() {
  useDocumentTitle("People");
  const client = useQueryClient();
  const now = useNow();
  const [open, setOpen] = useState<Open>(null);
  const [text, setText] = useState("");
  const users = useQuery({ queryKey: ["users"], queryFn: ({ signal }) => get<{ users: PersonLine[] }>("/users", signal) });
  const wards = useWards();
  const hasProviders = (useProviders().data?.providers.length ?? 0) > 0;
  const wardNames = (user: PersonLine) =>
    user.wards === null ? "All" : user.wards.map((id) => wards.data?.wards.find((ward) => ward.id === id)?.name ?? "A ward not open to you").join(", ") || "None";
  const wanted = text.trim().toLocaleLowerCase();
  const shown = (users.data?.users ?? []).filter((user) => [user.name, user.display, roleText(user.role)].some((word) => word.toLocaleLowerCase().includes(wanted)));
  const invited = (answer: { user: PersonLine; invitation: Invitation }) => {
    void client.invalidateQueries({ queryKey: ["users"] });
    setOpen({ link: answer.invitation, person: answer.user });
  };
  const close = () => setOpen(null);
  const provided = open !== null && "provider" in open ? users.data?.users.find(({ id }) => id === open.provider) : undefined;
  const changed = () => {
    void client.invalidateQueries({ queryKey: ["users"] });
    close();
  };
  return (
    <div className="page">
      <PageTitle
        seenBy="administrators."
        actions={
          <button type="button" className="primary" onClick={() => setOpen({ add: true })}>
            Invite somebody
          </button>
        }
      >
        People
      </PageTitle>
      <div className="filters">
        <input type="search" aria-label="Filter by name or role" placeholder="Filter" value={text} onChange={(event) => setText(event.target.value)} />
      </div>
      {users.isPending && <Waiting what="people" />}
      {users.isError && <Failure error={users.error} retry={() => void users.refetch()} />}
      {users.data && shown.length === 0 && <Empty>Nobody fits.</Empty>}
      {shown.length > 0 && (
        <Table heads={["Name", "Sign-in name", "Role", "Wards", "Care teams", "Way in", "Last signed in", { acts: "Acts" }]}>
          {shown.map((user) => (
            <tr key={user.id} className={user.disabled ? "row-off" : undefined}>
              <th scope="row">{user.display}</th>
              <td data-label="Sign-in name">{user.name}</td>
              <td data-label="Role">{roleText(user.role)}</td>
              <td data-label="Wards">{hasWards(user.role) ? wardNames(user) : <span className="muted">Does not apply</span>}</td>
              <td data-label="Care teams">{user.care_teams.join(", ") || <span className="muted">None</span>}</td>
              <td data-label="Way in">{wayIn(user, now)}</td>
              <td data-label="Last signed in">{user.last_sign_in_at === null ? <span className="muted">Never</span> : agoText(ageSeconds(user.last_sign_in_at, now))}</td>
              <td className="acts">
                <button type="button" onClick={() => setOpen({ edit: user })} aria-label={`Change ${user.display}`}>
                  Change
                </button>
                <button type="button" onClick={() => setOpen({ sessions: user })} aria-label={`Sessions of ${user.display}`}>
                  Sessions
                </button>
                {(user.provider_links.length > 0 || user.awaited_provider !== null || (hasProviders && isNew(user))) && (
                  <button type="button" onClick={() => setOpen({ provider: user.id })} aria-label={`Identity provider of ${user.display}`}>
                    Provider
                  </button>
                )}
                <button type="button" className="danger" onClick={() => setOpen({ reset: user })} aria-label={`New link for ${user.display}`}>
                  New link
                </button>
              </td>
            </tr>
          ))}
        </Table>
      )}
      {open !== null && "add" in open && <PersonDialog wards={wards.data?.wards ?? []} onClose={close} onInvited={invited} onChanged={changed} />}
      {open !== null && "edit" in open && <PersonDialog person={open.edit} wards={wards.data?.wards ?? []} onClose={close} onInvited={invited} onChanged={changed} />}
      {open !== null && "reset" in open && <ResetDialog person={open.reset} onClose={close} onInvited={invited} />}
      {open !== null && "sessions" in open && <SessionsDialog person={open.sessions} onClose={close} />}
      {provided && <ProviderDialog person={provided} onClose={close} onChanged={() => void client.invalidateQueries({ queryKey: ["users"] })} />}
      {open !== null && "link" in open && <LinkDialog person={open.person} invitation={open.link} onClose={close} />}
    </div>
  );
}

function wayIn(user: PersonLine, now: number) {
  if (user.disabled) return <span className="tag">Disabled</span>;
  const means = [user.passkeys > 0 && (user.passkeys === 1 ? "1 passkey" : `${user.passkeys} passkeys`), user.has_password && "password", user.has_totp && "code app", user.provider_links.length > 0 && "identity provider"].filter(Boolean).join(", ");
  // Whom a provider vouches for has a way in, whatever stands here.
  if (user.is_complete || user.provider_links.length > 0) return means;
  if (user.awaited_provider !== null) {
    return (
      <>
        <span className="tag tag-warn">Awaited</span> <span className="muted">from {user.awaited_provider}</span>
      </>
    );
  }
  const open = user.invitation_expires_at !== null && Date.parse(user.invitation_expires_at) > now;
  return (
    <>
      <span className="tag tag-warn">{open ? "Invited" : "No complete way in"}</span> <span className="muted">{open ? `until ${instantText(user.invitation_expires_at)}` : means}</span>
    </>
  );
}

interface PersonProps {
  person?: PersonLine;
  wards: WardLine[];
  onClose: () => void;
  onInvited: (answer: { user: PersonLine; invitation: Invitation }) => void;
  onChanged: () => void;
}

/** What refusals mean here, by their codes. */
const REFUSALS = {
  "last-administrator": "This is the last administrator with a way in: somebody must be able to administer the site.",
};

function PersonDialog({ person, wards, onClose, onInvited, onChanged }: PersonProps) {
  const me = useUser();
  const [form, setForm] = useState({ name: "", display: person?.display ?? "", role: person?.role ?? ("nurse" as Role), teams: person?.care_teams.join(", ") ?? "" });
  const [all, setAll] = useState(person?.wards === null);
  const [chosen, setChosen] = useState<string[]>(person?.wards ?? []);
  const [disabled, setDisabled] = useState(person?.disabled ?? false);
  const [patient, setPatient] = useState<{ id: string; label: string } | null>(person?.patient ? { id: person.patient, label: "The patient chosen before" } : null);
  const set = (key: keyof typeof form) => (event: { target: { value: string } }) => setForm({ ...form, [key]: event.target.value });
  const body = () => ({
    display: form.display,
    role: form.role,
    wards: hasWards(form.role) && !all ? chosen : form.role === "caregiver" || form.role === "patient" ? [] : null,
    care_teams: form.teams
      .split(",")
      .map((team) => team.trim())
      .filter(Boolean),
    patient: form.role === "patient" ? (patient?.id ?? null) : null,
  });
  const save = useMutation({
    mutationFn: async () => {
      if (person === undefined) return onInvited(await post<{ user: PersonLine; invitation: Invitation }>("/users", { name: form.name, ...body() }));
      await put<PersonLine>(`/users/${person.id}`, { ...body(), disabled, version: person.version });
      onChanged();
    },
  });
  // Whoever invites must say where: the whole house is given on purpose only.
  const lacksWards = person === undefined && hasWards(form.role) && !all && chosen.length === 0;
  const lacksPatient = form.role === "patient" && patient === null;
  return (
    <Dialog title={person === undefined ? "Invite somebody" : `Change ${person.display}`} onClose={onClose}>
      <ActForm action={save} verb={person === undefined ? "Invite" : "Save"} refusals={REFUSALS} blocked={lacksPatient || lacksWards} onClose={onClose}>
        {person === undefined && (
          <Field label="Sign-in name">
            <input required autoFocus autoCapitalize="none" autoComplete="off" value={form.name} onChange={set("name")} />
          </Field>
        )}
        <Field label="Display name" hint="As colleagues read it">
          <input required autoComplete="off" value={form.display} onChange={set("display")} />
        </Field>
        <Field label="Role">
          <select value={form.role} onChange={set("role")}>
            {ROLES.map((role) => (
              <option key={role} value={role}>
                {roleText(role)}
              </option>
            ))}
          </select>
        </Field>
        {form.role === "patient" && (
          <fieldset className="radio-group">
            <legend>Who they are in the chart</legend>
            {patient === null ? (
              <PatientPicker label="Which patient" onPick={(found: PatientLine) => setPatient({ id: found.id, label: fullName(found) })} />
            ) : (
              <p className="picked">
                <strong>{patient.label}</strong>
                <button type="button" onClick={() => setPatient(null)}>
                  Another
                </button>
              </p>
            )}
          </fieldset>
        )}
        {form.role === "caregiver" && <p className="message message-note">A caregiver sees whoever names them in their own sharing rules, and nobody else.</p>}
        {hasWards(form.role) && (
          <>
            <fieldset className="radio-group">
              <legend>Wards</legend>
              {lacksWards && <p className="hint">Choose at least one, or all.</p>}
              <label className="check">
                <input type="checkbox" checked={all} onChange={(event) => setAll(event.target.checked)} /> All wards
              </label>
              {!all &&
                wards.map((ward) => (
                  <label key={ward.id} className="check">
                    <input
                      type="checkbox"
                      checked={chosen.includes(ward.id)}
                      onChange={(event) => setChosen(event.target.checked ? [...chosen, ward.id] : chosen.filter((id) => id !== ward.id))}
                    />
                    {ward.name}
                  </label>
                ))}
            </fieldset>
            <Field label="Care teams" hint="Separated by commas; policies can ask for them">
              <input autoComplete="off" value={form.teams} onChange={set("teams")} />
            </Field>
          </>
        )}
        {person !== undefined && (
          <p className="hint">
            Id, for policies: <span className="mono">{person.id}</span> <CopyButton text={person.id} />
          </p>
        )}
        {person !== undefined && (
          <label className="check">
            <input type="checkbox" checked={disabled} disabled={person.id === me.id} onChange={(event) => setDisabled(event.target.checked)} />
            Disabled: cannot sign in, and all sessions end at once
          </label>
        )}
      </ActForm>
    </Dialog>
  );
}

function ResetDialog({ person, onClose, onInvited }: { person: PersonLine; onClose: () => void; onInvited: PersonProps["onInvited"] }) {
  const reset = useMutation({ mutationFn: () => post<{ user: PersonLine; invitation: Invitation }>(`/users/${person.id}/reset`), onSuccess: onInvited });
  return (
    <Dialog title={`New one-time link for ${person.display}`} onClose={onClose}>
      <ActForm action={reset} verb="Make the link" dangerous onClose={onClose}>
        <p>
          For somebody who has lost every way in, or whose invitation ran out. Their password, code app, passkeys, recovery codes and links to identity providers are <strong>gone at once</strong>, and their sessions end. Make sure that it
          is really they who ask: call them back, or see them in person.
        </p>
      </ActForm>
    </Dialog>
  );
}

function LinkDialog({ person, invitation, onClose }: { person: PersonLine; invitation: Invitation; onClose: () => void }) {
  const link = window.location.origin + invitation.path;
  return (
    <Dialog title={`One-time link for ${person.display}`} onClose={onClose}>
      <p>
        Hand it over in person or by a way that only they read. It works <strong>once</strong>, until {instantText(invitation.expires_at)}, and is not shown again. They choose their own passkey or password: you will
        not know it.
      </p>
      <div className="qr-beside">
        <QrCode text={link} label={`QR code of the one-time link for ${person.display}`} />
        <OneTimeText label="Link" text={link} />
      </div>
      <div className="form-actions">
        <button type="button" className="primary" onClick={onClose}>
          Done
        </button>
      </div>
    </Dialog>
  );
}

function SessionsDialog({ person, onClose }: { person: PersonLine; onClose: () => void }) {
  const client = useQueryClient();
  const now = useNow();
  const key = ["sessions-of", person.id];
  const sessions = useQuery({ queryKey: key, queryFn: ({ signal }) => get<{ sessions: OwnSession[] }>(`/users/${person.id}/sessions`, signal) });
  const end = useMutation({ mutationFn: () => remove<{ sessions: OwnSession[] }>(`/users/${person.id}/sessions`), onSuccess: () => void client.invalidateQueries({ queryKey: key }) });
  return (
    <Dialog title={`Sessions of ${person.display}`} onClose={onClose}>
      {sessions.isPending && <Waiting what="sessions" />}
      {sessions.isError && <Failure error={sessions.error} retry={() => void sessions.refetch()} />}
      {sessions.data && sessions.data.sessions.length === 0 && <Empty>Not signed in anywhere.</Empty>}
      <ul className="lines">
        {sessions.data?.sessions.map((one) => (
          <li key={one.id}>
            <span className="line-main">
              <strong>{one.browser ?? "A browser"}</strong>
              <span className="muted">
                {one.address ?? "Address not known"}, since {instantText(one.started_at)}, used {agoText(ageSeconds(one.seen_at, now))}
              </span>
            </span>
          </li>
        ))}
      </ul>
      {end.isError && <Failure error={end.error} />}
      <div className="form-actions">
        <button type="button" onClick={onClose}>
          Close
        </button>
        {(sessions.data?.sessions.length ?? 0) > 0 && (
          <button type="button" className="danger" disabled={end.isPending} onClick={() => end.mutate()}>
            End all
          </button>
        )}
      </div>
    </Dialog>
  );
}
