//! The erase-bar sweep: which pixel a sample falls on, what is erased ahead of it, and where the line must break.

import type { Channel } from "./channel.ts";

/** Width of the empty bar that runs ahead of the newest sample, as a share of the strip. */
const BAR_SHARE = 0.04;
const BAR_MIN_PX = 6;
/** Room left above and below an automatically scaled line, as a share of its height. */
const MARGIN = 0.12;
/** An automatic scale is kept until the signal's height has changed by this share: a line that breathes cannot be read. */
const RESCALE_AT = 0.25;
/** So long after the first sample the scale is chosen once more: by then two heartbeats were seen. */
const SETTLE_MS = 2_500;
/** A signal that was outside the strip for so long is scaled anew at once, in ms: what is cut off cannot be read. */
const OUTSIDE_MS = 400;

/** How values become heights: to fill the strip, or with a fixed gain about the middle of the signal. */
export type Scale = { kind: "auto" } | { kind: "gain"; pxPerUnit: number };

export interface StripLayout {
  id: string;
  patient_id: string;
  measure: string;
  /** Place on the canvas, in CSS pixels. */
  x: number;
  y: number;
  w: number;
  h: number;
  color: string;
  /** Time from the left edge to the right edge. */
  windowMs: number;
  scale: Scale;
}

/** What the sweep needs of a 2-D context; tests give it a recorder. */
export type Pen = Pick<
  CanvasRenderingContext2D,
  "save" | "restore" | "beginPath" | "rect" | "clip" | "clearRect" | "moveTo" | "lineTo" | "stroke" | "strokeStyle" | "lineWidth" | "lineJoin" | "lineCap"
>;

/** Distance from the left edge of the strip in pixels: the sweep begins anew with each window of time. */
export function xOf(atMs: number, windowMs: number, widthPx: number): number {
  const phase = (((atMs % windowMs) + windowMs) % windowMs) / windowMs;
  return phase * widthPx;
}

/** Distance from the top edge; larger values are higher. Never outside the strip. */
export function yOf(value: number, mapping: Mapping, heightPx: number): number {
  const y = heightPx / 2 - (value - mapping.centre) * mapping.pxPerUnit;
  return Math.max(0, Math.min(heightPx, y));
}

export interface Mapping {
  centre: number;
  pxPerUnit: number;
}

/** The mapping that shows `range` with a margin; a flat line lies in the middle. */
export function fit(range: { min: number; max: number }, heightPx: number): Mapping {
  const span = range.max - range.min;
  const centre = (range.max + range.min) / 2;
  return { centre, pxPerUnit: span > 0 ? (heightPx * (1 - 2 * MARGIN)) / span : 0 };
}

/** Whether a new mapping differs enough to be worth a jump of the picture. */
export function differs(old: Mapping, next: Mapping, heightPx: number): boolean {
  if (old.pxPerUnit === 0 || next.pxPerUnit === 0) return old.pxPerUnit !== next.pxPerUnit || old.centre !== next.centre;
  const height = Math.abs(next.pxPerUnit / old.pxPerUnit - 1) > RESCALE_AT;
  return height || Math.abs(next.centre - old.centre) * old.pxPerUnit > heightPx * RESCALE_AT;
}

/**
 * What to erase for a step, as one or two spans from the strip's left edge: the step itself and the bar ahead of it.
 * The pixel where the last step ended keeps half of its line.
 */
export function eraseSpans(fromX: number, toX: number, wrapped: boolean, barPx: number, widthPx: number): [number, number][] {
  const unwrapped = wrapped ? toX + widthPx : toX;
  const start = fromX + Math.min(1, (unwrapped - fromX) / 2);
  const end = unwrapped + barPx;
  if (end - start >= widthPx) return [[0, widthPx]];
  if (end <= widthPx) return [[start, end]];
  return start >= widthPx ? [[0, end - widthPx]] : [[start, widthPx], [0, end - widthPx]];
}

export class Sweep {
  #mapping: Mapping | null = null;
  /** When the first mapping is looked at once more: it was made from very little. */
  #settlesAt: number | null = null;
  /** For how long the signal has been outside the strip since the scale was chosen, in ms. */
  #outsideMs = 0;
  #pen: { x: number; y: number } | null = null;
  #drawnTo: number | null = null;

  constructor(readonly layout: StripLayout) {}

  /** Draws what the play position passed since the last call. */
  step(ctx: Pen, channel: Channel, nowMs: number): void {
    const moved = channel.advance(nowMs);
    if (moved === null) return;
    const settles = this.#outsideMs > OUTSIDE_MS || (this.#settlesAt !== null && moved.to >= this.#settlesAt);
    if (moved.jumped || this.#drawnTo === null || settles || this.#rises(channel, moved.to)) this.redraw(ctx, channel, settles);
    else this.#draw(ctx, channel, this.#drawnTo, moved.to);
  }

  /** Clears the strip and draws the last window again: after a resize, when the play position jumped, for a better scale. */
  redraw(ctx: Pen, channel: Channel, settled = false): void {
    const { x, y, w, h, windowMs } = this.layout;
    ctx.clearRect(x, y, w, h);
    this.#pen = null;
    this.#mapping = null;
    this.#outsideMs = 0;
    const to = channel.playMs;
    if (to === null) return;
    const bar = this.#barPx();
    this.#draw(ctx, channel, to - windowMs * (1 - bar / w), to);
    if (settled) this.#settlesAt = null;
  }

  /** Empties the strip: what is no longer live must not look as if it were. */
  clear(ctx: Pen): void {
    const { x, y, w, h } = this.layout;
    ctx.clearRect(x, y, w, h);
    this.#pen = null;
    this.#drawnTo = null;
  }

  /** Whether a line that was flat has a height now: drawn with the old scale it would stay flat, and look like a heart that stands. */
  #rises(channel: Channel, to: number): boolean {
    if (this.#mapping?.pxPerUnit !== 0 || this.layout.scale.kind !== "auto") return false;
    const range = channel.range(to - this.layout.windowMs, to);
    return range !== null && range.max > range.min;
  }

  #barPx(): number {
    return Math.max(BAR_MIN_PX, this.layout.w * BAR_SHARE);
  }

  #rescale(channel: Channel, to: number): Mapping | null {
    const { scale, h, windowMs } = this.layout;
    const range = channel.range(to - windowMs, to);
    if (range === null) return this.#mapping;
    const next = scale.kind === "auto" ? fit(range, h) : { ...fit(range, h), pxPerUnit: scale.pxPerUnit };
    if (this.#mapping === null) this.#settlesAt ??= to + SETTLE_MS;
    return this.#mapping !== null && !differs(this.#mapping, next, h) ? this.#mapping : next;
  }

  #draw(ctx: Pen, channel: Channel, from: number, to: number): void {
    const { x, y, w, h, windowMs, color } = this.layout;
    const [fromX, toX] = [xOf(from, windowMs, w), xOf(to, windowMs, w)];
    const wrapped = toX < fromX;
    if (this.#mapping === null || wrapped) this.#mapping = this.#rescale(channel, to);
    // One sample has no height: whether the line is flat is known only later. Until then nothing is drawn.
    if (this.layout.scale.kind === "auto" && this.#mapping?.pxPerUnit === 0 && this.#settlesAt !== null && to < this.#settlesAt) {
      this.#mapping = null;
      this.#drawnTo = to;
      return;
    }
    // Nothing measured yet, nothing to draw.
    const mapping = this.#mapping ?? { centre: 0, pxPerUnit: 0 };

    ctx.save();
    ctx.beginPath();
    ctx.rect(x, y, w, h);
    ctx.clip();
    for (const [left, right] of eraseSpans(fromX, toX, wrapped, this.#barPx(), w)) ctx.clearRect(x + left, y, right - left, h);
    ctx.beginPath();
    ctx.strokeStyle = color;
    ctx.lineWidth = 1.5;
    ctx.lineJoin = "round";
    ctx.lineCap = "round";
    let last = from;
    let pen = this.#pen;
    if (pen !== null) ctx.moveTo(x + pen.x, y + pen.y);
    channel.walk(from, to, (at, value) => {
      if (value === null) {
        pen = null;
        return;
      }
      const next = { x: xOf(at, windowMs, w), y: yOf(value, mapping, h) };
      if (next.y === 0 || next.y === h) this.#outsideMs += at - last;
      last = at;
      // A new turn of the sweep begins at the left edge, never with a line across the strip.
      if (pen === null || next.x < pen.x) ctx.moveTo(x + next.x, y + next.y);
      else ctx.lineTo(x + next.x, y + next.y);
      pen = next;
    });
    ctx.stroke();
    ctx.restore();
    this.#pen = pen;
    this.#drawnTo = to;
  }
}
