//! The sweep: where a sample is drawn, what is erased, and that a gap is never bridged.

import { describe, expect, it } from "vitest";

import { Channel } from "./channel.ts";
import { MISSING } from "./frame.ts";
import { differs, eraseSpans, fit, type Pen, type StripLayout, Sweep, xOf, yOf } from "./sweep.ts";

const layout: StripLayout = {
  id: "s",
  patient_id: "p",
  measure: "ecg_ii",
  x: 10,
  y: 20,
  w: 600,
  h: 100,
  color: "#0f0",
  windowMs: 6_000,
  scale: { kind: "gain", pxPerUnit: 1 },
};

/** Remembers what was drawn. */
class Recorder {
  strokeStyle = "";
  lineWidth = 0;
  lineJoin: CanvasLineJoin = "round";
  lineCap: CanvasLineCap = "round";
  lines: { from: [number, number]; to: [number, number] }[] = [];
  clears: [number, number, number, number][] = [];
  clips: [number, number, number, number][] = [];
  #at: [number, number] = [0, 0];
  #rect: [number, number, number, number] = [0, 0, 0, 0];
  save() {}
  restore() {}
  beginPath() {}
  stroke() {}
  rect(...box: [number, number, number, number]) {
    this.#rect = box;
  }
  clip() {
    this.clips.push(this.#rect);
  }
  clearRect(...box: [number, number, number, number]) {
    this.clears.push(box);
  }
  moveTo(x: number, y: number) {
    this.#at = [x, y];
  }
  lineTo(x: number, y: number) {
    this.lines.push({ from: this.#at, to: [x, y] });
    this.#at = [x, y];
  }
}

const pen = () => new Recorder() as Recorder & Pen;

function block(startMs: number, values: number[], breakBefore = false) {
  return { channel: 1, breakBefore, startMs, rate: 100, samples: Int16Array.from(values) };
}

const ramp = (count: number) => Array.from({ length: count }, (_, i) => i % 50);

describe("where a sample is drawn", () => {
  it("places samples by their time within the window, not by their arrival", () => {
    expect(xOf(0, 6_000, 600)).toBe(0);
    expect(xOf(3_000, 6_000, 600)).toBe(300);
    expect(xOf(6_000, 6_000, 600)).toBe(0);
    expect(xOf(1_700_000_003_000, 6_000, 600)).toBe(xOf(1_700_000_003_000 + 6_000 * 1_000, 6_000, 600));
  });

  it("draws 1 mV as ten millimetres at ten millimetres a millivolt, whatever raw counts the device sends", () => {
    const mm = 96 / 25.4;
    const mapping = { centre: 0, pxPerUnit: 10 * mm };
    expect(yOf(0, mapping, 120) - yOf(1, mapping, 120)).toBeCloseTo(10 * mm, 9);
    const channel = new Channel(0.005, 0);
    channel.push(block(0, [0, 200]), 0);
    const seen: (number | null)[] = [];
    channel.walk(-1, 100, (_, value) => seen.push(value));
    expect(seen).toEqual([0, 1]);
  });

  it("never leaves the strip, however large the value", () => {
    const mapping = { centre: 0, pxPerUnit: 10 };
    expect(yOf(1e6, mapping, 100)).toBe(0);
    expect(yOf(-1e6, mapping, 100)).toBe(100);
  });

  it("keeps a scale until the signal has clearly changed", () => {
    const old = fit({ min: 0, max: 1 }, 100);
    expect(differs(old, fit({ min: 0, max: 1.1 }, 100), 100)).toBe(false);
    expect(differs(old, fit({ min: 0, max: 3 }, 100), 100)).toBe(true);
    expect(fit({ min: 2, max: 2 }, 100)).toEqual({ centre: 2, pxPerUnit: 0 });
  });
});

describe("what is erased", () => {
  it("erases a bar ahead of the line and never the whole strip for a small step", () => {
    const spans = eraseSpans(100, 100.4, false, 24, 600);
    expect(spans).toHaveLength(1);
    expect(spans[0]?.[0]).toBeGreaterThan(100);
    expect(spans[0]?.[1]).toBeCloseTo(124.4);
  });

  it("continues the bar at the left edge", () => {
    expect(eraseSpans(595, 598, false, 24, 600)).toEqual([
      [596, 600],
      [0, 22],
    ]);
    expect(eraseSpans(598, 2, true, 24, 600)).toEqual([
      [599, 600],
      [0, 26],
    ]);
  });

  it("erases everything when a step is longer than the window", () => {
    expect(eraseSpans(10, 5, true, 24, 600)).toEqual([[0, 600]]);
  });
});

describe("the line", () => {
  function swept(blocks: ReturnType<typeof block>[], toMs: number) {
    const channel = new Channel(1, 0);
    blocks.forEach((one) => channel.push(one, 0));
    const ctx = pen();
    const sweep = new Sweep(layout);
    // The play position runs behind the newest arrival by the longest delay and the jitter allowance.
    sweep.step(ctx, channel, 200);
    for (let now = 250; now <= toMs + 200; now += 50) sweep.step(ctx, channel, now);
    return { ctx, channel };
  }

  it("joins neighbouring samples, inside the strip's clip", () => {
    const { ctx } = swept([block(0, ramp(100))], 900);
    expect(ctx.lines.length).toBeGreaterThan(60);
    expect(ctx.clips.every((clip) => clip.join() === "10,20,600,100")).toBe(true);
    for (const { from, to } of ctx.lines) {
      expect(to[0] - from[0]).toBeCloseTo(1, 5);
      expect(to[0]).toBeGreaterThanOrEqual(10);
      expect(to[0]).toBeLessThanOrEqual(610);
    }
  });

  it("breaks at a missing sample, at a gap in time and where the server says that samples were lost", () => {
    const whole = swept([block(0, ramp(80))], 700).ctx.lines.length;
    const missing = swept([block(0, ramp(80).map((v, i) => (i === 30 ? MISSING : v)))], 700).ctx;
    expect(missing.lines).toHaveLength(whole - 2);
    const gap = swept([block(0, ramp(30)), block(500, ramp(30))], 900).ctx;
    expect(gap.lines.every(({ from, to }) => to[0] - from[0] < 2)).toBe(true);
    const told = swept([block(0, ramp(40)), block(400, ramp(40), true)], 700).ctx;
    expect(told.lines).toHaveLength(whole - 1);
  });

  it("never draws back across the strip when the sweep begins anew", () => {
    const samples = ramp(700);
    const { ctx } = swept([block(0, samples)], 6_800);
    expect(ctx.lines.every(({ from, to }) => to[0] >= from[0])).toBe(true);
    expect(ctx.lines.length).toBeGreaterThan(600);
  });

  it("is scaled anew when the signal leaves the strip", () => {
    const channel = new Channel(1, 0);
    channel.push(block(0, [...ramp(300), ...ramp(300).map((v) => v + 500)]), 0);
    const ctx = pen();
    const sweep = new Sweep({ ...layout, scale: { kind: "auto" } });
    for (let now = 200; now <= 5_900; now += 50) sweep.step(ctx, channel, now);
    const late = ctx.lines.slice(-40).map(({ to }) => to[1] - layout.y);
    expect(late.every((y) => y > 0 && y < layout.h)).toBe(true);
  });

  it("never shows the first samples of a beating heart as a flat line", () => {
    const channel = new Channel(1, 0);
    channel.push(block(0, ramp(500)), 0);
    const ctx = pen();
    const sweep = new Sweep({ ...layout, scale: { kind: "auto" } });
    for (let now = 0; now <= 2_000; now += 5) sweep.step(ctx, channel, now);
    expect(ctx.lines.length).toBeGreaterThan(0);
    const level = ctx.lines.filter(({ from, to }) => from[1] === to[1] && from[1] === layout.y + layout.h / 2);
    expect(level).toEqual([]);
  });

  it("draws a signal that stays flat, and follows it when it rises", () => {
    const channel = new Channel(1, 0);
    channel.push(block(0, [...Array<number>(350).fill(7), ...ramp(200)]), 0);
    const ctx = pen();
    const sweep = new Sweep({ ...layout, scale: { kind: "auto" } });
    for (let now = 0; now <= 3_400; now += 20) sweep.step(ctx, channel, now);
    expect(ctx.lines.length).toBeGreaterThan(0);
    expect(new Set(ctx.lines.map(({ to }) => to[1]))).toEqual(new Set([layout.y + layout.h / 2]));
    for (let now = 3_400; now <= 5_000; now += 20) sweep.step(ctx, channel, now);
    expect(new Set(ctx.lines.slice(-20).map(({ to }) => to[1])).size).toBeGreaterThan(5);
  });

  it("is empty, not frozen, after a strip was cleared", () => {
    const channel = new Channel(1, 0);
    channel.push(block(0, ramp(100)), 0);
    const ctx = pen();
    const sweep = new Sweep(layout);
    sweep.clear(ctx);
    expect(ctx.clears).toEqual([[10, 20, 600, 100]]);
  });
});
