//! What a patient allows: their rules as sentences, and the form that writes one.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { ApiError, get, post, put, query } from "../api/client.ts";
import type { Consent, ConsentChoices, Decision, Defaults, Rule, Who } from "../api/consent.ts";
import { purposeText } from "../format/consent.ts";
import { roleText } from "../format/people.ts";
import { fromLocalField, instantText, toLocalField } from "../format/time.ts";
import { useLiveEvent } from "../live/context.tsx";
import { useUser } from "../session.tsx";
import { ActForm } from "../ui/act-form.tsx";
import { Dialog, Empty, Failure, Field, Waiting } from "../ui/basics.tsx";
import { TimeField } from "../ui/time-field.tsx";

interface ConsentsProps {
  patientId: string;
  mayChange: boolean;
  /** Speaks to the patient themselves. */
  own?: boolean;
}

export function Consents({ patientId, mayChange, own = false }: ConsentsProps) {
  const client = useQueryClient();
  const key = ["consents", patientId];
  const [editing, setEditing] = useState<{ consent: Consent | null } | null>(null);
  const [withdrawing, setWithdrawing] = useState<Consent | null>(null);
  const [all, setAll] = useState(false);
  const found = useQuery({ queryKey: key, queryFn: ({ signal }) => get<{ consents: Consent[]; defaults: Defaults }>(`/patients/${encodeURIComponent(patientId)}/consents`, signal) });
  useLiveEvent((event) => {
    if (event.type === "assignment") void client.invalidateQueries({ queryKey: key });
  });
  const changed = () => {
    void client.invalidateQueries({ queryKey: key });
    setEditing(null);
    setWithdrawing(null);
  };
  // Whoever broke the glass sees the patient, and not what the patient has ruled.
  const hidden = found.error instanceof ApiError && [403, 404].includes(found.error.status);
  const list = found.data?.consents ?? [];
  const active = list.filter(({ status }) => status === "active");
  const shown = all ? list : active;
  return (
    <section className="card" aria-labelledby="sharing">
      <header className="card-head">
        <h2 id="sharing">{own ? "What I allow" : "Sharing"}</h2>
        {mayChange && found.data && (
          <button type="button" onClick={() => setEditing({ consent: null })}>
            New rule
          </button>
        )}
      </header>
      {found.isPending && <Waiting what="sharing rules" />}
      {hidden && <p className="muted">The patient's rules are not open to you.</p>}
      {found.isError && !hidden && <Failure error={found.error} retry={() => void found.refetch()} />}
      {found.data && shown.length === 0 && <Empty>{own ? "You have set no rule of your own." : "The patient has set no rule."}</Empty>}
      <ul className="lines consents">
        {shown.map((consent) => (
          <li key={consent.id} className={consent.is_effective ? undefined : "row-off"}>
            <span className="line-main">
              <span>
                <DecisionTag decision={consent.rule?.decision ?? consent.base} /> {consent.says}
              </span>
              <span className="muted">
                {consent.status === "active" ? (consent.is_effective ? "In force" : "Not in force now") : "Withdrawn"}, written {instantText(consent.written_at)}
                {consent.written_by && ` by ${writer(consent.written_by, own)}`}
              </span>
            </span>
            {mayChange && consent.status === "active" && (
              <span className="line-acts">
                {consent.is_simple && consent.rule !== null && (
                  <button type="button" onClick={() => setEditing({ consent })} aria-label={`Change: ${consent.says}`}>
                    Change
                  </button>
                )}
                <button type="button" className="danger" onClick={() => setWithdrawing(consent)} aria-label={`Withdraw: ${consent.says}`}>
                  Withdraw
                </button>
              </span>
            )}
          </li>
        ))}
      </ul>
      {list.length > active.length && (
        <button type="button" className="link" onClick={() => setAll(!all)}>
          {all ? "Only those in force" : `Withdrawn ones too (${list.length - active.length})`}
        </button>
      )}
      {found.data && <DefaultsText defaults={found.data.defaults} own={own} />}
      {editing && <RuleDialog patientId={patientId} consent={editing.consent} own={own} onClose={() => setEditing(null)} onDone={changed} />}
      {withdrawing && <WithdrawDialog consent={withdrawing} own={own} onClose={() => setWithdrawing(null)} onDone={changed} />}
    </section>
  );
}

/** What the server calls the patient where they wrote a rule themselves. */
const THE_PATIENT = "The patient";
/** Whether the patient wrote a rule, whoever changed it since. */
const isPatients = (consent: Consent | null): boolean => consent?.written_by?.toLowerCase().startsWith(THE_PATIENT.toLowerCase()) === true;
const writer = (name: string, own: boolean): string => (name === THE_PATIENT ? (own ? "you" : "the patient") : name);

function DecisionTag({ decision }: { decision: Decision | null }) {
  if (decision === null) return null;
  return <span className={decision === "permit" ? "tag tag-good" : "tag tag-bad"}>{decision === "permit" ? "Permits" : "Denies"}</span>;
}

function DefaultsText({ defaults, own }: { defaults: Defaults; own: boolean }) {
  const words = (decision: Decision) =>
    Object.entries(defaults)
      .filter(([, one]) => one === decision)
      .map(([purpose]) => purposeText(purpose).toLowerCase())
      .join("; ");
  const [permitted, denied] = [words("permit"), words("deny")];
  return (
    <p className="hint">
      Where {own ? "you have" : "the patient has"} said nothing, this site permits: {permitted || "nothing"}
      {denied && `. It denies: ${denied}`}. Alarms reach the ward that cares for {own ? "you" : "the patient"} whatever the rules say, and in an emergency a clinician can break the glass, which is always recorded and reviewed.
    </p>
  );
}

function WithdrawDialog({ consent, own, onClose, onDone }: { consent: Consent; own: boolean; onClose: () => void; onDone: () => void }) {
  const me = useUser();
  const [reason, setReason] = useState("");
  const send = useMutation({ mutationFn: () => post<Consent>(`/consents/${consent.id}/withdraw`, { version: consent.version, ...(reason.trim() === "" ? {} : { reason: reason.trim() }) }), onSuccess: onDone });
  // Whoever wrote a rule takes it back plainly, and so does the patient.
  const others = !own && consent.written_by !== me.display;
  return (
    <Dialog title="Withdraw this rule" onClose={onClose}>
      <ActForm action={send} verb="Withdraw" dangerous onClose={onClose}>
        <p>{consent.says}</p>
        <p>It ends at once, on open screens too. That it stood until now stays in the record.</p>
        {others && (
          <Field label="Reason" hint={isPatients(consent) ? "This is the patient's own rule; the patient reads why it was withdrawn" : "Needed where the rule keeps you yourself out; the patient reads it"}>
            <input required={isPatients(consent)} autoComplete="off" maxLength={REASON_MAX} value={reason} onChange={(event) => setReason(event.target.value)} />
          </Field>
        )}
      </ActForm>
    </Dialog>
  );
}

/** Longest reason, in characters. */
const REASON_MAX = 500;

const EMPTY: Rule = { decision: "deny", who: [], actions: [], purposes: [], classes: [], measures: [], from: null, until: null, except: [] };

const KINDS: [Who["kind"], string][] = [
  ["role", "A role"],
  ["ward", "A ward"],
  ["person", "A person"],
  ["caregiver", "Somebody who cares for the patient"],
  ["program", "A program"],
];

const field = (iso: string | null | undefined) => (iso ? toLocalField(new Date(iso)) : "");

interface RuleDialogProps {
  patientId: string;
  consent: Consent | null;
  own: boolean;
  onClose: () => void;
  onDone: () => void;
}

function RuleDialog({ patientId, consent, own, onClose, onDone }: RuleDialogProps) {
  const choices = useQuery({ queryKey: ["consent-choices", patientId], queryFn: ({ signal }) => get<ConsentChoices>(`/consents/choices${query({ patient: patientId })}`, signal) });
  const [rule, setRule] = useState<Rule>(consent?.rule ?? EMPTY);
  const [except, setExcept] = useState<Rule | null>(consent?.rule?.except[0] ?? null);
  const [from, setFrom] = useState(() => field(consent?.rule?.from));
  const [until, setUntil] = useState(() => field(consent?.rule?.until));
  const [reason, setReason] = useState("");
  // A denial that somebody else writes down may hide readings from those who treat the patient; what the patient wrote is theirs.
  const needsReason = !own && (rule.decision === "deny" || except !== null || isPatients(consent));
  const badTime = [from, until].some((text) => text.trim() !== "" && fromLocalField(text) === null);
  const save = useMutation({
    mutationFn: () => {
      const body = { ...bare(rule), from: fromLocalField(from), until: fromLocalField(until), except: except === null ? [] : [bare(except)], ...(needsReason ? { reason: reason.trim() } : {}) };
      return consent === null ? post<Consent>(`/patients/${encodeURIComponent(patientId)}/consents`, body) : put<Consent>(`/consents/${consent.id}`, { version: consent.version, rule: body });
    },
    onSuccess: onDone,
  });
  const turned: Decision = rule.decision === "permit" ? "deny" : "permit";
  return (
    <Dialog title={consent === null ? "New sharing rule" : "Change sharing rule"} onClose={onClose} wide>
      {choices.isPending && <Waiting what="choices" />}
      {choices.isError && <Failure error={choices.error} retry={() => void choices.refetch()} />}
      {choices.data && (
        <ActForm action={save} verb="Save rule" blocked={badTime} onClose={onClose}>
          <fieldset className="radio-group">
            <legend>{own ? "I" : "The patient"}</legend>
            <label className="check">
              <input type="radio" name="decision" checked={rule.decision === "permit"} onChange={() => setRule({ ...rule, decision: "permit" })} /> {own ? "allow" : "allows"}
            </label>
            <label className="check">
              <input type="radio" name="decision" checked={rule.decision === "deny"} onChange={() => setRule({ ...rule, decision: "deny" })} /> {own ? "do not allow" : "does not allow"}
            </label>
          </fieldset>
          <RuleParts patientId={patientId} own={own} rule={rule} choices={choices.data} onChange={setRule} />
          <div className="field-grid">
            <TimeField label="From" hint="Empty: at once" value={from} onChange={setFrom} />
            <TimeField label="Until" hint="Empty: until it is withdrawn" value={until} onChange={setUntil} />
          </div>
          {except === null ? (
            <button type="button" onClick={() => setExcept({ ...EMPTY, decision: turned })}>
              Add an exception
            </button>
          ) : (
            <fieldset className="radio-group exception">
              <legend>Except, {turned === "permit" ? "allowed" : "not allowed"}</legend>
              <RuleParts patientId={patientId} own={own} rule={{ ...except, decision: turned }} choices={choices.data} onChange={(next) => setExcept({ ...next, decision: turned })} />
              <button type="button" onClick={() => setExcept(null)}>
                Remove the exception
              </button>
            </fieldset>
          )}
          {needsReason && (
            <Field label="Why" hint="The patient reads it">
              <input required autoComplete="off" maxLength={REASON_MAX} value={reason} onChange={(event) => setReason(event.target.value)} />
            </Field>
          )}
          {rule.decision === "deny" && (
            <p className="message message-note">Whoever may not know sees nothing at all, not even that something is left out; the ward that cares for {own ? "you" : "the patient"} sees that something is not shared, and still gets the alarms.</p>
          )}
        </ActForm>
      )}
    </Dialog>
  );
}

/** Classes of data whose names speak to the patient, for whoever writes the rule down for them. */
const THEIRS: Record<string, string> = { record: "Who the patient is and where they are cared for", location: "Where the patient was", device: "How the patient's devices work" };

/** A rule as it is sent: without the names that answers carry along. */
const bare = (rule: Rule): Rule => ({ ...rule, who: rule.who.map(({ kind, id }) => ({ kind, id })), except: rule.except.map(bare) });

interface PartsProps {
  patientId: string;
  own: boolean;
  rule: Rule;
  choices: ConsentChoices;
  onChange: (rule: Rule) => void;
}

function RuleParts({ patientId, own, rule, choices, onChange }: PartsProps) {
  const [kind, setKind] = useState<Who["kind"]>("role");
  const options = optionsOf(kind, choices);
  const name = (who: Who) => optionsOf(who.kind, choices).find(([id]) => id === who.id)?.[1] ?? who.display ?? who.id;
  const add = (who: Who) => {
    if (!rule.who.some((one) => one.kind === who.kind && one.id === who.id)) onChange({ ...rule, who: [...rule.who, who] });
  };
  const toggle = (list: string[], code: string, on: boolean) => (on ? [...list, code] : list.filter((one) => one !== code));
  return (
    <>
      <fieldset className="radio-group">
        <legend>Whom</legend>
        {rule.who.length === 0 && <p className="muted">Everybody</p>}
        <ul className="chips">
          {rule.who.map((who) => (
            <li key={`${who.kind} ${who.id}`} className="chip">
              {name(who)}
              <button type="button" className="link" onClick={() => onChange({ ...rule, who: rule.who.filter((one) => one !== who) })} aria-label={`Leave out ${name(who)}`}>
                Leave out
              </button>
            </li>
          ))}
        </ul>
        <div className="pair">
          <select aria-label="Kind" value={kind} onChange={(event) => setKind(event.target.value as Who["kind"])}>
            {KINDS.map(([word, label]) => (
              <option key={word} value={word}>
                {label}
              </option>
            ))}
          </select>
          <select
            aria-label="Who"
            value=""
            onChange={(event) => {
              if (event.target.value !== "") add({ kind, id: event.target.value });
            }}
          >
            <option value="">{options.length === 0 ? "Nobody to choose" : "Add …"}</option>
            {options.map(([id, label]) => (
              <option key={id} value={id}>
                {label}
              </option>
            ))}
          </select>
        </div>
        {(kind === "person" || kind === "caregiver") && <ByName key={kind} kind={kind} patientId={patientId} listed={options} onFound={add} />}
      </fieldset>
      <fieldset className="radio-group">
        <legend>What</legend>
        {rule.classes.length === 0 && rule.measures.length === 0 && <p className="muted">Everything</p>}
        <div className="checks">
          {choices.classes.map(({ code, display, measures }) => (
            <label key={code} className="check" title={measures.join(", ")}>
              <input type="checkbox" checked={rule.classes.includes(code)} onChange={(event) => onChange({ ...rule, classes: toggle(rule.classes, code, event.target.checked) })} /> {(own ? undefined : THEIRS[code]) ?? display}
            </label>
          ))}
        </div>
      </fieldset>
      <fieldset className="radio-group">
        <legend>How</legend>
        {rule.actions.length === 0 && <p className="muted">In any way</p>}
        <div className="checks">
          {choices.actions.map(({ code, display }) => (
            <label key={code} className="check">
              <input type="checkbox" checked={rule.actions.includes(code)} onChange={(event) => onChange({ ...rule, actions: toggle(rule.actions, code, event.target.checked) })} /> {display}
            </label>
          ))}
        </div>
      </fieldset>
      <fieldset className="radio-group">
        <legend>What for</legend>
        {rule.purposes.length === 0 && <p className="muted">Any purpose</p>}
        <div className="checks">
          {choices.purposes.map(({ code }) => (
            <label key={code} className="check">
              <input type="checkbox" checked={rule.purposes.includes(code)} onChange={(event) => onChange({ ...rule, purposes: toggle(rule.purposes, code, event.target.checked) })} /> {purposeText(code)}
            </label>
          ))}
        </div>
      </fieldset>
    </>
  );
}

interface ByNameProps {
  kind: "person" | "caregiver";
  patientId: string;
  /** Id and label of those who can be chosen anyway. */
  listed: [string, string][];
  onFound: (who: Who) => void;
}

/** Somebody who is not in the list: patients are shown only whom they have met, and add others by their exact name. */
function ByName({ kind, patientId, listed, onFound }: ByNameProps) {
  const [name, setName] = useState("");
  const wanted = name.trim().toLocaleLowerCase();
  const find = useMutation({
    mutationFn: () => get<ConsentChoices>(`/consents/choices${query({ patient: patientId, name: name.trim() })}`),
    onSuccess: (found) => {
      // Whoever was not there before was found by the name, be it the one to sign in with.
      const person = found.people.find((one) => (one.role === "caregiver") === (kind === "caregiver") && (one.display.toLocaleLowerCase() === wanted || !listed.some(([id]) => id === one.id)));
      if (person === undefined) return;
      onFound({ kind, id: person.id, display: person.display });
      setName("");
    },
  });
  return (
    <>
      <div className="pair">
        <input
          aria-label="Somebody else, by their exact name"
          placeholder="Somebody else, by their exact name"
          autoComplete="off"
          value={name}
          onChange={(event) => {
            setName(event.target.value);
            find.reset();
          }}
        />
        <button type="button" disabled={wanted === "" || find.isPending} onClick={() => find.mutate()}>
          Add
        </button>
      </div>
      {find.isError && <Failure error={find.error} />}
      {find.isSuccess && wanted !== "" && (
        <p className="hint" role="status">
          Nobody has exactly this name. Ask them how it is written here.
        </p>
      )}
    </>
  );
}

/** What can be chosen of one kind: id and label. */
function optionsOf(kind: Who["kind"], choices: ConsentChoices): [string, string][] {
  switch (kind) {
    case "role":
      return choices.roles.map(({ code, display }) => [code, display]);
    case "ward":
      return choices.wards.map(({ id, name }) => [id, name]);
    case "person":
      return choices.people.filter(({ role }) => role !== "caregiver").map(({ id, display, role }) => [id, `${display} (${roleText(role).toLowerCase()})`]);
    case "caregiver":
      return choices.people.filter(({ role }) => role === "caregiver").map(({ id, display }) => [id, display]);
    case "program":
      return choices.programs.map((name) => [name, name]);
  }
}
