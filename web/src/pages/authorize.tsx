//! Letting an app in: what it asks for in plain words, for which patient, and the person's decision.

import { useMutation, useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";

import { get, post } from "../api/client.ts";
import type { AskConsent, Authorize } from "../api/oauth.ts";
import { fullName } from "../format/people.ts";
import { instantText } from "../format/time.ts";
import { useSession } from "../session.tsx";
import { Failure, Waiting } from "../ui/basics.tsx";
import { PatientPicker } from "../ui/search.tsx";
import { StepUp } from "../ui/step-up.tsx";
import { Alone } from "../way-in/alone.tsx";

const LASTS: Record<AskConsent["lasts"], string> = {
  session: "until you sign out",
  offline: "also while you are away, until you stop it in your account",
  short: "for a few minutes",
};

export function AuthorizePage() {
  const [search] = useState(() => window.location.search);
  const ask = useQuery({
    queryKey: ["authorize", search],
    queryFn: ({ signal }) => get<Authorize>(`/authorize${search}`, signal),
    staleTime: Infinity,
    gcTime: 0,
    retry: false,
  });
  const back = ask.data?.step === "return" ? ask.data.redirect_to : null;
  useEffect(() => {
    if (back !== null) window.location.replace(back);
  }, [back]);
  return (
    <Alone title="Let an app in?" wide>
      {(ask.isPending || back !== null) && <Waiting what="what the app asks for" />}
      {ask.isError && (
        <>
          <Failure error={ask.error} />
          <p>Nothing was given to anybody. Close this page, and tell whoever makes the app.</p>
        </>
      )}
      {ask.data?.step === "consent" && <Decide ask={ask.data} search={search} />}
      <StepUp />
    </Alone>
  );
}

function Decide({ ask, search }: { ask: AskConsent; search: string }) {
  const { signOut } = useSession();
  const [left, setLeft] = useState<string[]>(() => ask.scopes.map(({ scope }) => scope));
  const [patient, setPatient] = useState<{ id: string; label: string } | null>(ask.patient && { id: ask.patient.id, label: ask.patient.display });
  const decide = useMutation({
    mutationFn: (approve: boolean) =>
      post<{ redirect_to: string }>("/authorize", {
        query: search.replace(/^\?/, ""),
        approve,
        patient: approve ? (patient?.id ?? null) : null,
        scopes: approve && left.length < ask.scopes.length ? left : null,
      }),
    onSuccess: ({ redirect_to: to }) => window.location.replace(to),
  });
  const needsPatient = ask.needs_patient && patient === null;
  const busy = decide.isPending || decide.isSuccess;
  return (
    <>
      <p className="asks">
        <strong>{ask.client.name}</strong> at <strong>{ask.redirect_host}</strong> asks to act for you, <strong>{ask.user.display}</strong>.
      </p>
      <p className="hint">
        Registered here {instantText(ask.client.registered_at)}
        {ask.client.is_confidential ? "; it proves itself by its own key" : "; it cannot prove that it is itself: go on only if you opened it just now"}. Not you?{" "}
        <button type="button" className="link" onClick={() => void signOut()}>
          Sign in as somebody else
        </button>
      </p>
      <fieldset className="radio-group">
        <legend>It may</legend>
        {ask.scopes.map(({ scope, words }) => (
          <label key={scope} className="check">
            <input type="checkbox" checked={left.includes(scope)} onChange={(event) => setLeft(event.target.checked ? ask.scopes.map((one) => one.scope).filter((one) => left.includes(one) || one === scope) : left.filter((one) => one !== scope))} />
            <span>
              {words} <span className="mono muted">{scope}</span>
            </span>
          </label>
        ))}
      </fieldset>
      {ask.refused_scopes.length > 0 && (
        <p className="message message-note">
          It asked for more than it may have; that is left out: <span className="mono">{ask.refused_scopes.join(" ")}</span>
        </p>
      )}
      {ask.needs_patient && (
        <fieldset className="radio-group">
          <legend>For which patient</legend>
          {patient === null ? (
            <PatientPicker label="Patient" onPick={(found) => setPatient({ id: found.id, label: fullName(found) })} />
          ) : (
            <p className="picked">
              <strong>{patient.label}</strong>
              {ask.patient === null && (
                <button type="button" onClick={() => setPatient(null)}>
                  Another
                </button>
              )}
            </p>
          )}
        </fieldset>
      )}
      <p>
        This holds <strong>{LASTS[ask.lasts]}</strong>. What it reads is in the audit log under your name. You never give it your password.
      </p>
      {decide.isError && <Failure error={decide.error} />}
      <div className="form-actions">
        <button type="button" disabled={busy} onClick={() => decide.mutate(false)}>
          Refuse
        </button>
        <button type="button" className="primary" disabled={busy || needsPatient || left.length === 0} onClick={() => decide.mutate(true)}>
          Let it in
        </button>
      </div>
    </>
  );
}
