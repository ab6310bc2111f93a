//! The limits of a patient: what raises an alert, how urgent, and after how long.

import { useMutation } from "@tanstack/react-query";
import { useState } from "react";

import { put } from "../api/client.ts";
import type { Limit, PatientChart, Priority } from "../api/types.ts";
import { priorityText } from "../format/alerts.ts";
import { ActForm } from "../ui/act-form.tsx";
import { Dialog, Empty } from "../ui/basics.tsx";
import { Icon } from "../ui/icons.tsx";

interface Known {
  measure: string;
  display: string;
  unit: string;
}

const PANEL_PARTS: Record<string, Known[]> = {
  blood_pressure: [
    { measure: "systolic", display: "Systolic blood pressure", unit: "mmHg" },
    { measure: "diastolic", display: "Diastolic blood pressure", unit: "mmHg" },
    { measure: "mean_pressure", display: "Mean blood pressure", unit: "mmHg" },
  ],
  arterial_pressure: [
    { measure: "arterial_systolic", display: "Systolic blood pressure (arterial)", unit: "mmHg" },
    { measure: "arterial_diastolic", display: "Diastolic blood pressure (arterial)", unit: "mmHg" },
    { measure: "arterial_mean", display: "Mean blood pressure (arterial)", unit: "mmHg" },
  ],
};

/** Names for limits that are set on what this patient's devices do not measure. */
const OTHERS: Known[] = [
  { measure: "pulse_rate_oximeter", display: "Pulse rate (oximeter)", unit: "/min" },
  { measure: "pulse_rate_cuff", display: "Pulse rate (cuff)", unit: "/min" },
  { measure: "glucose", display: "Glucose (capillary)", unit: "mg/dL" },
  { measure: "end_tidal_co2", display: "End-tidal CO₂", unit: "mmHg" },
  { measure: "central_venous_pressure", display: "Central venous pressure", unit: "mmHg" },
  { measure: "perfusion_index", display: "Perfusion index", unit: "%" },
  ...(PANEL_PARTS["arterial_pressure"] ?? []),
];

/** Limits a patient can have before any device was heard. */
const USUAL: Known[] = [
  { measure: "heart_rate", display: "Heart rate", unit: "/min" },
  { measure: "oxygen_saturation", display: "Oxygen saturation", unit: "%" },
  { measure: "respiratory_rate", display: "Respiratory rate", unit: "/min" },
  ...(PANEL_PARTS["blood_pressure"] ?? []),
  { measure: "body_temperature", display: "Body temperature", unit: "°C" },
];

/** Every measure a limit can be set for: what is usual, what was measured, and what has limits already. */
export function limitable(chart: Pick<PatientChart, "series" | "limits">): Known[] {
  const limited = OTHERS.filter((one) => chart.limits.some((limit) => limit.measure === one.measure));
  const known = new Map([...USUAL, ...limited].map((one) => [one.measure, one]));
  for (const series of chart.series) {
    if (series.kind === "scalar") known.set(series.measure, { measure: series.measure, display: series.display, unit: series.unit_display });
    else if (series.kind === "panel") PANEL_PARTS[series.measure]?.forEach((one) => known.set(one.measure, one));
  }
  return [...known.values()];
}

export function limitText(limit: Limit): string {
  const parts = [limit.low === null ? null : `below ${limit.low}`, limit.high === null ? null : `above ${limit.high}`];
  return parts.filter((part) => part !== null).join(" or ") || "no limit";
}

export function Limits({ chart, mayEdit, onChanged }: { chart: PatientChart; mayEdit: boolean; onChanged: () => void }) {
  const [editing, setEditing] = useState(false);
  const known = new Map(limitable(chart).map((one) => [one.measure, one]));
  return (
    <section className="card" aria-labelledby="limits">
      <div className="section-head">
        <h2 id="limits">Limits</h2>
        {mayEdit && (
          <button type="button" onClick={() => setEditing(true)}>
            Change
          </button>
        )}
      </div>
      {chart.limits.length === 0 ? (
        <p className="message message-note">No limits are set: no value of this patient raises an alert.</p>
      ) : (
        <ul className="limit-list">
          {chart.limits.map((limit) => (
            <li key={limit.measure}>
              <span>{known.get(limit.measure)?.display ?? limit.measure}</span>
              <strong>
                {limitText(limit)} <span className="unit">{known.get(limit.measure)?.unit}</span>
              </strong>
              <span className="muted">
                {priorityText(limit.priority)}, {limit.persistence_s === 0 ? "at once" : `after ${limit.persistence_s} s`}
              </span>
            </li>
          ))}
        </ul>
      )}
      {editing && <LimitsDialog chart={chart} onClose={() => setEditing(false)} onChanged={onChanged} />}
    </section>
  );
}

/** A limit while it is typed: numbers are text until they are saved. */
interface Draft {
  measure: string;
  low: string;
  high: string;
  priority: Priority;
  persistence_s: string;
  hysteresis: string;
}

const toDraft = (limit: Limit): Draft => ({
  measure: limit.measure,
  low: limit.low === null ? "" : String(limit.low),
  high: limit.high === null ? "" : String(limit.high),
  priority: limit.priority,
  persistence_s: String(limit.persistence_s),
  hysteresis: String(limit.hysteresis),
});

const number = (text: string): number | null => (text.trim() === "" || !Number.isFinite(Number(text.replace(",", "."))) ? null : Number(text.replace(",", ".")));

/** What is wrong with a draft, in words; `null` when it can be saved. */
export function fault(draft: Draft): string | null {
  const [low, high] = [number(draft.low), number(draft.high)];
  if ((draft.low.trim() !== "" && low === null) || (draft.high.trim() !== "" && high === null)) return "A limit must be a number.";
  if (low === null && high === null) return "Give a low limit, a high limit, or both; or remove the row.";
  if (low !== null && high !== null && low >= high) return "The low limit must be below the high limit.";
  const [wait, slack] = [number(draft.persistence_s), number(draft.hysteresis)];
  if (wait === null || wait < 0 || !Number.isInteger(wait)) return "The delay must be a whole number of seconds.";
  if (slack === null || slack < 0) return "The hysteresis must be zero or more.";
  return null;
}

function LimitsDialog({ chart, onClose, onChanged }: { chart: PatientChart; onClose: () => void; onChanged: () => void }) {
  const choices = limitable(chart);
  const [drafts, setDrafts] = useState(() => chart.limits.map(toDraft));
  const faults = drafts.map(fault);
  const free = choices.filter((one) => !drafts.some((draft) => draft.measure === one.measure));
  const save = useMutation({
    mutationFn: () =>
      put(`/patients/${encodeURIComponent(chart.patient.id)}/limits`, {
        limits: drafts.map((draft) => ({
          measure: draft.measure,
          low: number(draft.low),
          high: number(draft.high),
          priority: draft.priority,
          persistence_s: number(draft.persistence_s) ?? 0,
          hysteresis: number(draft.hysteresis) ?? 0,
        })),
      }),
    onSuccess: () => {
      onChanged();
      onClose();
    },
  });
  // A patient without any limit raises no alert at all: that is never one click away.
  const [sure, setSure] = useState(false);
  const leavesNone = drafts.length === 0 && chart.limits.length > 0;
  const set = (at: number, change: Partial<Draft>) => setDrafts(drafts.map((draft, i) => (i === at ? { ...draft, ...change } : draft)));
  return (
    <Dialog title="Limits of this patient" onClose={onClose} wide>
      <p className="hint">
        An alert is raised when values stay outside for the delay, and its condition ends when they are back inside by the hysteresis. Every change is kept in the audit log.
      </p>
      <ActForm action={save} verb="Save limits" blocked={faults.some((one) => one !== null) || (leavesNone && !sure)} onClose={onClose}>
        {drafts.length === 0 && <Empty>No limits: no value raises an alert.</Empty>}
        {drafts.map((draft, at) => {
          const known = choices.find((one) => one.measure === draft.measure);
          const name = known?.display ?? draft.measure;
          return (
            <fieldset key={draft.measure} className="limit-row">
              <legend>
                {name} <span className="unit">{known?.unit}</span>
              </legend>
              <label>
                Below
                <input inputMode="decimal" value={draft.low} onChange={(event) => set(at, { low: event.target.value })} />
              </label>
              <label>
                Above
                <input inputMode="decimal" value={draft.high} onChange={(event) => set(at, { high: event.target.value })} />
              </label>
              <label>
                Priority
                <select value={draft.priority} onChange={(event) => set(at, { priority: event.target.value as Priority })}>
                  {(["high", "medium", "low"] as const).map((priority) => (
                    <option key={priority} value={priority}>
                      {priorityText(priority)}
                    </option>
                  ))}
                </select>
              </label>
              <label>
                Delay, s
                <input inputMode="numeric" value={draft.persistence_s} onChange={(event) => set(at, { persistence_s: event.target.value })} />
              </label>
              <label>
                Hysteresis
                <input inputMode="decimal" value={draft.hysteresis} onChange={(event) => set(at, { hysteresis: event.target.value })} />
              </label>
              <button type="button" className="quiet square" aria-label={`Remove the limits of ${name}`} onClick={() => setDrafts(drafts.filter((_, i) => i !== at))}>
                <Icon name="close" />
              </button>
              {faults[at] && (
                <p className="limit-fault" role="alert">
                  {faults[at]}
                </p>
              )}
            </fieldset>
          );
        })}
        {free.length > 0 && (
          <label className="field">
            <span className="field-label">Add limits for</span>
            <select
              value=""
              onChange={(event) =>
                setDrafts([...drafts, { measure: event.target.value, low: "", high: "", priority: "medium", persistence_s: "10", hysteresis: "0" }])
              }
            >
              <option value="">Choose a measure</option>
              {free.map((one) => (
                <option key={one.measure} value={one.measure}>
                  {one.display} ({one.unit})
                </option>
              ))}
            </select>
          </label>
        )}
        {leavesNone && (
          <label className="check">
            <input type="checkbox" required checked={sure} onChange={(event) => setSure(event.target.checked)} />
            I remove every limit: no value of this patient will raise an alert
          </label>
        )}
      </ActForm>
    </Dialog>
  );
}
