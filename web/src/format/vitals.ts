//! What a value says: current, stale, or not known. Unknown is never shown as normal.

import type { Component, Tile, Vital } from "../api/types.ts";
import { ageSeconds, ageText } from "./time.ts";

export interface Freshness {
  /** Seconds since it was measured. */
  ageS: number;
  stale: boolean;
  text: string;
}

/** Age of a value against its own limit; everything is stale while the link is lost. */
export function freshness(vital: Vital, nowMs: number, linkLost: boolean): Freshness {
  const ageS = ageSeconds(vital.measured_at, nowMs);
  if (Number.isNaN(ageS)) return { ageS, stale: true, text: "age not known" };
  return { ageS, stale: linkLost || ageS > vital.stale_after_s, text: ageText(ageS) };
}

const ABSENT: Record<string, string> = {
  "not-a-number": "no valid measurement",
  "not-at-this-resolution": "not at this resolution",
  "positive-infinity": "above the device's range",
  "negative-infinity": "below the device's range",
  error: "device error",
  unknown: "not known",
};

/** Why there is no number, in words; a word this app does not know is shown as it came. */
export function absentText(absent: string | null): string {
  if (absent === null) return "not sent";
  return ABSENT[absent] ?? absent.replaceAll("-", " ");
}

const part = (components: Component[], ending: string) =>
  components.find((c) => c.measure === ending || c.measure.endsWith(`_${ending}`));

/** The digits to show: a pressure panel reads `120/80 (93)`; a missing part shows as a dash. */
export function valueText(vital: Vital): string {
  const components = vital.components ?? [];
  if (components.length === 0) return vital.value ?? "—";
  const sys = part(components, "systolic");
  const dia = part(components, "diastolic");
  const mean = part(components, "mean") ?? part(components, "mean_pressure");
  if (!sys && !dia) return components.map((c) => `${c.short} ${c.value ?? "—"}`).join(" ");
  const pair = `${sys?.value ?? "—"}/${dia?.value ?? "—"}`;
  return mean?.value ? `${pair} (${mean.value})` : pair;
}

/** Whether nothing at all was measured. */
export function hasNoValue(vital: Vital): boolean {
  const components = vital.components ?? [];
  return components.length === 0 ? vital.value === null : components.every((c) => c.value === null);
}

/** The sentence a screen reader speaks for a value. */
export function spokenVital(vital: Vital, nowMs: number, linkLost: boolean): string {
  const fresh = freshness(vital, nowMs, linkLost);
  const value = hasNoValue(vital) ? absentText(vital.absent) : `${valueText(vital)} ${vital.unit_display}`;
  return `${vital.display} ${value}, ${fresh.stale ? "stale, " : ""}${fresh.text === "now" ? "now" : `${fresh.text} old`}`;
}

/** The newest value of the first of these measures that is known at all. */
export function pick(vitals: Vital[], measures: readonly string[]): Vital | null {
  for (const measure of measures) {
    let newest: Vital | null = null;
    for (const vital of vitals) {
      if (vital.measure === measure && (newest === null || vital.measured_at > newest.measured_at)) newest = vital;
    }
    if (newest !== null) return newest;
  }
  return null;
}

export interface Slot {
  label: string;
  vital: Vital | null;
}

const SLOTS = [
  { label: "HR", measures: ["heart_rate", "pulse_rate_oximeter", "pulse_rate_cuff"] },
  { label: "SpO₂", measures: ["oxygen_saturation"] },
  { label: "RR", measures: ["respiratory_rate"] },
  { label: "NIBP", measures: ["blood_pressure", "arterial_pressure"] },
  { label: "Temp", measures: ["body_temperature"] },
] as const;

const SHOWN_IN_SLOTS = new Set<string>(SLOTS.flatMap((slot) => [...slot.measures]));
/** Not vital signs of the patient: they belong to the device, or are shown on the patient's own page. */
const NOT_ON_TILE = new Set(["battery_level", "rr_interval", "energy_expended", "room_temperature"]);

/**
 * The five places of a tile, always in the same order. One of the three small places that nothing was ever measured
 * for is given to another measure the patient does have (glucose, weight), so that a home patient's tile is not empty.
 */
export function slots(tile: Pick<Tile, "vitals">): Slot[] {
  const extras = [...new Set(tile.vitals.map((v) => v.measure))]
    .filter((m) => !SHOWN_IN_SLOTS.has(m) && !NOT_ON_TILE.has(m))
    .sort();
  return SLOTS.map((slot, index) => {
    const vital = pick(tile.vitals, slot.measures);
    const extra = vital === null && index >= 2 ? extras.shift() : undefined;
    const chosen = extra === undefined ? vital : pick(tile.vitals, [extra]);
    return { label: chosen?.short ?? slot.label, vital: chosen };
  });
}
