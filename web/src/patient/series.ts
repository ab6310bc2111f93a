//! From the trend answer to what a chart draws: gaps break the line, nothing is made up between two readings.

import type { SeriesInfo, Trend, TrendSeries, Vital } from "../api/types.ts";

/** A chart: measures of one unit that belong together. */
export interface ChartGroup {
  key: string;
  title: string;
  unit: string;
  measures: string[];
  /** What each measure is called. */
  names: Record<string, string>;
  /** Pressures are drawn as bars from diastolic to systolic: between two cuff readings nothing is known. */
  bars: boolean;
  /** Longest time between two readings that a line may cross, in ms. */
  joinMs: number;
}

const PANELS: Record<string, string[]> = {
  blood_pressure: ["systolic", "diastolic", "mean_pressure"],
  arterial_pressure: ["arterial_systolic", "arterial_diastolic", "arterial_mean"],
};
/** What the parts of a panel are called beside each other. */
const PARTS: Record<string, string> = { systolic: "Systolic", diastolic: "Diastolic", mean_pressure: "Mean", arterial_systolic: "Systolic", arterial_diastolic: "Diastolic", arterial_mean: "Mean" };
/** Drawn together where both exist. */
const TOGETHER: Record<string, string> = { pulse_rate_oximeter: "heart_rate", pulse_rate_cuff: "heart_rate" };
/** The panel that a component belongs to. */
export const PANEL_OF: Record<string, string> = Object.fromEntries(Object.entries(PANELS).flatMap(([panel, parts]) => parts.map((part) => [part, panel])));
const PANEL_TITLES: Record<string, string> = { blood_pressure: "Blood pressure", arterial_pressure: "Arterial blood pressure" };
const FIRST = ["heart_rate", "oxygen_saturation", "respiratory_rate", "blood_pressure", "arterial_pressure", "body_temperature"];
const HIDDEN = new Set(["rr_interval", "energy_expended"]);
/** Never is a line drawn across more than this, in ms, whatever the usual interval: five minutes are an event. */
const JOIN_MAX_MS = 300_000;
const JOIN_MIN_MS = 3_000;

export function chartGroups(series: SeriesInfo[], latest: Vital[]): ChartGroup[] {
  const groups = new Map<string, ChartGroup>();
  for (const entry of series) {
    if ((entry.kind !== "scalar" && entry.kind !== "panel") || HIDDEN.has(entry.measure)) continue;
    const base = TOGETHER[entry.measure];
    const panel = PANEL_OF[entry.measure];
    const key = panel ?? (base !== undefined && series.some((other) => other.measure === base) ? base : entry.measure);
    const measures = entry.kind === "panel" ? (PANELS[entry.measure] ?? componentsOf(entry.measure, latest)) : [entry.measure];
    const stale = latest.find((vital) => vital.measure === (panel ?? entry.measure))?.stale_after_s ?? 60;
    const joinMs = Math.min(JOIN_MAX_MS, Math.max(JOIN_MIN_MS, stale * 1_000));
    const names = Object.fromEntries(measures.map((measure) => [measure, PARTS[measure] ?? entry.display]));
    const known = groups.get(key);
    if (known) {
      known.measures = [...new Set([...known.measures, ...measures])];
      Object.assign(known.names, names);
    } else groups.set(key, { key, title: PANEL_TITLES[key] ?? entry.display, unit: entry.unit_display, measures, names, bars: key === "blood_pressure", joinMs });
  }
  const rank = (group: ChartGroup) => (FIRST.indexOf(group.key) + FIRST.length + 1) % (FIRST.length + 1);
  return [...groups.values()].sort((a, b) => rank(a) - rank(b) || a.title.localeCompare(b.title));
}

function componentsOf(panel: string, latest: Vital[]): string[] {
  return (latest.find((vital) => vital.measure === panel)?.components ?? []).map((c) => c.measure);
}

export type Column = (number | null | undefined)[];

export interface Aligned {
  /** Seconds since 1970, rising. */
  x: number[];
  /** For each series: smallest, mean and largest. `undefined`: not sampled then; `null`: the line breaks. */
  columns: { min: Column; mean: Column; max: Column }[];
}

/**
 * Puts series with different times on one time axis. Where two readings of a series are further apart than a line may
 * cross, a break is put between them.
 */
export function align(series: TrendSeries[], joinMs: number, bucketMs: number): Aligned {
  const limit = Math.max(joinMs, bucketMs * 1.5);
  const breaks = series.map((one) => one.t.slice(1).flatMap((at, i) => (at - (one.t[i] as number) > limit ? [(one.t[i] as number) + 1] : [])));
  const times = [...new Set([...series.flatMap((one) => one.t), ...breaks.flat()])].sort((a, b) => a - b);
  const at = new Map(times.map((time, index) => [time, index]));
  const columns = series.map((one, which) => {
    const empty = () => new Array<number | null | undefined>(times.length).fill(undefined);
    const column = { min: empty(), mean: empty(), max: empty() };
    one.t.forEach((time, i) => {
      const place = at.get(time) as number;
      column.min[place] = one.min[i] as number;
      column.mean[place] = one.mean[i] as number;
      column.max[place] = one.max[i] as number;
    });
    for (const time of breaks[which] ?? []) {
      const place = at.get(time) as number;
      column.min[place] = column.mean[place] = column.max[place] = null;
    }
    return column;
  });
  return { x: times.map((time) => time / 1_000), columns };
}

/** The readings of a vital sign that a trend draws: its own value, or those of its parts. */
function figures(vital: Vital): [measure: string, value: number][] {
  const parts = vital.components ? vital.components.map((part) => [part.measure, part.value] as const) : [[vital.measure, vital.value] as const];
  return parts.flatMap(([measure, value]) => (value === null || !Number.isFinite(Number(value)) ? [] : [[measure, Number(value)]]));
}

/**
 * A trend with what came over the live stream since it was read, up to `nowMs`: the window moves on, what left it is
 * dropped, and readings of one bucket are drawn as one. Only series that the trend has are grown: which there are is
 * the server's to say.
 */
export function grown(trend: Trend, live: Vital[], nowMs: number): Trend {
  const spanMs = Date.parse(trend.to) - Date.parse(trend.from);
  const [readToMs, fromMs] = [Date.parse(trend.to), nowMs - spanMs];
  const fresh = live
    .filter((vital) => cameAfter(vital, readToMs))
    .map((vital) => ({ vital, at: Date.parse(vital.measured_at) }))
    .filter(({ at }) => at >= fromMs && at <= nowMs)
    .sort((a, b) => a.at - b.at);
  const series = trend.series.map((one) => {
    const first = one.t.findIndex((time) => time >= fromMs);
    const cut = <T>(list: T[]): T[] => (first === -1 ? [] : list.slice(first));
    const next = { ...one, t: cut(one.t), min: cut(one.min), mean: cut(one.mean), max: cut(one.max), count: cut(one.count), observation_id: cut(one.observation_id) };
    for (const { vital, at } of fresh) {
      if (vital.device_id !== one.device_id) continue;
      for (const [measure, value] of figures(vital)) if (measure === one.measure) take(next, at, value, vital.observation_id, readToMs, trend.bucket_ms);
    }
    return next;
  });
  return { ...trend, from: new Date(fromMs).toISOString(), to: new Date(nowMs).toISOString(), series };
}

/** Whether a reading is in no trend that was read at `readMs`: it counts when it was kept, not when it was measured. */
export const cameAfter = (vital: Vital, readMs: number): boolean => Date.parse(vital.committed_at) > readMs;

/** Takes one reading into a series: into the last bucket where that is a live one and not full, else as a bucket of its own, in its place. */
function take(series: TrendSeries, at: number, value: number, observationId: string, liveFromMs: number, bucketMs: number): void {
  const last = series.t.length - 1;
  const begun = series.t[last];
  if (begun !== undefined && begun > liveFromMs && at >= begun && at - begun < bucketMs) {
    const count = series.count[last] as number;
    series.min[last] = Math.min(series.min[last] as number, value);
    series.max[last] = Math.max(series.max[last] as number, value);
    series.mean[last] = ((series.mean[last] as number) * count + value) / (count + 1);
    series.count[last] = count + 1;
    series.observation_id[last] = null;
    return;
  }
  const place = series.t.findLastIndex((time) => time <= at) + 1;
  series.t.splice(place, 0, at);
  series.min.splice(place, 0, value);
  series.mean.splice(place, 0, value);
  series.max.splice(place, 0, value);
  series.count.splice(place, 0, 1);
  series.observation_id.splice(place, 0, observationId);
}

/** Readings without a neighbour within reach: a line would not show them, so they are drawn as points. */
export function lonely(mean: Column): number[] {
  const found: number[] = [];
  let runStart = -1;
  let runLength = 0;
  const close = () => {
    if (runLength === 1) found.push(runStart);
    runLength = 0;
  };
  mean.forEach((value, index) => {
    if (value === null) close();
    else if (value !== undefined) {
      if (runLength === 0) runStart = index;
      runLength += 1;
    }
  });
  close();
  return found;
}

/** Index of the reading that is nearest in time, within reach; `null` when there is none. */
export function nearest(series: TrendSeries, atMs: number, reachMs: number): number | null {
  let best: number | null = null;
  let distance = reachMs;
  series.t.forEach((time, index) => {
    const away = Math.abs(time - atMs);
    if (away <= distance) {
      best = index;
      distance = away;
    }
  });
  return best;
}

/** Digits for a figure that was averaged: one behind the point below 100, none above. */
export function figure(value: number): string {
  return Number.isInteger(value) || Math.abs(value) >= 100 ? String(Math.round(value)) : value.toFixed(1);
}
