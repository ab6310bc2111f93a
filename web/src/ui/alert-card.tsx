//! One alert with its life so far, and the two answers a person can give.

import { useMutation } from "@tanstack/react-query";
import { useState } from "react";

import { post } from "../api/client.ts";
import type { Alert } from "../api/types.ts";
import { alarmClass, useFlashInStep } from "../board/alarm.tsx";
import { alertText, priorityText, stars, stateText } from "../format/alerts.ts";
import { fullName } from "../format/people.ts";
import { ageSeconds, agoText, instantText } from "../format/time.ts";
import { Link } from "../router.tsx";
import { useRights } from "../session.tsx";
import { ActForm } from "./act-form.tsx";
import { Dialog, Field } from "./basics.tsx";
import { usePlaceText } from "./places.tsx";
import { mayActOnAlerts } from "./roles.ts";

/** Longest note, in characters. */
const NOTE_MAX = 1_000;

type Answer = "acknowledge" | "resolve";

interface CardProps {
  alert: Alert;
  now: number;
  /** Whom and where it is about; left out on the patient's own page. */
  withSubject?: boolean;
  onChanged: (alert: Alert) => void;
}

export function AlertCard({ alert, now, withSubject = false, onChanged }: CardProps) {
  const [answer, setAnswer] = useState<Answer | null>(null);
  const rights = useRights();
  const resolved = alert.state === "resolved";
  const look = resolved ? "alarm-none" : alarmClass(alert);
  const banner = useFlashInStep(look);
  const placeText = usePlaceText();
  const { patient, place } = alert;
  return (
    <article className={`alert-card ${resolved ? "alert-resolved" : ""}`} aria-label={`${priorityText(alert.priority)} priority: ${alertText(alert)}`}>
      <div ref={banner} className={`alarm ${look}`}>
        <span className="alarm-stars" aria-hidden="true">
          {stars(alert.priority)}
        </span>
        <span className="alarm-text">{alertText(alert)}</span>
        <span className="alarm-mark">
          {priorityText(alert.priority)}
          {alert.technical ? ", technical" : ""}
        </span>
      </div>
      <div className="alert-body">
        {withSubject && (
          <p className="alert-who">
            {place && <strong>{placeText(place)}</strong>}{" "}
            {patient ? <Link to={`/patients/${patient.id}`}>{fullName(patient)}</Link> : <span className="muted">No patient</span>}
          </p>
        )}
        <p>
          {stateText(alert)}.{" "}
          <span className="muted">
            Raised {agoText(ageSeconds(alert.raised_at, now))} ({instantText(alert.raised_at)}) by {alert.device.name}.
            {alert.condition_ended_at !== null && ` Condition ended ${agoText(ageSeconds(alert.condition_ended_at, now))}.`}
          </span>
        </p>
        {alert.steps.length > 1 && (
          <details>
            <summary>
              {alert.steps.length} steps
              {latestNote(alert) && <span className="muted">: “{latestNote(alert)}”</span>}
            </summary>
            <ol className="steps">
              {alert.steps.map((step, index) => (
                <li key={index}>
                  {instantText(step.at)} <strong>{step.state}</strong> by {step.by?.display ?? "the system"}
                  {step.note && <>: “{step.note}”</>}
                </li>
              ))}
            </ol>
          </details>
        )}
        {!resolved && mayActOnAlerts(rights) && (
          <div className="alert-actions">
            {alert.state === "raised" && (
              <button type="button" className="primary" onClick={() => setAnswer("acknowledge")}>
                Acknowledge
              </button>
            )}
            <button type="button" onClick={() => setAnswer("resolve")}>
              Resolve
            </button>
          </div>
        )}
      </div>
      {answer !== null && <AnswerDialog alert={alert} answer={answer} onClose={() => setAnswer(null)} onChanged={onChanged} />}
    </article>
  );
}

function latestNote(alert: Alert): string | null {
  return alert.steps.findLast((step) => step.note)?.note ?? null;
}

function AnswerDialog({ alert, answer, onClose, onChanged }: { alert: Alert; answer: Answer; onClose: () => void; onChanged: (alert: Alert) => void }) {
  const [note, setNote] = useState("");
  const send = useMutation({
    mutationFn: () => post<Alert>(`/alerts/${alert.id}/${answer}`, { note: note.trim() === "" ? null : note.trim() }),
    onSuccess: (next) => {
      onChanged(next);
      onClose();
    },
  });
  const verb = answer === "acknowledge" ? "Acknowledge" : "Resolve";
  return (
    <Dialog title={`${verb} this alert`} onClose={onClose}>
      <p>
        <span className={`badge badge-${alert.priority}`}>
          {stars(alert.priority)} {priorityText(alert.priority)}
        </span>{" "}
        <strong>{alertText(alert)}</strong>
      </p>
      <p className="hint">
        {answer === "acknowledge"
          ? "You take it on. The alert stays open until its condition ends, and stops flashing on every screen."
          : alert.condition_active
            ? "The condition still holds. Resolving closes the alert for everyone all the same."
            : "Closes the alert for everyone."}
      </p>
      <ActForm action={send} verb={verb} refusals={{ "already-answered": "Somebody has answered this alert already. Close this and look again." }} onClose={onClose}>
        <Field label="Note" hint="Optional; is kept with your name and the time">
          <textarea rows={3} maxLength={NOTE_MAX} autoFocus value={note} onChange={(event) => setNote(event.target.value)} />
        </Field>
      </ActForm>
    </Dialog>
  );
}
