//! The one way to call the API: a fresh proof asked for once, however many requests wait; the end of a session told apart from other refusals.

import { afterEach, describe, expect, it, vi } from "vitest";

import { ApiError, get, onSessionEnded, onStepUpNeeded, post, remove } from "./client.ts";

const answer = (status: number, body: unknown) => new Response(status === 204 ? null : JSON.stringify(body), { status });
const refused = (status: number, code: string) => answer(status, { status, code, title: code });

afterEach(() => vi.unstubAllGlobals());

describe("a fresh proof", () => {
  it("is asked for once for all requests that wait, and each is then repeated", async () => {
    let fresh = false;
    const calls = vi.fn(async () => (fresh ? answer(200, { done: true }) : refused(403, "step-up-needed")));
    vi.stubGlobal("fetch", calls);
    const prove = vi.fn(async () => (fresh = true));
    const stop = onStepUpNeeded(prove);
    expect(await Promise.all([post("/a"), post("/b"), get("/c")])).toEqual([{ done: true }, { done: true }, { done: true }]);
    expect(prove).toHaveBeenCalledTimes(1);
    expect(calls).toHaveBeenCalledTimes(6);
    stop();
  });

  it("that is declined leaves the act undone and says so", async () => {
    const calls = vi.fn(async () => refused(403, "step-up-needed"));
    vi.stubGlobal("fetch", calls);
    const stop = onStepUpNeeded(async () => false);
    await expect(post("/a")).rejects.toMatchObject({ code: "not-proved" });
    expect(calls).toHaveBeenCalledTimes(1);
    stop();
  });

  it("is not asked for a second time by the same request", async () => {
    vi.stubGlobal("fetch", async () => refused(403, "step-up-needed"));
    const prove = vi.fn(async () => true);
    const stop = onStepUpNeeded(prove);
    await expect(post("/a")).rejects.toMatchObject({ code: "step-up-needed" });
    expect(prove).toHaveBeenCalledTimes(1);
    stop();
  });
});

describe("an answer with status 401", () => {
  it("ends the session when it says so, and only then", async () => {
    const ended = vi.fn();
    const stop = onSessionEnded(ended);
    for (const code of ["bad-credentials", "bad-code"]) {
      vi.stubGlobal("fetch", async () => refused(401, code));
      await expect(post("/sign-in")).rejects.toBeInstanceOf(ApiError);
    }
    expect(ended).not.toHaveBeenCalled();
    vi.stubGlobal("fetch", async () => refused(401, "signed-out"));
    await expect(get("/wards")).rejects.toBeInstanceOf(ApiError);
    vi.stubGlobal("fetch", async () => new Response("<html>", { status: 401 }));
    await expect(get("/wards")).rejects.toBeInstanceOf(ApiError);
    expect(ended).toHaveBeenCalledTimes(2);
    stop();
  });
});

it("an answer without a body is no failure", async () => {
  vi.stubGlobal("fetch", async () => answer(204, null));
  expect(await remove("/grants/1")).toBeUndefined();
});
