//! Trends, limits and bytes: nothing is drawn between readings that are too far apart, nothing wrong is saved.

import { describe, expect, it } from "vitest";

import type { ExplainedField, SeriesInfo, TrendSeries, Vital } from "../api/types.ts";
import { bytesOf, fieldOfByte } from "../ui/hex.tsx";
import { fault, limitable, limitText } from "./limits.tsx";
import { align, chartGroups, figure, grown, lonely, nearest } from "./series.ts";

const series = (t: number[], measure = "heart_rate"): TrendSeries => ({
  measure,
  device_id: "d",
  unit_display: "/min",
  t,
  min: t.map(() => 60),
  mean: t.map(() => 70),
  max: t.map(() => 80),
  count: t.map(() => 3),
  observation_id: t.map(() => null),
});

describe("a trend that grows with the live stream", () => {
  const at = (ms: number) => new Date(ms).toISOString();
  const read = (t: number[]) => ({ from: at(0), to: at(60_000), bucket_ms: 5_000, series: [series(t)] });
  const vital = (ms: number, value: string | null, change: Partial<Vital> = {}) => ({ measure: "heart_rate", device_id: "d", value, measured_at: at(ms), committed_at: at(ms), observation_id: `o${ms}`, ...change }) as Vital;

  it("moves on, and drops what has left it", () => {
    const { from, to, series: [one] } = grown(read([1_000, 50_000]), [], 70_000);
    expect([from, to]).toEqual([at(10_000), at(70_000)]);
    expect(one?.t).toEqual([50_000]);
    expect(one?.mean).toEqual([70]);
  });

  it("draws live readings of one bucket as one, and leaves what was read as it is", () => {
    const { series: [one] } = grown(read([59_000]), [vital(61_000, "80"), vital(63_000, "90"), vital(70_000, "60")], 71_000);
    expect(one?.t).toEqual([59_000, 61_000, 70_000]);
    expect(one?.mean).toEqual([70, 85, 60]);
    expect(one?.min).toEqual([60, 80, 60]);
    expect(one?.max).toEqual([80, 90, 60]);
    expect(one?.observation_id).toEqual([null, null, "o70000"]);
  });

  it("takes neither what it has already, nor values that are missing, of another device or of the future", () => {
    const events = [vital(59_500, "99"), vital(61_000, null), vital(62_000, "99", { device_id: "other" }), vital(99_000, "99"), vital(62_000, "99", { measure: "pulse_rate_oximeter" })];
    expect(grown(read([59_000]), events, 70_000).series).toEqual([series([59_000])].map((one) => ({ ...one })));
  });

  it("puts a reading that came late in its place", () => {
    const { series: [one] } = grown(read([20_000, 59_000]), [vital(30_000, "99", { committed_at: at(61_000) })], 70_000);
    expect(one?.t).toEqual([20_000, 30_000, 59_000]);
    expect(one?.mean).toEqual([70, 99, 70]);
  });

  it("finds the parts of a panel", () => {
    const panel = vital(61_000, null, { measure: "blood_pressure", components: [{ measure: "systolic", value: "120" }] as NonNullable<Vital["components"]> });
    const trend = { ...read([]), series: [series([], "systolic")] };
    expect(grown(trend, [panel], 70_000).series[0]?.mean).toEqual([120]);
  });
});

describe("a trend", () => {
  it("breaks where readings are further apart than a line may cross", () => {
    const { x, columns } = align([series([0, 1_000, 2_000, 60_000, 61_000])], 15_000, 1_000);
    expect(x).toEqual([0, 1, 2, 2.001, 60, 61]);
    expect(columns[0]?.mean).toEqual([70, 70, 70, null, 70, 70]);
    expect(columns[0]?.max).toEqual([80, 80, 80, null, 80, 80]);
  });

  it("does not break a series because another was sampled in between", () => {
    const { columns } = align([series([0, 2_000]), series([1_000, 3_000])], 15_000, 1_000);
    expect(columns[0]?.mean).toEqual([70, undefined, 70, undefined]);
    expect(columns[1]?.mean).toEqual([undefined, 70, undefined, 70]);
  });

  it("follows the buckets where these are wider than the usual interval", () => {
    const { columns } = align([series([0, 600_000, 1_200_000])], 15_000, 600_000);
    expect(columns[0]?.mean).toEqual([70, 70, 70]);
  });

  it("shows readings without a neighbour as points", () => {
    expect(lonely([70, 70, null, 71, null, undefined, 72, undefined, 73])).toEqual([3]);
    expect(lonely([70])).toEqual([0]);
    expect(lonely([])).toEqual([]);
  });

  it("finds the reading under the cursor, within reach", () => {
    const one = series([0, 1_000, 5_000]);
    expect(nearest(one, 1_400, 500)).toBe(1);
    expect(nearest(one, 3_000, 500)).toBeNull();
  });

  it("does not pretend to digits that were averaged away", () => {
    expect([71, 71.26, 134.6, 36.56].map(figure)).toEqual(["71", "71.3", "135", "36.6"]);
  });
});

const info = (measure: string, kind: SeriesInfo["kind"] = "scalar", unit_display = "/min"): SeriesInfo => ({ measure, short: measure, display: measure, unit_display, kind, device_id: "d" });

describe("charts", () => {
  it("stand in the order of the board, pulse beside heart rate, pressures by their parts", () => {
    const groups = chartGroups(
      [info("body_temperature"), info("blood_pressure", "panel"), info("pulse_rate_oximeter"), info("heart_rate"), info("ecg_ii", "waveform"), info("glucose")],
      [{ measure: "heart_rate", stale_after_s: 15 } as Vital],
    );
    expect(groups.map(({ key }) => key)).toEqual(["heart_rate", "blood_pressure", "body_temperature", "glucose"]);
    expect(groups[0]).toMatchObject({ measures: ["pulse_rate_oximeter", "heart_rate"], names: { pulse_rate_oximeter: "pulse_rate_oximeter", heart_rate: "heart_rate" } });
    expect(groups[1]).toMatchObject({ names: { systolic: "Systolic", diastolic: "Diastolic", mean_pressure: "Mean" }, measures: ["systolic", "diastolic", "mean_pressure"], bars: true });
    expect(chartGroups([info("pulse_rate_cuff")], [])[0]?.key).toBe("pulse_rate_cuff");
  });

  it("know pressures by their parts too", () => {
    const parts = ["systolic", "diastolic", "mean_pressure"].map((part) => info(part, "scalar", "mmHg"));
    expect(chartGroups(parts, [])).toMatchObject([{ key: "blood_pressure", title: "Blood pressure", measures: ["systolic", "diastolic", "mean_pressure"], bars: true }]);
  });

  it("never join readings over more than five minutes", () => {
    expect(chartGroups([info("glucose")], [{ measure: "glucose", stale_after_s: 86_400 } as Vital])[0]?.joinMs).toBe(300_000);
  });
});

describe("limits", () => {
  const draft = { measure: "heart_rate", low: "50", high: "120", priority: "high" as const, persistence_s: "10", hysteresis: "2" };
  it("are saved only when they make sense", () => {
    expect(fault(draft)).toBeNull();
    expect(fault({ ...draft, low: "" })).toBeNull();
    expect(fault({ ...draft, low: "36,5", high: "39" })).toBeNull();
    for (const change of [{ low: "120" }, { low: "", high: "" }, { low: "x" }, { persistence_s: "-1" }, { persistence_s: "1.5" }, { hysteresis: "" }]) expect(fault({ ...draft, ...change })).not.toBeNull();
  });

  it("can be set for pressures by their parts, and never for a waveform", () => {
    const measures = limitable({ series: [info("arterial_pressure", "panel"), info("ecg_ii", "waveform"), info("glucose")], limits: [] }).map(({ measure }) => measure);
    expect(measures).toEqual(expect.arrayContaining(["systolic", "arterial_mean", "glucose", "heart_rate"]));
    expect(measures).not.toContain("ecg_ii");
    expect(measures).not.toContain("arterial_pressure");
  });

  it("read as a sentence", () => {
    const limit = { measure: "heart_rate", low: 50, high: 120, priority: "high" as const, persistence_s: 10, hysteresis: 2 };
    expect(limitText(limit)).toBe("below 50 or above 120");
    expect(limitText({ ...limit, high: null })).toBe("below 50");
  });
});

describe("bytes", () => {
  const field = (offset: number, length: number): ExplainedField => ({ offset, length, name: "", raw_hex: "", meaning: "" });
  it("belong to the innermost field that covers them", () => {
    expect(bytesOf("00ff7a")).toEqual([0, 255, 122]);
    expect(fieldOfByte(6, [field(0, 5), field(1, 2)])).toEqual([0, 1, 1, 0, 0, -1]);
    expect(fieldOfByte(2, [field(1, 10)])).toEqual([-1, 0]);
  });
});
