//! The latest value of everything measured; each leads to where it comes from.

import type { DeviceState, Vital } from "../api/types.ts";
import { absentText, freshness, hasNoValue, valueText } from "../format/vitals.ts";

const ORDER = [
  "heart_rate",
  "pulse_rate_oximeter",
  "oxygen_saturation",
  "respiratory_rate",
  "blood_pressure",
  "arterial_pressure",
  "body_temperature",
  "glucose",
];

/** Vital signs first, in the order of the board; the rest as they came, by name. */
export function inReadingOrder(vitals: Vital[]): Vital[] {
  const rank = (vital: Vital) => {
    const at = ORDER.indexOf(vital.measure);
    return at === -1 ? ORDER.length : at;
  };
  return [...vitals].sort((a, b) => rank(a) - rank(b) || a.display.localeCompare(b.display) || a.device_id.localeCompare(b.device_id));
}

interface LatestProps {
  vitals: Vital[];
  devices: DeviceState[];
  now: number;
  linkLost: boolean;
  /** Names what was measured in full, for those who do not read charts for a living. */
  inWords?: boolean;
  onOrigin: (observationId: string) => void;
}

export function LatestVitals({ vitals, devices, now, linkLost, inWords = false, onOrigin }: LatestProps) {
  const ordered = inReadingOrder(vitals);
  if (ordered.length === 0) return <p className="latest-none">Nothing was measured yet.</p>;
  return (
    <ul className="latest" aria-label="Latest values">
      {ordered.map((vital) => {
        const fresh = freshness(vital, now, linkLost);
        const none = hasNoValue(vital);
        const findings = vital.findings.length + (vital.components ?? []).reduce((n, c) => n + c.findings.length, 0);
        const twice = ordered.some((other) => other !== vital && other.measure === vital.measure);
        const device = devices.find((d) => d.id === vital.device_id)?.name;
        return (
          <li key={`${vital.measure} ${vital.device_id}`}>
            <button
              type="button"
              className={`latest-value ${none ? "reading-none" : fresh.stale ? "reading-stale" : ""}`}
              onClick={() => onOrigin(vital.observation_id)}
              title={`${vital.display}: show where it comes from`}
            >
              <span className="reading-label">
                {inWords ? vital.display : vital.short} <span className="reading-unit">{vital.unit_display}</span>
              </span>
              <span className="reading-value">{valueText(vital)}</span>
              <span className="reading-age">
                {none ? `${absentText(vital.absent)}, ` : ""}
                {fresh.stale ? "stale " : ""}
                {fresh.text}
                {twice && device ? `, ${device}` : ""}
              </span>
              {findings > 0 && (
                <span className="latest-findings">
                  {findings} {findings === 1 ? "finding" : "findings"}
                </span>
              )}
            </button>
          </li>
        );
      })}
    </ul>
  );
}
