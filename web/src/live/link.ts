//! The one event stream of this tab: opens it for a scope, hands events on, and says when it can no longer be believed.

import type { LiveEvent } from "./follow.ts";

/** No event for so long means that the link is lost: the server beats every 5 s. */
export const LOST_AFTER_MS = 10_000;
/** A stream that is open but silent for so long is opened anew. */
const REOPEN_AFTER_MS = 15_000;
/** Waits between attempts after the browser gave up, in milliseconds; the last one repeats. */
const RETRY_MS = [500, 1_000, 2_000, 5_000] as const;

const EVENTS = ["hello", "vitals", "alert", "device", "quarantine", "assignment", "beat", "reset", "signed-out", "break-glass", "unseen", "gone"] as const;

/** `EventSource.CLOSED`. */
const CLOSED = 2;

export type LinkState = "connecting" | "live" | "lost";

export interface LinkStatus {
  state: LinkState;
  /** Local time of the last event, in ms since 1970; `null` before the first. */
  lastEventAt: number | null;
}

/** Whether the link counts as lost, from the last sign of life (an event, or the moment of opening). */
export function isLost(lastSignAt: number, nowMs: number): boolean {
  return nowMs - lastSignAt > LOST_AFTER_MS;
}

type Listener = (event: LiveEvent) => void;

export class LiveLink {
  #scope: string | null = null;
  #source: EventSource | null = null;
  #attempt = 0;
  #retry: ReturnType<typeof setTimeout> | null = null;
  #lastSignAt = 0;
  #openedAt = 0;
  #status: LinkStatus = { state: "connecting", lastEventAt: null };
  #skewMs: number | null = null;
  readonly #events = new Set<Listener>();
  readonly #changes = new Set<() => void>();
  readonly #opened = new Set<(position: string | null) => void>();
  readonly #refused = new Set<() => void>();
  readonly #watch: ReturnType<typeof setInterval>;
  #closed = false;

  constructor(private readonly open: (path: string) => EventSource = (path) => new EventSource(path)) {
    this.#watch = setInterval(() => this.#check(), 1_000);
  }

  /** Follows `/live` with this query string (`""`, `?ward=…`, `?patient=…`); `null` for none. */
  setScope(scope: string | null): void {
    if (scope === this.#scope) return;
    this.#scope = scope;
    this.#attempt = 0;
    this.#connect();
  }

  readonly status = (): LinkStatus => this.#status;

  /** Now by the server's clock, in ms since 1970: a viewer's wrong clock must not change an age. */
  readonly now = (): number => Date.now() + (this.#skewMs ?? 0);

  /** Learns the server's clock from an answer or event; the smallest delay seen is the best estimate. */
  learnServerTime(iso: string | undefined): void {
    const server = Date.parse(iso ?? "");
    if (Number.isNaN(server)) return;
    const skew = server - Date.now();
    // An answer that was delayed shows a skew that is too small; one that jumps by more than 2 s is a clock that was set.
    if (this.#skewMs === null || skew > this.#skewMs || this.#skewMs - skew > 2_000) this.#skewMs = skew;
  }

  onEvent(listener: Listener): () => void {
    this.#events.add(listener);
    return () => this.#events.delete(listener);
  }

  onStatus = (listener: () => void): (() => void) => {
    this.#changes.add(listener);
    return () => this.#changes.delete(listener);
  };

  /** Called for each stream that begins without a `Last-Event-ID`: whatever happened before its position must be fetched. */
  onFreshStream(listener: (position: string | null) => void): () => void {
    this.#opened.add(listener);
    return () => this.#opened.delete(listener);
  }

  /** Called when the server refused the stream: the session may be over. */
  onRefused(listener: () => void): () => void {
    this.#refused.add(listener);
    return () => this.#refused.delete(listener);
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#watch);
    this.#disconnect();
    this.#events.clear();
    this.#changes.clear();
    this.#opened.clear();
    this.#refused.clear();
  }

  #disconnect(): void {
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#retry = null;
    this.#source?.close();
    this.#source = null;
  }

  #connect(): void {
    this.#disconnect();
    if (this.#scope === null || this.#closed) return;
    const now = Date.now();
    this.#openedAt = now;
    if (this.#status.state === "live" || this.#lastSignAt === 0) this.#lastSignAt = now;
    if (this.#status.lastEventAt === null) this.#set({ state: "connecting", lastEventAt: null });
    const source = this.open(`/api/v1/live${this.#scope}`);
    this.#source = source;
    let first = true;
    for (const type of EVENTS) {
      source.addEventListener(type, (message) => {
        if (source !== this.#source) return;
        const event = parse(type, message as MessageEvent<string>);
        if (event === null) return;
        this.#alive(event);
        if (first) {
          first = false;
          const { position } = event.data as { position?: string };
          this.#opened.forEach((tell) => tell(position ?? null));
        }
        this.#events.forEach((tell) => tell(event));
      });
    }
    source.addEventListener("error", () => {
      // The browser resumes by itself (readyState CONNECTING); a refusal or a bad answer closes for good.
      if (source !== this.#source || source.readyState !== CLOSED) return;
      this.#refused.forEach((tell) => tell());
      this.#retryLater();
    });
  }

  #retryLater(): void {
    if (this.#retry !== null || this.#closed) return;
    const wait = RETRY_MS[Math.min(this.#attempt, RETRY_MS.length - 1)] ?? 5_000;
    this.#attempt += 1;
    this.#retry = setTimeout(() => {
      this.#retry = null;
      this.#connect();
    }, wait);
  }

  #alive(event: LiveEvent): void {
    this.#attempt = 0;
    this.#lastSignAt = Date.now();
    if (event.type === "hello" || event.type === "beat") {
      this.learnServerTime((event.data as { server_time?: string }).server_time);
    }
    if (this.#status.state !== "live") this.#set({ state: "live", lastEventAt: this.#lastSignAt });
    else this.#status.lastEventAt = this.#lastSignAt;
  }

  #check(): void {
    if (this.#scope === null) return;
    const now = Date.now();
    if (!isLost(this.#lastSignAt, now)) return;
    if (this.#status.state !== "lost") this.#set({ state: "lost", lastEventAt: this.#status.lastEventAt });
    const silent = now - Math.max(this.#lastSignAt, this.#openedAt);
    if (silent > REOPEN_AFTER_MS && this.#retry === null) this.#connect();
  }

  #set(status: LinkStatus): void {
    this.#status = status;
    this.#changes.forEach((tell) => tell());
  }
}

function parse(type: string, message: MessageEvent<string>): LiveEvent | null {
  try {
    return { id: message.lastEventId || null, type, data: JSON.parse(message.data || "{}") };
  } catch {
    // Half an event cannot be believed; the next snapshot will tell.
    return null;
  }
}
