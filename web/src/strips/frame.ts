//! One binary frame of the waveform lane: header of 24 bytes, then 16-bit samples, all little endian.

export const HEADER_BYTES = 24;
/** The sample that means "nothing was measured here". */
export const MISSING = -32_768;

export interface Frame {
  channel: number;
  /** Samples were lost or skipped before this block: the line must break. */
  breakBefore: boolean;
  /** Time of the first sample, ms since 1970. */
  startMs: number;
  /** Samples per second. */
  rate: number;
  samples: Int16Array;
}

/** `null` for bytes that are not a whole frame of version 1: they are dropped, never guessed at. */
export function parseFrame(buffer: ArrayBuffer): Frame | null {
  if (buffer.byteLength < HEADER_BYTES) return null;
  const view = new DataView(buffer);
  const count = view.getUint16(2, true);
  const denominator = view.getUint32(20, true);
  const rate = view.getUint32(16, true) / denominator;
  if (view.getUint8(0) !== 1 || buffer.byteLength !== HEADER_BYTES + count * 2) return null;
  if (count === 0 || !Number.isFinite(rate) || rate <= 0) return null;
  const samples = new Int16Array(count);
  for (let i = 0; i < count; i += 1) samples[i] = view.getInt16(HEADER_BYTES + i * 2, true);
  return {
    channel: view.getUint32(4, true),
    breakBefore: (view.getUint8(1) & 1) === 1,
    startMs: Number(view.getBigInt64(8, true)) / 1_000,
    rate,
    samples,
  };
}

/** Samples of the history answer: base64 of 16-bit little endian. */
export function decodeSamples(base64: string): Int16Array {
  const text = atob(base64);
  const samples = new Int16Array(text.length >> 1);
  for (let i = 0; i < samples.length; i += 1) {
    const unsigned = text.charCodeAt(2 * i) | (text.charCodeAt(2 * i + 1) << 8);
    samples[i] = (unsigned << 16) >> 16;
  }
  return samples;
}
