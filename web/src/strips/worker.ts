//! The drawing worker: holds the waveform socket and draws every strip of the page onto one canvas.

/// <reference lib="webworker" />

import { Channel } from "./channel.ts";
import { parseFrame } from "./frame.ts";
import type { FromWorker, StripStatus, ToWorker } from "./messages.ts";
import { type StripLayout, Sweep } from "./sweep.ts";

/** Waits between attempts to open the socket, in ms; the last one repeats. */
const RETRY_MS = [500, 1_000, 2_000, 5_000] as const;
/** The server's bound on one subscription. */
const SUBSCRIBE_MAX = 128;
const STATUS_EVERY_MS = 1_000;
/** A socket that is open but silent for so long, with something subscribed, is opened anew. */
const SOCKET_SILENT_MS = 20_000;

const scope = self as unknown as DedicatedWorkerGlobalScope;
const keyOf = (s: { patient_id: string; measure: string }) => `${s.patient_id} ${s.measure}`;

let canvas: OffscreenCanvas | null = null;
let ctx: OffscreenCanvasRenderingContext2D | null = null;
let sweeps: Sweep[] = [];
let skewMs = 0;
let socket: WebSocket | null = null;
let attempt = 0;
let heardAt = 0;
let subscribed = "";
/** By patient and measure; outlives a new subscription, so that a resize does not lose the line. */
const channels = new Map<string, { channel: Channel; unit: string; scaled: string }>();
/** The server's numbers of this socket. */
let numbers = new Map<number, string>();

function subscribe(): void {
  if (socket?.readyState !== WebSocket.OPEN) return;
  const wanted = [...new Map(sweeps.map(({ layout }) => [keyOf(layout), layout])).values()].slice(0, SUBSCRIBE_MAX);
  const text = JSON.stringify({ subscribe: wanted.map(({ patient_id, measure }) => ({ patient_id, measure })) });
  if (text === subscribed) return;
  subscribed = text;
  socket.send(text);
}

function connect(): void {
  const url = new URL("/api/v1/live/waveforms", scope.location.origin);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const mine = new WebSocket(url);
  mine.binaryType = "arraybuffer";
  socket = mine;
  heardAt = Date.now();
  mine.onopen = () => {
    subscribed = "";
    subscribe();
  };
  mine.onmessage = (message: MessageEvent<string | ArrayBuffer>) => {
    attempt = 0;
    heardAt = Date.now();
    if (typeof message.data === "string") named(message.data);
    else received(message.data);
  };
  mine.onclose = () => {
    if (socket !== mine) return;
    socket = null;
    const wait = RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)] ?? 5_000;
    attempt += 1;
    setTimeout(() => {
      if (socket === null && sweeps.length > 0) connect();
    }, wait);
  };
}

interface Named {
  channel: number;
  patient_id: string;
  measure: string;
  unit_display: string;
  gain: number;
  offset: number;
}

function named(text: string): void {
  const body = JSON.parse(text) as { channels?: Named[] };
  if (body.channels === undefined) return;
  numbers = new Map();
  for (const entry of body.channels) {
    const key = keyOf(entry);
    numbers.set(entry.channel, key);
    const scaled = `${entry.gain} ${entry.offset}`;
    if (channels.get(key)?.scaled !== scaled) {
      channels.set(key, { channel: new Channel(entry.gain, entry.offset), unit: entry.unit_display, scaled });
    }
  }
}

function received(data: ArrayBuffer): void {
  const frame = parseFrame(data);
  const key = frame === null ? undefined : numbers.get(frame.channel);
  if (frame !== null && key !== undefined) channels.get(key)?.channel.push(frame, Date.now());
}

function layout(width: number, height: number, dpr: number, strips: StripLayout[]): void {
  if (canvas === null || ctx === null) return;
  canvas.width = Math.max(1, Math.round(width * dpr));
  canvas.height = Math.max(1, Math.round(height * dpr));
  ctx.setTransform(dpr, 0, 0, dpr, 0, 0);
  sweeps = strips.map((strip) => new Sweep(strip));
  for (const key of channels.keys()) {
    if (!strips.some((strip) => keyOf(strip) === key)) channels.delete(key);
  }
  for (const sweep of sweeps) {
    const entry = channels.get(keyOf(sweep.layout));
    if (entry) sweep.redraw(ctx, entry.channel);
  }
  if (strips.length > 0 && socket === null) connect();
  subscribe();
}

function draw(): void {
  scope.requestAnimationFrame(draw);
  if (ctx === null) return;
  const now = Date.now();
  // Two strips may show one channel; it moves on once and each draws from where it was.
  for (const sweep of sweeps) {
    const entry = channels.get(keyOf(sweep.layout));
    if (entry === undefined) continue;
    if (entry.channel.silent(now)) sweep.clear(ctx);
    else sweep.step(ctx, entry.channel, now);
  }
}

function report(): void {
  const now = Date.now();
  const strips = sweeps.map(({ layout: strip }): StripStatus => {
    const entry = channels.get(keyOf(strip));
    const play = entry?.channel.playMs ?? null;
    if (entry === undefined || play === null) return { id: strip.id, state: "waiting", delay_ms: 0, unit_display: entry?.unit ?? "" };
    const state = entry.channel.silent(now) ? "silent" : "live";
    return { id: strip.id, state, delay_ms: Math.max(0, now + skewMs - play), unit_display: entry.unit };
  });
  scope.postMessage({ type: "status", strips } satisfies FromWorker);
  if (socket?.readyState === WebSocket.OPEN && sweeps.length > 0 && now - heardAt > SOCKET_SILENT_MS) socket.close();
}

scope.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if (data.type === "canvas") {
    canvas = data.canvas;
    ctx = canvas.getContext("2d");
  } else if (data.type === "layout") {
    layout(data.width, data.height, data.dpr, data.strips);
  } else {
    skewMs = data.skewMs;
  }
};

scope.requestAnimationFrame(draw);
setInterval(report, STATUS_EVERY_MS);
