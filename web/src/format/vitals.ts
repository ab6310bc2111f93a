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

/** A mean as fine as the pressures that it is the mean of: `93.33` beside `120` reads `93`. */
function meanText(mean: string, beside: string | null | undefined): string {
  const places = (text: string) => text.split(".")[1]?.length ?? 0;
  return beside && Number.isFinite(Number(mean)) && places(mean) > places(beside) ? Number(mean).toFixed(places(beside)) : mean;
}

/** The digits to show: a pressure panel reads `120/80 (93)`; a missing part shows as a dash. `exact` where a value's origin is shown. */
export function valueText(vital: Vital, exact = false): string {
  const components = vital.components ?? [];
  if (components.length === 0) return vital.value ?? "—";
  const sys = part(components, "systolic");
  const dia = part(components, "diastolic");
  const mean = part(components, "mean") ?? part(components, "mean_pressure");
  if (!sys && !dia) return components.map((c) => `${c.short} ${c.value ?? "—"}`).join(" ");
  const pair = `${sys?.value ?? "—"}/${dia?.value ?? "—"}`;
  if (!mean?.value) return pair;
  return `${pair} (${exact ? mean.value : meanText(mean.value, sys?.value ?? dia?.value)})`;
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

/** The newest current value of the first of these measures that has one; where all are stale, the newest of all. */
export function pick(vitals: Vital[], measures: readonly string[], nowMs: number): Vital | null {
  const newer = (a: Vital, b: Vital) => (Date.parse(b.measured_at) > Date.parse(a.measured_at) ? b : a);
  const newest = measures.flatMap((measure) => {
    const mine = vitals.filter((vital) => vital.measure === measure);
    return mine.length === 0 ? [] : [mine.reduce(newer)];
  });
  if (newest.length === 0) return null;
  return newest.find((vital) => !freshness(vital, nowMs, false).stale) ?? newest.reduce(newer);
}

export interface Slot {
  label: string;
  vital: Vital | null;
}

const SLOTS = [
  { label: "HR", measures: ["heart_rate", "pulse_rate_oximeter", "pulse_rate_cuff"] },
  { label: "SpO₂", measures: ["oxygen_saturation"] },
  { label: "RR", measures: ["respiratory_rate"] },
  { label: "NIBP", measures: ["arterial_pressure", "blood_pressure"] },
  { label: "Temp", measures: ["body_temperature"] },
] as const;

/** What else may stand on a tile, most telling first; anything not named here is on the patient's own page. */
const EXTRAS = ["glucose", "end_tidal_co2", "central_venous_pressure", "body_weight", "glasgow_coma_score"];

/**
 * The five places of a tile, always in the same order. One of the three small places that nothing was ever measured
 * for is given to another measure the patient does have (glucose, weight), so that a home patient's tile is not empty.
 */
export function slots(tile: Pick<Tile, "vitals">, nowMs: number): Slot[] {
  const extras = EXTRAS.filter((measure) => tile.vitals.some((vital) => vital.measure === measure));
  return SLOTS.map((slot, index) => {
    const vital = pick(tile.vitals, slot.measures, nowMs);
    const extra = vital === null && index >= 2 ? extras.shift() : undefined;
    const chosen = extra === undefined ? vital : pick(tile.vitals, [extra], nowMs);
    return { label: chosen?.short ?? slot.label, vital: chosen };
  });
}
