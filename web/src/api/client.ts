//! One way to call the API: JSON in and out, problem documents as typed errors, the end of a session noticed everywhere.

/** Longest wait for an answer before the call is given up, in milliseconds: longer than any page should ever take. */
export const REQUEST_TIMEOUT_MS = 20_000;

export class ApiError extends Error {
  constructor(
    readonly status: number,
    /** Stable word, e.g. `already-answered`; `unreachable` where no answer came. */
    readonly code: string,
    readonly title: string,
    readonly detail: string,
    readonly retryAfterS: number | null = null,
  ) {
    super(detail || title);
    this.name = "ApiError";
  }
}

/** So long after the last touch of mouse, screen or key a page counts as unattended, in milliseconds. */
const UNATTENDED_AFTER_MS = 60_000;

let touchedAt = Date.now();
if (typeof window !== "undefined") {
  for (const type of ["pointerdown", "pointermove", "keydown", "wheel"]) {
    window.addEventListener(type, () => (touchedAt = Date.now()), { passive: true, capture: true });
  }
}

/** Asks the person to prove themselves again. Resolves to `true` when they did. */
type Prove = () => Promise<boolean>;
let prover: Prove | null = null;
let proving: Promise<boolean> | null = null;

/** Says who asks for a fresh proof when an act needs one. Returns the way to stop. */
export function onStepUpNeeded(prove: Prove): () => void {
  prover = prove;
  return () => {
    if (prover === prove) prover = null;
  };
}

/** One question at a time, however many requests wait for its answer. */
function proved(): Promise<boolean> {
  proving ??= (prover?.() ?? Promise.resolve(false)).finally(() => (proving = null));
  return proving;
}

type Ended = () => void;
const sessionListeners = new Set<Ended>();

/** Calls `listener` when any answer says that the session is over. Returns the way to stop. */
export function onSessionEnded(listener: Ended): () => void {
  sessionListeners.add(listener);
  return () => sessionListeners.delete(listener);
}

async function problem(response: Response): Promise<ApiError> {
  let body: Record<string, unknown> = {};
  try {
    body = (await response.json()) as Record<string, unknown>;
  } catch {
    // A proxy's HTML page: the status is all there is.
  }
  const word = (key: string, otherwise: string) => (typeof body[key] === "string" ? (body[key] as string) : otherwise);
  const retry = typeof body["retry_after_s"] === "number" ? (body["retry_after_s"] as number) : null;
  return new ApiError(
    response.status,
    word("code", `http-${response.status}`),
    word("title", `The server answered ${response.status}`),
    word("detail", ""),
    retry,
  );
}

/** Answers with status 401 that do not mean that a session is over say so by another code. */
const ENDED_CODES = new Set(["signed-out", "http-401"]);

/** What a request carries: nothing, or text of some kind. */
interface Sent {
  text: string | null;
  kind: string;
}

const json = (body: unknown): Sent => ({ text: JSON.stringify(body), kind: "application/json" });
const NOTHING: Sent = { text: null, kind: "application/json" };

async function call<T>(method: string, path: string, body: Sent, signal?: AbortSignal): Promise<T> {
  try {
    return await once<T>(method, path, body, signal);
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== "step-up-needed" || prover === null) throw error;
    if (!(await proved())) {
      throw new ApiError(403, "not-proved", "You did not confirm that it is you", "Nothing was changed.");
    }
    return once<T>(method, path, body, signal);
  }
}

async function once<T>(method: string, path: string, body: Sent, signal?: AbortSignal): Promise<T> {
  const timeout = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
  const headers: Record<string, string> = { accept: "application/json" };
  // What a page asks by itself must not keep the session of somebody who has left.
  if (Date.now() - touchedAt > UNATTENDED_AFTER_MS) headers["x-auscult-unattended"] = "1";
  if (method !== "GET") {
    headers["content-type"] = body.kind;
    headers["x-auscult"] = "1";
  }
  let response: Response;
  try {
    response = await fetch(`/api/v1${path}`, {
      method,
      headers,
      body: body.text,
      credentials: "same-origin",
      cache: "no-store",
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new ApiError(0, "unreachable", "The server cannot be reached", "Check the network; nothing was changed that is not shown.");
  }
  if (!response.ok) {
    const error = await problem(response);
    if (error.status === 401 && ENDED_CODES.has(error.code)) sessionListeners.forEach((tell) => tell());
    throw error;
  }
  if (response.status === 204) return undefined as T;
  return (await response.json()) as T;
}

export const get = <T>(path: string, signal?: AbortSignal) => call<T>("GET", path, NOTHING, signal);
export const post = <T>(path: string, body: unknown = {}) => call<T>("POST", path, json(body));
export const postText = <T>(path: string, text: string, kind: string) => call<T>("POST", path, { text, kind });
export const put = <T>(path: string, body: unknown) => call<T>("PUT", path, json(body));
export const remove = <T>(path: string, body: unknown = {}) => call<T>("DELETE", path, json(body));

/** A query string; entries that are null or empty are left out. */
export function query(entries: Record<string, string | number | null | undefined>): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(entries)) {
    if (value !== null && value !== undefined && value !== "") search.set(key, String(value));
  }
  const text = search.toString();
  return text ? `?${text}` : "";
}

/** Begins with a capital, ends with a stop. */
const sentence = (text: string): string => text.charAt(0).toLocaleUpperCase() + text.slice(1).replace(/[^.!?…]$/, "$&.");

/** What to tell a person about a failure. */
export function explain(error: unknown): string {
  if (error instanceof ApiError) {
    const wait = error.retryAfterS === null ? "" : ` Try again in ${Math.ceil(error.retryAfterS)} s.`;
    const sentences = [error.title, error.detail === error.title ? "" : error.detail].filter(Boolean).map(sentence);
    return `${sentences.join(" ")}${wait}`;
  }
  return error instanceof Error ? error.message : "Something failed.";
}
