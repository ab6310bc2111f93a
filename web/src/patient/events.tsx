//! What happened to a patient's devices in the last week: doses, alarms of devices, and gaps in the data.

import type { PatientChart } from "../api/types.ts";
import { instantText } from "../format/time.ts";

/** Rows that are shown before the rest is asked for. */
const SHOWN = 5;

export function Events({ chart }: { chart: PatientChart }) {
  if (chart.events.length === 0) return null;
  const device = (id: string) => chart.devices.find((one) => one.id === id)?.name ?? "a device that is no longer assigned";
  const row = (event: PatientChart["events"][number], index: number) => (
    <li key={`${event.device_id} ${event.at} ${event.measure} ${index}`}>
      <strong>{event.display}</strong>
      <span className="muted">
        {[event.text ?? [event.amount, event.unit].filter(Boolean).join(" "), device(event.device_id), instantText(event.at)].filter(Boolean).join(", ")}
      </span>
    </li>
  );
  return (
    <section className="card" aria-labelledby="events">
      <h2 id="events">Events</h2>
      <ul className="device-list">{chart.events.slice(0, SHOWN).map(row)}</ul>
      {chart.events.length > SHOWN && (
        <details>
          <summary>{chart.events.length - SHOWN} earlier</summary>
          <ul className="device-list">{chart.events.slice(SHOWN).map((event, index) => row(event, index + SHOWN))}</ul>
        </details>
      )}
    </section>
  );
}
