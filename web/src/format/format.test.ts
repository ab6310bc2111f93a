//! Dates, ages, values and alerts as people read them.

import { describe, expect, it } from "vitest";

import type { Alert, PatientLine, Vital } from "../api/types.ts";
import { byUrgency, laterAlert, openAlerts, spokenAlert, stars, stateText } from "./alerts.ts";
import { bornText, fullName, initials } from "./people.ts";
import { ageText, agoText, birthDateText, clockText, dateText, fromDateField, fromLocalField, instantText, patientAge, toLocalField, withReadableTimes } from "./time.ts";
import { absentText, freshness, hasNoValue, pick, slots, spokenVital, valueText } from "./vitals.ts";

const at = new Date(2026, 10, 2, 4, 5, 6);

describe("times", () => {
  it("writes dates as dd-Mmm-yyyy and times on the 24-hour clock", () => {
    expect(dateText(at)).toBe("02-Nov-2026");
    expect(clockText(new Date(2026, 0, 1, 23, 59, 1))).toBe("23:59:01");
    expect(clockText(at, false)).toBe("04:05");
    expect(instantText("no time")).toBe("time not known");
    expect(instantText(null)).toBe("time not known");
  });

  it("reads back what it shows, and nothing else", () => {
    expect(fromLocalField(toLocalField(at))).toBe(at.toISOString());
    expect(fromLocalField(" 02-nov-2026 4:05 ")).toBe(new Date(2026, 10, 2, 4, 5, 0).toISOString());
    for (const bad of ["", "02-Nov-2026", "31-Feb-2026 10:00", "02-Nov-2026 24:00", "02/11/2026 10:00", "02-Nov-2026 10:60"]) expect(fromLocalField(bad)).toBeNull();
    expect(fromDateField("29-Feb-2024")).toBe("2024-02-29");
    expect(fromDateField("29-Feb-2023")).toBeNull();
  });

  it("writes birth dates without a zone and ages in the steps of a banner", () => {
    expect(birthDateText("1945-07-14")).toBe("14-Jul-1945");
    expect(birthDateText(null)).toBe("Not Known");
    expect(birthDateText("1945-13-14")).toBe("Not Known");
    const today = new Date(2026, 6, 13);
    expect(patientAge("1945-07-14", today)).toBe("80y");
    expect(patientAge("1945-07-13", today)).toBe("81y");
    expect(patientAge("2026-07-01", today)).toBe("12d");
    expect(patientAge("2026-05-01", today)).toBe("10w");
    expect(patientAge("2025-02-28", today)).toBe("16m");
    expect(patientAge("2027-01-01", today)).toBeNull();
    expect(bornText("1945-07-14", today)).toBe("14-Jul-1945 (80y)");
    expect(bornText(null, today)).toBe("Not Known");
  });

  it("puts instants in sentences into words, and leaves what has no zone alone", () => {
    expect(withReadableTimes(`Device silent since ${at.toISOString()}; again`)).toBe("Device silent since 02-Nov-2026 04:05:06; again");
    expect(withReadableTimes("2026-11-22T10:52:36 by its own clock")).toBe("2026-11-22T10:52:36 by its own clock");
  });

  it("says how old something is", () => {
    expect([0, 0.9, 1, 99, 100, 5_999, 6_000, 172_799, 172_800].map(ageText)).toEqual(["now", "now", "1 s", "99 s", "1 min", "99 min", "1 h", "47 h", "2 d"]);
    expect(ageText(-30)).toBe("in 30 s");
    expect(agoText(90)).toBe("90 s ago");
    expect(agoText(0)).toBe("just now");
  });
});

describe("people", () => {
  const patient = { family: "Müller", given: "Anna" } as PatientLine;
  it("names a patient in full or by initials", () => {
    expect(fullName(patient)).toBe("MÜLLER, Anna");
    expect(initials(patient)).toBe("M. A.");
    expect(initials({ family: "", given: "𝒜da" })).toBe("𝒜.");
  });
});

const now = Date.parse("2026-11-22T09:00:00Z");
const vital = (change: Partial<Vital> = {}): Vital => ({
  measure: "heart_rate",
  short: "HR",
  display: "Heart rate",
  value: "72",
  absent: null,
  unit: "/min",
  unit_display: "/min",
  measured_at: "2026-11-22T08:59:50Z",
  received_at: "2026-11-22T08:59:51Z",
  committed_at: "2026-11-22T08:59:51Z",
  device_id: "d",
  stale_after_s: 15,
  findings: [],
  observation_id: "o",
  components: [],
  ...change,
});

describe("values", () => {
  it("are stale when they are older than their limit, and all of them while the link is lost", () => {
    expect(freshness(vital(), now, false)).toEqual({ ageS: 10, stale: false, text: "10 s" });
    expect(freshness(vital({ stale_after_s: 9 }), now, false).stale).toBe(true);
    expect(freshness(vital(), now, true).stale).toBe(true);
    expect(freshness(vital({ measured_at: "?" }), now, false)).toMatchObject({ stale: true, text: "age not known" });
  });

  it("keep the device's digits, and show what is missing as missing", () => {
    expect(valueText(vital({ value: "36.50" }))).toBe("36.50");
    expect(valueText(vital({ value: null, absent: "not-a-number" }))).toBe("—");
    expect(hasNoValue(vital({ value: null }))).toBe(true);
    expect(absentText("not-a-number")).toBe("no valid measurement");
    expect(absentText("sensor-fell-off")).toBe("sensor fell off");
    expect(absentText(null)).toBe("not sent");
  });

  it("show a pressure with its parts", () => {
    const part = (measure: string, value: string | null) => ({ measure, short: measure, value, absent: null, findings: [] });
    const panel = (sys: string | null, dia: string | null, mean: string | null) =>
      vital({ measure: "blood_pressure", value: null, components: [part("systolic", sys), part("diastolic", dia), part("mean_pressure", mean)] });
    expect(valueText(panel("120", "80", "93"))).toBe("120/80 (93)");
    expect(valueText(panel("120", null, null))).toBe("120/—");
    // A mean that was computed finer than it was measured; exact where its origin is shown.
    expect(valueText(panel("120", "80", "93.33"))).toBe("120/80 (93)");
    expect(valueText(panel("120", "80", "93.33"), true)).toBe("120/80 (93.33)");
    expect(valueText(panel("16.0", "10.7", "12.47"))).toBe("16.0/10.7 (12.5)");
    expect(valueText(panel("120", "80", "e"))).toBe("120/80 (e)");
    expect(hasNoValue(panel(null, null, null))).toBe(true);
    expect(hasNoValue(panel(null, "80", null))).toBe(false);
  });

  it("are spoken with unit and age", () => {
    expect(spokenVital(vital(), now, false)).toBe("Heart rate 72 /min, 10 s old");
    expect(spokenVital(vital({ stale_after_s: 1 }), now, false)).toBe("Heart rate 72 /min, stale, 10 s old");
  });

  it("give way to a current value of the same kind when they are stale", () => {
    const rate = vital({ measured_at: "2026-11-22T08:00:00Z", observation_id: "rate" });
    const pulse = vital({ measure: "pulse_rate_oximeter", observation_id: "pulse" });
    expect(pick([rate, pulse], ["heart_rate", "pulse_rate_oximeter"], now)?.observation_id).toBe("pulse");
    expect(pick([vital(), pulse], ["heart_rate", "pulse_rate_oximeter"], now)?.observation_id).toBe("o");
    expect(pick([rate], ["heart_rate", "pulse_rate_oximeter"], now)?.observation_id).toBe("rate");
    expect(pick([], ["heart_rate"], now)).toBeNull();
  });

  it("stand in fixed places of a tile", () => {
    const old = vital({ observation_id: "old", measured_at: "2026-11-22T08:00:00Z" });
    expect(pick([old, vital()], ["heart_rate"], now)?.observation_id).toBe("o");
    expect(slots({ vitals: [] }, now).map(({ label, vital }) => [label, vital])).toEqual(["HR", "SpO₂", "RR", "NIBP", "Temp"].map((label) => [label, null]));
    const glucose = vital({ measure: "glucose", short: "Gluc" });
    expect(slots({ vitals: [glucose] }, now).map(({ label }) => label)).toEqual(["HR", "SpO₂", "Gluc", "NIBP", "Temp"]);
    expect(slots({ vitals: [vital({ measure: "battery_level", short: "Batt" })] }, now).every(({ vital }) => vital === null)).toBe(true);
  });
});

const alert = (change: Partial<Alert> = {}): Alert => ({
  id: "a",
  priority: "high",
  technical: false,
  state: "raised",
  condition_active: true,
  latched: false,
  kind: "threshold",
  text: "HR 134 > 120 /min",
  patient: null,
  place: null,
  device: { id: "d", name: "Monitor 07" },
  raised_at: "2026-11-22T08:00:00Z",
  condition_ended_at: null,
  steps: [{ state: "raised", at: "2026-11-22T08:00:00Z", by: null, note: null }],
  ...change,
});
const acknowledged = alert({ state: "acknowledged", steps: [...alert().steps, { state: "acknowledged", at: "2026-11-22T08:01:00Z", by: null, note: null }] });

describe("alerts", () => {
  it("say with symbol and words what the colour says", () => {
    expect((["high", "medium", "low"] as const).map(stars)).toEqual(["***", "**", "*"]);
    expect(spokenAlert(alert())).toBe("High priority alert: HR 134 > 120 /min. Not acknowledged.");
    expect(spokenAlert(alert({ priority: "low", technical: true }))).toContain("Low priority technical alert");
  });

  it("keep the condition and the answer apart", () => {
    expect(stateText(alert({ condition_active: false, latched: true }))).toBe("Not acknowledged, condition ended (latched)");
    expect(stateText(acknowledged)).toBe("Acknowledged");
    expect(stateText({ ...acknowledged, condition_active: false })).toBe("Acknowledged, condition ended");
  });

  it("stand with the unanswered first, then by priority, then the newest", () => {
    const low = alert({ id: "low", priority: "low" });
    const newer = alert({ id: "newer", raised_at: "2026-11-22T08:30:00Z" });
    const taken = { ...acknowledged, id: "taken" };
    const closed = alert({ id: "closed", state: "resolved" });
    expect([taken, low, alert(), newer].sort(byUrgency).map(({ id }) => id)).toEqual(["newer", "a", "low", "taken"]);
    expect(openAlerts([closed, low]).map(({ id }) => id)).toEqual(["low"]);
  });

  it("never go back to an earlier step", () => {
    expect(laterAlert(acknowledged, alert())).toBe(acknowledged);
    expect(laterAlert(alert(), acknowledged)).toBe(acknowledged);
    const ended = alert({ condition_active: false });
    expect(laterAlert(ended, alert())).toBe(ended);
  });
});
