//! The play position, and blocks that come late, twice, or out of order.

import { describe, expect, it } from "vitest";

import { Channel, SILENT_AFTER_MS } from "./channel.ts";
import { decodeSamples, HEADER_BYTES, parseFrame } from "./frame.ts";

const block = (startMs: number, count = 100, rate = 100) => ({ channel: 1, breakBefore: false, startMs, rate, samples: new Int16Array(count).fill(7) });

function times(channel: Channel, from: number, to: number): number[] {
  const seen: number[] = [];
  channel.walk(from, to, (at, value) => value !== null && seen.push(at));
  return seen;
}

describe("blocks", () => {
  it("drops a block that came before", () => {
    const channel = new Channel(1, 0);
    channel.push(block(0), 0);
    channel.push(block(0), 10);
    channel.push(block(1_000), 1_000);
    expect(times(channel, -1, 2_000)).toHaveLength(200);
  });

  it("visits each sample once, whatever the steps", () => {
    const channel = new Channel(1, 0);
    channel.push(block(0), 0);
    const seen = [times(channel, -1, 333), times(channel, 333, 340), times(channel, 340, 990)].flat();
    expect(seen).toEqual(times(channel, -1, 990));
    expect(new Set(seen).size).toBe(100);
  });

  it("begins anew when the source's time goes back", () => {
    const channel = new Channel(1, 0);
    channel.push(block(100_000), 0);
    channel.push(block(10_000), 10);
    expect(times(channel, 0, 200_000)[0]).toBe(10_000);
  });
});

describe("the play position", () => {
  it("runs as fast as time, behind the longest delay", () => {
    const channel = new Channel(1, 0);
    channel.push(block(10_000), 11_500);
    const first = channel.advance(11_500);
    expect(first?.jumped).toBe(true);
    const second = channel.advance(11_516);
    expect(second && second.to - second.from).toBeCloseTo(16, 6);
    expect(channel.playMs).toBeLessThan(10_000);
  });

  it("slows down instead of jumping back when a block is late", () => {
    const channel = new Channel(1, 0);
    channel.push(block(0), 1_000);
    channel.advance(1_000);
    channel.push(block(1_000), 2_500);
    let last = channel.advance(2_500)?.to ?? 0;
    for (let now = 2_516; now < 5_000; now += 16) {
      const moved = channel.advance(now);
      expect(moved?.jumped).toBe(false);
      expect(moved?.to).toBeGreaterThanOrEqual(last);
      last = moved?.to ?? last;
    }
  });

  it("jumps after a pause that cannot be caught up, such as a sleeping tab", () => {
    const channel = new Channel(1, 0);
    channel.push(block(0), 0);
    channel.advance(0);
    channel.push(block(60_000), 50_000);
    expect(channel.advance(60_000)?.jumped).toBe(true);
  });

  it("says when nothing was heard of late", () => {
    const channel = new Channel(1, 0);
    expect(channel.silent(0)).toBe(true);
    channel.push(block(0), 1_000);
    expect(channel.silent(1_000 + SILENT_AFTER_MS)).toBe(false);
    expect(channel.silent(1_001 + SILENT_AFTER_MS)).toBe(true);
  });
});

describe("frames", () => {
  function frame(count: number, change: (view: DataView) => void = () => undefined): ArrayBuffer {
    const buffer = new ArrayBuffer(HEADER_BYTES + count * 2);
    const view = new DataView(buffer);
    view.setUint8(0, 1);
    view.setUint16(2, count, true);
    view.setUint32(4, 9, true);
    view.setBigInt64(8, 1_700_000_000_123_456n, true);
    view.setUint32(16, 1_000, true);
    view.setUint32(20, 4, true);
    for (let i = 0; i < count; i += 1) view.setInt16(HEADER_BYTES + 2 * i, i - 1, true);
    change(view);
    return buffer;
  }

  it("reads every field of the header", () => {
    const read = parseFrame(frame(3, (view) => view.setUint8(1, 1)));
    expect(read).toMatchObject({ channel: 9, breakBefore: true, startMs: 1_700_000_000_123.456, rate: 250 });
    expect([...(read?.samples ?? [])]).toEqual([-1, 0, 1]);
  });

  it("refuses what is not whole", () => {
    expect(parseFrame(new ArrayBuffer(10))).toBeNull();
    expect(parseFrame(frame(3).slice(0, -1))).toBeNull();
    expect(parseFrame(frame(3, (view) => view.setUint8(0, 2)))).toBeNull();
    expect(parseFrame(frame(3, (view) => view.setUint32(20, 0, true)))).toBeNull();
    expect(parseFrame(frame(0))).toBeNull();
  });

  it("decodes the samples of the history", () => {
    expect([...decodeSamples(btoa("\x01\x00\xff\xff\x00\x80"))]).toEqual([1, -1, -32_768]);
  });
});
