//! The stream: repeats, disorder, resets and silence leave neither a hole nor an old value on screen.

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { Alert, Board, Vital } from "../api/types.ts";
import { applyToBoard, mergeAlert, mergeVitals } from "./apply.ts";
import { type Followed, type LiveEvent, PENDING_MAX, unfollowed, withEvent, withSnapshot } from "./follow.ts";
import { isLost, LiveLink, LOST_AFTER_MS } from "./link.ts";
import { order, parsePosition } from "./position.ts";

describe("positions", () => {
  it("compare within one epoch only", () => {
    expect(parsePosition("e.1.42")).toEqual({ epoch: "e.1", offset: 42 });
    expect(order("e.9", "e.10")).toBe("before");
    expect(order("e.10", "e.10")).toBe("same");
    expect(order("e.11", "e.10")).toBe("after");
    expect(order("f.11", "e.10")).toBe("other-epoch");
    expect(order("rubbish", "e.10")).toBe("other-epoch");
  });
});

/** A followed list of the events' words. */
interface Words {
  words: string[];
}
const add = (snapshot: Words, event: LiveEvent): Words => ({ words: [...snapshot.words, event.data as string] });
const word = (id: string | null, data: string): LiveEvent => ({ id, type: "vitals", data });
const from = (position: string): Followed<Words> => withSnapshot(unfollowed<Words>(), { words: [] }, position, add);
const feed = (state: Followed<Words>, ...events: LiveEvent[]) => events.reduce((s, event) => withEvent(s, event, add), state);

describe("a snapshot with events on top", () => {
  it("applies what is newer, in order", () => {
    const state = feed(from("e.10"), word("e.11", "a"), word("e.12", "b"));
    expect(state.snapshot?.words).toEqual(["a", "b"]);
    expect(state.position).toBe("e.12");
  });

  it("ignores repeats after a reconnection", () => {
    const state = feed(from("e.10"), word("e.11", "a"), word("e.12", "b"), word("e.11", "a"), word("e.9", "old"));
    expect(state.snapshot?.words).toEqual(["a", "b"]);
  });

  it("takes several events of one commit", () => {
    expect(feed(from("e.10"), word("e.11", "bed 1"), word("e.11", "bed 2")).snapshot?.words).toEqual(["bed 1", "bed 2"]);
  });

  it("holds events back while the snapshot is on its way, and drops those the snapshot knows", () => {
    const early = feed(unfollowed<Words>(), word("e.5", "known"), word("e.7", "new"));
    expect(early.snapshot).toBeNull();
    const state = withSnapshot(early, { words: ["snapshot"] }, "e.6", add);
    expect(state.snapshot?.words).toEqual(["snapshot", "new"]);
    expect(state).toMatchObject({ position: "e.7", wanted: false });
  });

  it("wants a new snapshot after a reset, and keeps the screen until it comes", () => {
    const reset = feed(from("e.10"), word("e.11", "a"), { id: "e.90", type: "reset", data: { position: "e.90" } });
    expect(reset).toMatchObject({ wanted: true, snapshot: { words: ["a"] } });
    const later = feed(reset, word("e.91", "after"));
    expect(withSnapshot(later, { words: ["fresh"] }, "e.90", add).snapshot?.words).toEqual(["fresh", "after"]);
  });

  it("wants a new snapshot when the server's log began anew, told by an event or by a beat", () => {
    expect(feed(from("e.10"), word("f.1", "x")).wanted).toBe(true);
    expect(feed(from("e.10"), { id: null, type: "beat", data: { position: "f.1" } }).wanted).toBe(true);
    expect(feed(from("e.10"), { id: null, type: "beat", data: { position: "e.10" } }).wanted).toBe(false);
    expect(feed(from("e.10"), { id: "e.11", type: "assignment", data: {} }).wanted).toBe(true);
    expect(feed(from("e.10"), { id: null, type: "gone", data: { patient_id: "p" } }).wanted).toBe(true);
  });

  it("asks once more when more was held back than fits", () => {
    let state = unfollowed<Words>();
    for (let i = 1; i <= PENDING_MAX + 1; i += 1) state = withEvent(state, word(`e.${i}`, "x"), add);
    expect(state.pending).toHaveLength(PENDING_MAX);
    expect(withSnapshot(state, { words: [] }, "e.0", add).wanted).toBe(true);
  });
});

const vital = (measured_at: string, value: string, device_id = "d") => ({ measure: "heart_rate", device_id, measured_at, value }) as Vital;
const alert = (id: string, state: Alert["state"], steps: number) => ({ id, state, condition_active: true, patient: { id: "p1" }, device: { id: "d" }, steps: Array(steps).fill({}) }) as unknown as Alert;
const board = (): Board =>
  ({
    ward: { id: "w", name: "W" },
    position: "e.1",
    server_time: "",
    tiles: ["p1", "p2"].map((id) => ({ place: { id: `bed ${id}` }, patient: { id }, devices: [{ id: `d ${id}`, link: "live", last_heard_at: "2026-11-22T09:00:00Z" }], vitals: [], strips: [], alerts: [] })),
  }) as unknown as Board;

describe("what an event changes", () => {
  it("keeps the newest value of each device, whatever the order of arrival", () => {
    const [older, newer] = [vital("2026-11-22T09:00:00Z", "70"), vital("2026-11-22T09:00:05Z", "71")];
    expect(mergeVitals(mergeVitals([], [newer]), [older])).toEqual([newer]);
    expect(mergeVitals(mergeVitals([], [older]), [newer])).toEqual([newer]);
    expect(mergeVitals([older], [vital("2026-11-22T09:00:01Z", "90", "other")])).toHaveLength(2);
  });

  it("lets a value of now take the place of one that claims to be of the future", () => {
    const ahead = vital("2026-11-22T09:04:00Z", "44");
    const live = { ...vital("2026-11-22T09:00:00Z", "120"), received_at: "2026-11-22T09:00:01Z", findings: [] } as Vital;
    expect(mergeVitals([ahead], [live])).toEqual([live]);
    const late = { ...live, findings: [{ name: "late", text: "measured well before it was received" }] } as Vital;
    expect(mergeVitals([ahead], [late])).toEqual([ahead]);
  });

  it("compares instants, not text", () => {
    const known = vital("2026-11-22T09:00:00.500Z", "70");
    expect(mergeVitals([known], [vital("2026-11-22T09:00:00Z", "69")])).toEqual([known]);
  });

  it("touches the one tile it concerns", () => {
    const before = board();
    const after = applyToBoard(before, { id: "e.2", type: "vitals", data: { patient_id: "p2", place_id: "bed p2", vitals: [vital("2026-11-22T09:00:00Z", "70")] } });
    expect(after.tiles[0]).toBe(before.tiles[0]);
    expect(after.tiles[1]?.vitals).toHaveLength(1);
    expect(applyToBoard(before, { id: "e.2", type: "vitals", data: { patient_id: "elsewhere", place_id: null, vitals: [] } })).toBe(before);
  });

  it("adds, answers and removes alerts, and never undoes an answer", () => {
    const [raised, acknowledged, resolved] = [alert("a", "raised", 1), alert("a", "acknowledged", 2), alert("a", "resolved", 3)];
    expect(mergeAlert([], raised)).toEqual([raised]);
    expect(mergeAlert([acknowledged], raised)).toEqual([acknowledged]);
    expect(mergeAlert([raised], resolved)).toEqual([]);
    expect(mergeAlert([], resolved)).toEqual([]);
    const after = applyToBoard(board(), { id: "e.2", type: "alert", data: raised });
    expect(after.tiles.map((tile) => tile.alerts.length)).toEqual([1, 0]);
  });

  it("marks a device silent, but not from an event older than what is known", () => {
    const device = (last_heard_at: string) => ({ id: "e.2", type: "device", data: { id: "d p1", link: "silent", last_heard_at } });
    expect(applyToBoard(board(), device("2026-11-22T09:00:00Z")).tiles[0]?.devices[0]?.link).toBe("silent");
    expect(applyToBoard(board(), device("2026-11-22T08:00:00Z")).tiles[0]?.devices[0]?.link).toBe("live");
  });
});

/** An event source that the test speaks through. */
class FakeSource extends EventTarget {
  static all: FakeSource[] = [];
  readyState = 1;
  constructor(readonly path: string) {
    super();
    FakeSource.all.push(this);
  }
  close() {
    this.readyState = 2;
  }
  say(type: string, data: unknown, id = "") {
    this.dispatchEvent(Object.assign(new Event(type), { data: JSON.stringify(data), lastEventId: id }));
  }
  refuse() {
    this.readyState = 2;
    this.dispatchEvent(new Event("error"));
  }
  static get last(): FakeSource {
    return this.all.at(-1) as FakeSource;
  }
}

describe("the link", () => {
  let link: LiveLink;
  beforeEach(() => {
    vi.useFakeTimers({ now: Date.parse("2026-11-22T09:00:00Z") });
    FakeSource.all = [];
    link = new LiveLink((path) => new FakeSource(path) as unknown as EventSource);
    link.setScope("?ward=w");
  });
  afterEach(() => {
    link.close();
    vi.useRealTimers();
  });

  it("is lost after ten seconds without an event, and live again with the next", () => {
    FakeSource.last.say("hello", { position: "e.1", server_time: "2026-11-22T09:00:00Z" });
    expect(link.status().state).toBe("live");
    vi.advanceTimersByTime(LOST_AFTER_MS);
    expect(link.status().state).toBe("live");
    vi.advanceTimersByTime(2_000);
    expect(link.status()).toEqual({ state: "lost", lastEventAt: Date.parse("2026-11-22T09:00:00Z") });
    FakeSource.last.say("beat", { position: "e.1", server_time: "2026-11-22T09:00:12Z" });
    expect(link.status().state).toBe("live");
    expect(isLost(0, LOST_AFTER_MS)).toBe(false);
    expect(isLost(0, LOST_AFTER_MS + 1)).toBe(true);
  });

  it("is lost when not one event ever came", () => {
    vi.advanceTimersByTime(LOST_AFTER_MS + 2_000);
    expect(link.status().state).toBe("lost");
  });

  it("opens a silent stream anew, and says where the new one begins", () => {
    const begins: (string | null)[] = [];
    link.onFreshStream((position) => begins.push(position));
    FakeSource.last.say("hello", { position: "e.1" });
    vi.advanceTimersByTime(20_000);
    expect(FakeSource.all.length).toBeGreaterThan(1);
    FakeSource.last.say("hello", { position: "e.7" });
    expect(begins).toEqual(["e.1", "e.7"]);
  });

  it("stays lost while reopening: opening is no sign of life", () => {
    FakeSource.last.say("hello", { position: "e.1" });
    vi.advanceTimersByTime(17_000);
    expect(FakeSource.all.length).toBeGreaterThan(1);
    expect(link.status().state).toBe("lost");
  });

  it("tries again after a refusal, and tells of it, so that the session can be looked at", () => {
    const refused = vi.fn();
    link.onRefused(refused);
    FakeSource.last.refuse();
    expect(refused).toHaveBeenCalledOnce();
    vi.advanceTimersByTime(600);
    expect(FakeSource.all).toHaveLength(2);
  });

  it("hears nothing of a scope that was left", () => {
    const first = FakeSource.last;
    const heard = vi.fn();
    link.onEvent(heard);
    link.setScope("?ward=other");
    first.say("vitals", {}, "e.2");
    expect(heard).not.toHaveBeenCalled();
    expect(FakeSource.last.path).toBe("/api/v1/live?ward=other");
  });

  it("counts ages by the server's clock", () => {
    FakeSource.last.say("hello", { position: "e.1", server_time: "2026-11-22T09:05:00Z" });
    expect(link.now()).toBe(Date.parse("2026-11-22T09:05:00Z"));
    link.learnServerTime("2026-11-22T09:04:59Z");
    expect(link.now()).toBe(Date.parse("2026-11-22T09:05:00Z"));
    link.learnServerTime("2026-11-22T08:00:00Z");
    expect(link.now()).toBe(Date.parse("2026-11-22T08:00:00Z"));
  });

  it("survives half an event", () => {
    const heard = vi.fn();
    link.onEvent(heard);
    FakeSource.last.dispatchEvent(Object.assign(new Event("vitals"), { data: "{", lastEventId: "e.2" }));
    expect(heard).not.toHaveBeenCalled();
  });
});
