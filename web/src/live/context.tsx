//! The live link and the clock, for every page: hooks over the one stream of this tab.

import { createContext, useContext, useEffect, useRef, useState, useSyncExternalStore, type ReactNode } from "react";

import { ApiError, get } from "../api/client.ts";
import { type Apply, type Followed, type LiveEvent, unfollowed, want, withEvent, withSnapshot } from "./follow.ts";
import type { LinkStatus, LiveLink } from "./link.ts";
import { order } from "./position.ts";

const LinkContext = createContext<LiveLink | null>(null);

/** Says which patient a part of a page follows, `null` when it is gone. */
type Follow = (patientId: string | null) => void;
const FollowContext = createContext<Follow>(() => undefined);

export function LinkProvider({ link, follow, children }: { link: LiveLink; follow: Follow; children: ReactNode }) {
  return (
    <FollowContext value={follow}>
      <LinkContext value={link}>{children}</LinkContext>
    </FollowContext>
  );
}

/** Follows one patient while the component stands: only a stream of that patient tells when the sight of them ends. */
export function useFollowing(patientId: string): void {
  const follow = useContext(FollowContext);
  useEffect(() => {
    follow(patientId);
    return () => follow(null);
  }, [follow, patientId]);
}

export function useLink(): LiveLink {
  const link = useContext(LinkContext);
  if (link === null) throw new Error("no live link around this component");
  return link;
}

export function useLinkStatus(): LinkStatus {
  const link = useLink();
  return useSyncExternalStore(link.onStatus, link.status);
}

/** Whether nothing on screen may be called current. */
export function useLinkLost(): boolean {
  return useLinkStatus().state === "lost";
}

/** Server time in ms since 1970, renewed each second. */
export function useNow(): number {
  const link = useLink();
  const [now, setNow] = useState(link.now);
  useEffect(() => {
    const timer = setInterval(() => setNow(link.now()), 1_000);
    return () => clearInterval(timer);
  }, [link]);
  return now;
}

export function useLiveEvent(listener: (event: LiveEvent) => void): void {
  const link = useLink();
  const latest = useRef(listener);
  latest.current = listener;
  useEffect(() => link.onEvent((event) => latest.current(event)), [link]);
}

/** Time between two drawings of what came over the stream, in milliseconds: fast enough to feel live, slow enough to read. */
const DRAW_EVERY_MS = 200;
/** Wait before a snapshot that failed is asked for again, in milliseconds. */
const SNAPSHOT_RETRY_MS = 2_000;

interface Snapshot {
  position: string;
  server_time: string;
}

/** A snapshot from `path`, kept current by the stream. */
export function useFollowed<T extends Snapshot>(path: string, apply: Apply<T>): { data: T | null; error: unknown; refetch: () => void } {
  const link = useLink();
  const [data, setData] = useState<T | null>(null);
  const [error, setError] = useState<unknown>(null);
  const refetch = useRef<() => void>(() => undefined);

  useEffect(() => {
    let state: Followed<T> = unfollowed();
    // Where the stream began: a snapshot that is older than this leaves a hole.
    let covered: string | null = null;
    let running = true;
    let fetching = false;
    let draw: ReturnType<typeof setTimeout> | null = null;
    let retry: ReturnType<typeof setTimeout> | null = null;
    const abort = new AbortController();
    setData(null);
    setError(null);

    const show = () => {
      draw ??= setTimeout(() => {
        draw = null;
        if (running) setData(state.snapshot);
      }, DRAW_EVERY_MS);
    };
    const forget = () => {
      state = unfollowed();
      if (draw !== null) clearTimeout(draw);
      draw = null;
      setData(null);
    };
    const again = (waitMs: number) => {
      retry ??= setTimeout(() => {
        retry = null;
        void fetchSnapshot();
      }, waitMs);
    };
    const fetchSnapshot = async () => {
      if (fetching || !running || retry !== null) return;
      fetching = true;
      try {
        const snapshot = await get<T>(path, abort.signal);
        link.learnServerTime(snapshot.server_time);
        if (!running) return;
        state = withSnapshot(state, snapshot, snapshot.position, apply);
        if (covered !== null && order(covered, snapshot.position) === "after") state = want(state);
        setError(null);
        setData(state.snapshot);
        if (state.wanted) again(DRAW_EVERY_MS);
      } catch (problem) {
        if (!running) return;
        setError(problem);
        // What is no longer open to this person must not stay on screen.
        if (problem instanceof ApiError && [403, 404].includes(problem.status)) forget();
        const final = problem instanceof ApiError && [401, 403, 404].includes(problem.status);
        if (!final) again(SNAPSHOT_RETRY_MS);
      } finally {
        fetching = false;
      }
    };
    const stale = () => {
      state = want(state);
      void fetchSnapshot();
    };
    refetch.current = stale;
    const stops = [
      link.onFreshStream((position) => {
        covered = position;
        if (state.snapshot !== null && !["before", "same"].includes(order(position, state.position))) stale();
      }),
      link.onEvent((event) => {
        if (event.type === "unseen") {
          forget();
          void fetchSnapshot();
          return;
        }
        const before = state;
        state = withEvent(state, event, apply);
        if (state.snapshot !== before.snapshot) show();
        if (state.wanted && !before.wanted) void fetchSnapshot();
      }),
    ];
    void fetchSnapshot();
    return () => {
      running = false;
      abort.abort();
      stops.forEach((stop) => stop());
      if (draw !== null) clearTimeout(draw);
      if (retry !== null) clearTimeout(retry);
    };
  }, [link, path, apply]);

  return { data, error, refetch: () => refetch.current() };
}
