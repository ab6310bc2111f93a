//! A snapshot kept current by events, without a hole between the two and without harm from repeats.

import { order } from "./position.ts";

export interface LiveEvent {
  /** `epoch.offset`; `null` where the server sent none. */
  id: string | null;
  type: string;
  data: unknown;
}

/** Most events held back while a snapshot is on its way; beyond, the snapshot is asked for once more. */
export const PENDING_MAX = 4_096;

export interface Followed<T> {
  snapshot: T | null;
  /** Of the last event that was applied, or of the snapshot. */
  position: string | null;
  /** A snapshot must be fetched: the first, or because something was missed. */
  wanted: boolean;
  /** Events that came since a snapshot was last wanted: what the snapshot does not yet know is applied on top. */
  pending: LiveEvent[];
  overflowed: boolean;
}

export type Apply<T> = (snapshot: T, event: LiveEvent) => T;

export function unfollowed<T>(): Followed<T> {
  return { snapshot: null, position: null, wanted: true, pending: [], overflowed: false };
}

/** The state after something says that events may have been missed. What is on screen stays until the snapshot comes. */
export function want<T>(state: Followed<T>): Followed<T> {
  return state.wanted ? state : { ...state, wanted: true, pending: [], overflowed: false };
}

/** The state after a snapshot: events that are older than it are forgotten, younger ones are applied on top. */
export function withSnapshot<T>(state: Followed<T>, snapshot: T, position: string, apply: Apply<T>): Followed<T> {
  let current = snapshot;
  let at = position;
  for (const event of state.pending) {
    const place = order(event.id, at);
    if (place === "before") continue;
    if (place === "other-epoch" && event.id !== null) {
      // The log began anew while the snapshot was on its way: what we hold may be of the old one.
      return { snapshot: current, position: at, wanted: true, pending: [], overflowed: false };
    }
    current = apply(current, event);
    if (place === "after" && event.id !== null) at = event.id;
  }
  return { snapshot: current, position: at, wanted: state.overflowed, pending: [], overflowed: false };
}

/** The state after one event. */
export function withEvent<T>(state: Followed<T>, event: LiveEvent, apply: Apply<T>): Followed<T> {
  if (["reset", "assignment", "gone"].includes(event.type)) return want(state);
  if (event.type === "hello" || event.type === "beat") {
    const { position } = (event.data ?? {}) as { position?: string };
    const moved = state.position !== null && order(position, state.position) === "other-epoch";
    return moved ? want(state) : state;
  }
  const place = state.position === null ? "after" : order(event.id, state.position);
  // Lower than what was applied already: a repeat after a reconnection.
  if (place === "before") return state;
  if (place === "other-epoch" && event.id !== null) {
    const wanting = want(state);
    return { ...wanting, ...hold(wanting, event) };
  }
  const held = state.wanted ? hold(state, event) : {};
  if (state.snapshot === null) return { ...state, ...held };
  const snapshot = apply(state.snapshot, event);
  const position = place === "after" && event.id !== null ? event.id : state.position;
  return { ...state, ...held, snapshot, position };
}

function hold<T>(state: Followed<T>, event: LiveEvent): Pick<Followed<T>, "pending" | "overflowed"> {
  if (state.pending.length >= PENDING_MAX) return { pending: state.pending, overflowed: true };
  return { pending: [...state.pending, event], overflowed: state.overflowed };
}
