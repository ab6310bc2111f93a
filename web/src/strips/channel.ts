//! One waveform channel: the recent blocks, and a play position that runs evenly behind them.

import { type Frame, MISSING } from "./frame.ts";

/** How much is kept for drawing again after a resize, in ms; longer than any sweep. */
export const KEEP_MS = 30_000;
/** Added to the longest delay seen, so that an ordinary late block does not stop the sweep. */
const JITTER_MS = 200;
/** Blocks whose delay is remembered. */
const DELAYS_KEPT = 8;
/** A play position that is further off than this jumps (and the line breaks); nearer, it runs a little faster or slower. */
const JUMP_MS = 3_000;
/** Largest change of speed while catching up, as a share. */
const SLEW = 0.25;
/** Nothing heard for so long is shown as "no signal". */
export const SILENT_AFTER_MS = 5_000;

interface Block {
  startMs: number;
  endMs: number;
  stepMs: number;
  breakBefore: boolean;
  samples: Int16Array;
}

export type Visit = (atMs: number, value: number | null) => void;

export class Channel {
  readonly #blocks: Block[] = [];
  readonly #delays: number[] = [];
  #playMs: number | null = null;
  #advancedAt = 0;
  #heardAt: number | null = null;

  constructor(
    private readonly gain: number,
    private readonly offset: number,
  ) {}

  /** Takes a block. Blocks that repeat or overlap what is there are dropped. */
  push(frame: Frame, nowMs: number): void {
    const stepMs = 1_000 / frame.rate;
    const endMs = frame.startMs + frame.samples.length * stepMs;
    const last = this.#blocks.at(-1);
    if (last !== undefined && frame.startMs < last.endMs - stepMs / 2) {
      // A source that starts again from an earlier time (a replay, a clock that was set) begins anew.
      if (last.endMs - frame.startMs < JUMP_MS) return;
      this.#blocks.length = 0;
      this.#delays.length = 0;
      this.#playMs = null;
    }
    const gap = last !== undefined && frame.startMs - last.endMs > stepMs / 2;
    this.#blocks.push({ startMs: frame.startMs, endMs, stepMs, breakBefore: frame.breakBefore || gap, samples: frame.samples });
    this.#delays.push(nowMs - frame.startMs);
    if (this.#delays.length > DELAYS_KEPT) this.#delays.shift();
    this.#heardAt = nowMs;
    while ((this.#blocks[0]?.endMs ?? Infinity) < endMs - KEEP_MS) this.#blocks.shift();
  }

  /** Moves the play position on. `from` equals `to` when there is nothing to draw; `jumped` asks for a fresh line. */
  advance(nowMs: number): { from: number; to: number; jumped: boolean } | null {
    if (this.#delays.length === 0) return null;
    const target = nowMs - Math.max(...this.#delays) - JITTER_MS;
    const elapsed = Math.max(0, nowMs - this.#advancedAt);
    this.#advancedAt = nowMs;
    const from = this.#playMs;
    if (from === null || elapsed > JUMP_MS || Math.abs(target - from - elapsed) > JUMP_MS) {
      this.#playMs = target;
      return { from: target, to: target, jumped: true };
    }
    const error = target - from - elapsed;
    const to = from + elapsed + Math.max(-SLEW * elapsed, Math.min(SLEW * elapsed, error));
    this.#playMs = to;
    return { from, to, jumped: false };
  }

  get playMs(): number | null {
    return this.#playMs;
  }

  /** Whether anything was heard of late. */
  silent(nowMs: number): boolean {
    return this.#heardAt === null || nowMs - this.#heardAt > SILENT_AFTER_MS;
  }

  /** Visits the samples of `(from, to]`; `null` stands where the line must break: before a gap and for a missing sample. */
  walk(from: number, to: number, visit: Visit): void {
    for (const block of this.#blocks) {
      if (block.endMs <= from || block.startMs > to) continue;
      const first = Math.max(0, Math.floor((from - block.startMs) / block.stepMs) + 1);
      if (block.breakBefore && first === 0) visit(block.startMs, null);
      for (let i = first; i < block.samples.length; i += 1) {
        const at = block.startMs + i * block.stepMs;
        if (at > to) break;
        const raw = block.samples[i] as number;
        visit(at, raw === MISSING ? null : raw * this.gain + this.offset);
      }
    }
  }

  /** Smallest and largest value of `(from, to]`; `null` when there is none. */
  range(from: number, to: number): { min: number; max: number } | null {
    let min = Infinity;
    let max = -Infinity;
    this.walk(from, to, (_, value) => {
      if (value === null) return;
      if (value < min) min = value;
      if (value > max) max = value;
    });
    return min > max ? null : { min, max };
  }
}
