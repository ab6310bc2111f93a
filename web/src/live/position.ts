//! Positions in the server's event log: `epoch.offset`. Offsets compare only within one epoch.

export type Order = "before" | "same" | "after" | "other-epoch";

export interface Position {
  epoch: string;
  offset: number;
}

/** `null` for text that is no position. */
export function parsePosition(text: string | null | undefined): Position | null {
  const cut = text?.lastIndexOf(".") ?? -1;
  if (!text || cut <= 0) return null;
  const digits = text.slice(cut + 1);
  if (!/^\d{1,15}$/.test(digits)) return null;
  return { epoch: text.slice(0, cut), offset: Number(digits) };
}

/** Where `a` stands relative to `b`; unreadable positions count as another epoch, which is answered with a fresh snapshot. */
export function order(a: string | null | undefined, b: string | null | undefined): Order {
  const [left, right] = [parsePosition(a), parsePosition(b)];
  if (!left || !right || left.epoch !== right.epoch) return "other-epoch";
  if (left.offset === right.offset) return "same";
  return left.offset < right.offset ? "before" : "after";
}
