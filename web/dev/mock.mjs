#!/usr/bin/env node
//! Development only, never shipped: answers the JSON API with invented moving data, so that the app can be worked on
//! without the server. `node dev/mock.mjs demo --port 0 --print-json` also serves `dist/` as the server would.

import { createHash, randomUUID } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join } from "node:path";

import { trustMock } from "./mock-trust.mjs";

const DIST = new URL("../dist/", import.meta.url).pathname;
const port = Number(process.argv[process.argv.indexOf("--port") + 1] || 8787);
const printJson = process.argv.includes("--print-json");
const EPOCH = "e" + Math.floor(Date.now() / 1000).toString(36);
const now = () => new Date().toISOString();
const ago = (s) => new Date(Date.now() - s * 1000).toISOString();
let offset = 100;
let setupNeeded = process.argv.includes("--setup");

// --- people and things ---------------------------------------------------------------------------------------------
const ward = { id: randomUUID(), name: "Ward 3 North" };
const ward2 = { id: randomUUID(), name: "Home monitoring" };
const FAMILIES = "Okafor Lindqvist Moreau Tanaka Novak Brennan Haddad Petrov Silva Nguyen Kowalska Abebe Rossi Larsen Müller Castillo Yilmaz Fischer Mensah O’Neill Ivanova Costa-Fernandes Wright Zhang".split(" ");
const GIVEN = "Ada Björn Claire Daiki Eva Fergus Gamal Hanna Inês Jun Katarzyna Liya Marco Nora Otto Paula Rana Stefan Ama Tiernan Vera Beatriz Noah Mei".split(" ");
const beds = [...Array(24)].map((_, i) => ({ id: randomUUID(), name: `Bed ${String(i + 1).padStart(2, "0")}`, kind: "bed", ward_id: ward.id }));
const home = { id: randomUUID(), name: "Home 01", kind: "home", ward_id: ward2.id };
const patients = beds.map((place, i) =>
  i === 10 || i === 19 ? null : {
    id: randomUUID(), family: FAMILIES[i], given: GIVEN[i], birth_date: `${1934 + i * 3}-0${1 + (i % 9)}-1${i % 10}`,
    gender: i % 2 ? "male" : "female", record_number: `MRN-${100200 + i * 37}`, place, ward_id: ward.id, active: true,
  });
patients.push({ id: randomUUID(), family: "Holm", given: "Sigrid", birth_date: "1951-03-09", gender: "female", record_number: "MRN-900001", place: home, ward_id: ward2.id, active: true });
const devices = [];
const device = (name, kind, model, battery) => {
  const d = { id: randomUUID(), name, kind, model, link: "live", last_heard_at: now(), battery_percent: battery, expected_interval_s: 10,
    manufacturer: "Demo Instruments", serial: `SN${4000 + devices.length}`, clock: { rule: "trust" }, utc_offset_min: 0, retired: false, at_most_once: false,
    waiting_in_quarantine: 0, assignment: null, assignments: [], version: 1 };
  devices.push(d);
  return d;
};
const assign = (d, p, start) => {
  d.assignment = { id: randomUUID(), device_id: d.id, subject: { kind: "patient", id: p.id, label: `${p.family.toUpperCase()}, ${p.given}` }, start, end: null };
  d.assignments.unshift(d.assignment);
};
const pub = ({ id, name, kind, model, link, last_heard_at, battery_percent, expected_interval_s }) => ({ id, name, kind, model, link, last_heard_at, battery_percent, expected_interval_s });
const tiles = [...beds, home].map((place, i) => {
  const patient = patients[i] ?? null;
  const d = patient ? device(`Monitor ${String(i + 1).padStart(2, "0")}`, "bedside monitor", "DM-80", i % 5 === 3 ? String(12 + i) : "96") : null;
  if (d) assign(d, patient, ago(86_400 * 2));
  return { place, patient, d, seed: i, base: { hr: 62 + ((i * 17) % 50), spo2: 92 + (i % 7), rr: 12 + (i % 9), sys: 100 + ((i * 13) % 55), temp: 36.2 + (i % 6) * 0.3 }, vitals: new Map(), alerts: [] };
});
const lost = device("Cuff 31", "blood pressure cuff", "BP-2", "64");
const silentTile = tiles[6];
const RANGE = { heart_rate: ["HR", "Heart rate", "/min", "/min", 15], oxygen_saturation: ["SpO₂", "Oxygen saturation", "%", "%", 15], respiratory_rate: ["RR", "Respiratory rate", "/min", "/min", 30],
  blood_pressure: ["NIBP", "Blood pressure", "mm[Hg]", "mmHg", 1800], body_temperature: ["Temp", "Body temperature", "Cel", "°C", 3600] };
const observations = new Map();
const vital = (tile, measure, value, components, ageS = 0, findings = []) => {
  const [short, display, unit, unit_display, stale_after_s] = RANGE[measure];
  const v = { measure, short, display, value, absent: value === null && !components ? "not-a-number" : null, unit, unit_display, measured_at: ago(ageS + 0.4), received_at: ago(ageS + 0.2), committed_at: ago(ageS + 0.1),
    device_id: tile.d.id, stale_after_s, findings, observation_id: "o" + randomUUID().replaceAll("-", ""), components: components ?? [] };
  tile.vitals.set(measure, v);
  observations.set(v.observation_id, { v, tile });
  if (observations.size > 5000) observations.delete(observations.keys().next().value);
  return v;
};
const wave = (seed, t) => Math.sin(t / 17 + seed) + 0.5 * Math.sin(t / 5.3 + seed * 2);
const bp = (tile) => ["systolic", "diastolic", "mean_pressure"].map((measure, k) => ({ measure, short: ["Sys", "Dia", "Mean"][k], value: String([tile.base.sys, Math.round(tile.base.sys * 0.62), Math.round(tile.base.sys * 0.75)][k]), absent: null, findings: [] }));
const PATIENT = (p) => p && { ...p };
const raise = (tile, priority, technical, kind, text, state = "raised", conditionActive = true) => {
  const a = { id: randomUUID(), priority, technical, state: "raised", condition_active: conditionActive, latched: !conditionActive, kind, text, patient: PATIENT(tile.patient), place: tile.place,
    device: { id: tile.d.id, name: tile.d.name }, raised_at: ago(95), condition_ended_at: conditionActive ? null : ago(20), steps: [{ state: "raised", at: ago(95), by: null, note: null }] };
  if (state === "acknowledged") { a.state = state; a.steps.push({ state, at: ago(60), by: { id: "u1", display: "Nurse Demo" }, note: "On my way" }); }
  tile.alerts.push(a);
  allAlerts.unshift(a);
  return a;
};
const allAlerts = [];
for (const t of tiles) {
  if (!t.d) continue;
  const age = t === silentTile ? 400 : 0;
  vital(t, "heart_rate", String(t.base.hr), null, age);
  vital(t, "oxygen_saturation", t.seed === 13 ? null : String(t.base.spo2), null, age, t.seed === 13 ? [{ name: "sensor-off", text: "the sensor is off or displaced" }] : []);
  if (t.seed !== 4) vital(t, "respiratory_rate", String(t.base.rr), null, age);
  vital(t, "blood_pressure", null, bp(t), 200 + t.seed * 90, t.seed === 2 ? [{ name: "body-movement", text: "the body moved" }] : []);
  vital(t, "body_temperature", t.base.temp.toFixed(1), null, 500 + t.seed * 200);
}
raise(tiles[2], "high", false, "threshold", "HR 134 > 120 /min");
raise(tiles[2], "medium", false, "threshold", "RR 27 > 24 /min");
raise(tiles[8], "medium", false, "threshold", "SpO₂ 89 < 90 %");
raise(tiles[14], "high", false, "threshold", "SpO₂ 81 < 85 %", "acknowledged");
raise(tiles[21], "medium", false, "threshold", "HR 49 < 50 /min", "raised", false);
silentTile.d.link = "silent";
silentTile.d.last_heard_at = ago(400);
raise(silentTile, "low", true, "device-silent", "Monitor 07: nothing heard for 6 min");
raise(tiles[3], "low", true, "battery-low", "Monitor 04 battery 15 %");

// --- quarantine, audit ---------------------------------------------------------------------------------------------
const hexOf = (text) => Buffer.from(text).toString("hex");
const bpHex = "1e7800500060 00ea070b16090f00 4800 01 0000".replaceAll(" ", "");
const BP_FIELDS = [
  { offset: 0, length: 1, name: "flags", raw_hex: "1e", meaning: "mmHg, time stamp, pulse rate, user id, status" }, { offset: 1, length: 2, name: "systolic", raw_hex: "7800", meaning: "120 mmHg" },
  { offset: 3, length: 2, name: "diastolic", raw_hex: "5000", meaning: "80 mmHg" }, { offset: 5, length: 2, name: "mean pressure", raw_hex: "6000", meaning: "96 mmHg" },
  { offset: 7, length: 7, name: "time stamp", raw_hex: "ea070b16090f00", meaning: "2026-11-22 09:15:00, local" }, { offset: 14, length: 2, name: "pulse rate", raw_hex: "4800", meaning: "72 /min" },
  { offset: 16, length: 1, name: "user id", raw_hex: "01", meaning: "1" }, { offset: 17, length: 2, name: "measurement status", raw_hex: "0000", meaning: "nothing wrong" }];
const json = '{"v":1,"id":"7f","t":"1970-01-01T00:03:11Z","heart_rate":{"value":71,"unit":"/min"}}';
const quarantine = [
  ...[0, 1, 2].map((i) => ({ id: randomUUID(), device: { id: lost.id, name: lost.name }, kind: "gatt/2a35", received_at: ago(3600 - i * 60), reason: "unassigned", what: "The device was assigned to nobody at 22-Nov-2026 09:15:00", offset: 0, size_bytes: 19, state: "waiting", hex: bpHex, explained: BP_FIELDS })),
  { id: randomUUID(), device: { id: tiles[0].d.id, name: tiles[0].d.name }, kind: "envelope", received_at: ago(900), reason: "clock", what: "The device's time 1970-01-01T00:03:11Z is before 2000", offset: json.indexOf("1970"), size_bytes: json.length, state: "waiting", hex: hexOf(json), explained: [{ offset: json.indexOf("1970"), length: 20, name: "t", raw_hex: hexOf("1970-01-01T00:03:11Z"), meaning: "time of measurement: 01-Jan-1970 00:03:11 UTC" }] },
  { id: randomUUID(), device: { id: tiles[5].d.id, name: tiles[5].d.name }, kind: "gatt/2a5e", received_at: ago(5400), reason: "undecodable", what: "The record ends after 3 of 5 bytes", offset: 3, size_bytes: 3, state: "waiting", hex: "006200", explained: [{ offset: 0, length: 1, name: "flags", raw_hex: "00", meaning: "no optional fields" }, { offset: 1, length: 2, name: "SpO₂", raw_hex: "6200", meaning: "98 %" }] },
];
lost.waiting_in_quarantine = 3;
const qPub = ({ hex, explained, ...item }) => item;
const audit = [];
const log = (action, patient, object, detail, outcome = "success") =>
  audit.unshift({ sequence: audit.length + 1, at: now(), actor: { kind: "user", id: "u-demo", label: "Dr. A. Rossi" }, purpose: "TREAT", break_glass: action === "read" && audit.length % 9 === 4 ? "g1" : null, policies: [], role: "administrator", address: "10.0.3.7", provable: audit.length < 55, action, outcome, patient: patient && { id: patient.id, label: `${patient.family.toUpperCase()}, ${patient.given}` }, device: null, object, detail });
for (let i = 0; i < 60; i += 1) log(["read", "read", "acknowledge", "sign-in"][i % 4], i % 4 < 3 ? tiles[i % 9].patient : null, ["ward-board", "patient", "alert", "session"][i % 4], null, i % 17 === 5 ? "refused" : "success");
const limits = new Map();
const limitsOf = (id) => limits.get(id) ?? [["heart_rate", 50, 120, "high"], ["oxygen_saturation", 90, null, "high"], ["respiratory_rate", 8, 24, "medium"], ["systolic", 90, 180, "medium"], ["body_temperature", 35, 39, "low"]]
  .map(([measure, low, high, priority]) => ({ measure, low, high, priority, persistence_s: 10, hysteresis: 2 }));

// --- live ----------------------------------------------------------------------------------------------------------
const streams = new Set();
const backlog = [];
const sessions = new Map();
const emit = (type, data, about = {}) => {
  offset += 1;
  const e = { id: `${EPOCH}.${offset}`, type, data, about };
  backlog.push(e);
  if (backlog.length > 500) backlog.shift();
  for (const s of streams) send(s, e);
};
const concerns = (s, { about }) => (!s.ward || !about.ward_id || about.ward_id === s.ward) && (!s.patient || !about.patient_id || about.patient_id === s.patient);
const send = (s, e) => concerns(s, e) && s.res.write(`id: ${e.id}\nevent: ${e.type}\ndata: ${JSON.stringify(e.data)}\n\n`);
const aboutTile = (t) => ({ ward_id: t.place.ward_id, patient_id: t.patient?.id });
const emitAlert = (a) => emit("alert", a, { ward_id: a.place?.ward_id, patient_id: a.patient?.id });
let tick = 0;
setInterval(() => {
  if (process.env.MOCK_FREEZE === "1") return;
  tick += 1;
  for (const t of tiles) {
    if (!t.d || t === silentTile) continue;
    if ((tick + t.seed) % 2) continue;
    const w = wave(t.seed, tick);
    const out = [vital(t, "heart_rate", String(Math.round(t.base.hr + w * 3)), null)];
    if (t.seed !== 13) out.push(vital(t, "oxygen_saturation", String(Math.min(100, Math.round(t.base.spo2 + w))), null));
    if (t.seed !== 4) out.push(vital(t, "respiratory_rate", String(Math.round(t.base.rr + w)), null));
    t.d.last_heard_at = now();
    emit("vitals", { patient_id: t.patient.id, place_id: t.place.id, vitals: out }, aboutTile(t));
  }
  if (tick % 5 === 0) for (const s of streams) send(s, { id: `${EPOCH}.${offset}`, type: "beat", data: { position: `${EPOCH}.${offset}`, server_time: now() }, about: {} });
  if (tick % 25 === 12) {
    const t = tiles[(tick * 7) % 24];
    if (t.d) emitAlert(raise(t, ["low", "medium", "high"][tick % 3], false, "threshold", `HR ${t.base.hr + 60} > 120 /min`));
  }
}, 1000).unref();

// --- waveforms -----------------------------------------------------------------------------------------------------
const sockets = new Set();
const ecg = (t, hr) => { const p = ((t * hr) / 60) % 1; const g = (c, w, a) => a * Math.exp(-((p - c) ** 2) / (2 * w * w)); return g(0.18, 0.022, 0.12) + g(0.285, 0.008, -0.12) + g(0.3, 0.009, 1.1) + g(0.318, 0.009, -0.25) + g(0.52, 0.04, 0.28); };
const pleth = (t, hr) => { const p = ((t * hr) / 60) % 1; return Math.exp(-((p - 0.3) ** 2) / 0.012) + 0.4 * Math.exp(-((p - 0.58) ** 2) / 0.01); };
const sampleAt = (tile, measure, t) => measure === "ecg_ii" ? ecg(t, tile.base.hr) + 0.03 * Math.sin(t * 0.9) : pleth(t + 0.2, tile.base.hr);
const RATE = { ecg_ii: 250, plethysmogram: 125 };
const GAIN = { ecg_ii: 0.002, plethysmogram: 0.0005 };
function wsSend(socket, opcode, payload) {
  const n = payload.length;
  const head = n < 126 ? Buffer.from([0x80 | opcode, n]) : n < 65536 ? Buffer.from([0x80 | opcode, 126, n >> 8, n & 255]) : null;
  if (head) socket.write(Buffer.concat([head, payload]));
}
function wsData(client, chunk) {
  client.buffer = Buffer.concat([client.buffer, chunk]);
  while (client.buffer.length >= 2) {
    const b = client.buffer;
    let n = b[1] & 127, at = 2;
    if (n === 126) { if (b.length < 4) return; n = b.readUInt16BE(2); at = 4; }
    if (b.length < at + 4 + n) return;
    const mask = b.subarray(at, at + 4);
    const payload = Buffer.from(b.subarray(at + 4, at + 4 + n).map((x, i) => x ^ mask[i % 4]));
    client.buffer = b.subarray(at + 4 + n);
    if ((b[0] & 15) === 8) { client.socket.end(); return; }
    if ((b[0] & 15) !== 1) continue;
    const { subscribe } = JSON.parse(payload.toString());
    client.channels = subscribe.flatMap(({ patient_id, measure }, i) => { const tile = tiles.find((t) => t.patient?.id === patient_id); return tile && RATE[measure] ? [{ channel: i + 1, tile, measure, next: Math.floor(Date.now() / 1000) }] : []; });
    wsSend(client.socket, 1, Buffer.from(JSON.stringify({ channels: client.channels.map(({ channel, tile, measure }) => ({ channel, patient_id: tile.patient.id, measure, unit_display: measure === "ecg_ii" ? "mV" : "", gain: GAIN[measure], offset: 0 })) })));
  }
}
setInterval(() => {
  for (const client of sockets) for (const c of client.channels) {
    if (c.tile === silentTile) continue;
    while (c.next + 1 <= Date.now() / 1000) {
      const n = RATE[c.measure], b = Buffer.alloc(24 + n * 2);
      const gap = c.tile.seed === 5 && c.next % 7 === 0;
      b[0] = 1; b[1] = c.tile.seed === 5 && c.next % 7 === 1 ? 1 : 0; b.writeUInt16LE(n, 2); b.writeUInt32LE(c.channel, 4); b.writeBigInt64LE(BigInt(c.next) * 1_000_000n, 8); b.writeUInt32LE(n, 16); b.writeUInt32LE(1, 20);
      for (let i = 0; i < n; i += 1) b.writeInt16LE(Math.round(sampleAt(c.tile, c.measure, c.next + i / n) / GAIN[c.measure]), 24 + i * 2);
      if (!gap) wsSend(client.socket, 2, b);
      c.next += 1;
    }
  }
}, 200).unref();

// --- http ----------------------------------------------------------------------------------------------------------
const fail = (status, code, title, detail = "", more = {}) => ({ status, body: { type: `urn:auscult:${code}`, title, status, code, detail, ...more } });
const trust = trustMock({ patients, devices, wards: [ward, ward2], fail });
const sessionBody = (s) => trust.sessionBody(s ? sessions.get(s) : null, setupNeeded);
const cookieOf = (req) => /auscult=([\w-]+)/.exec(req.headers.cookie ?? "")?.[1];
const tileOf = (id) => tiles.find((t) => t.patient?.id === id);
const tileOut = (t) => ({ place: t.place, patient: PATIENT(t.patient), devices: t.d ? [pub(t.d)] : [], vitals: [...t.vitals.values()], strips: t.d && t.place.kind === "bed" ? [{ measure: "ecg_ii", short: "II", device_id: t.d.id }, { measure: "plethysmogram", short: "Pleth", device_id: t.d.id }] : [], alerts: t.alerts.filter((a) => a.state !== "resolved") });
const position = () => `${EPOCH}.${offset}`;
const valueAt = (tile, measure, ms) => { const w = wave(tile.seed, ms / 60_000) * 4 + wave(tile.seed * 3, ms / 6_000) * 1.5; const b = tile.base; return { heart_rate: b.hr + w, oxygen_saturation: Math.min(100, b.spo2 + w / 4), respiratory_rate: b.rr + w / 3, body_temperature: b.temp + w / 20, systolic: b.sys + w, diastolic: b.sys * 0.62 + w, mean_pressure: b.sys * 0.75 + w }[measure] ?? 0; };

function route(method, url, body, session, req) {
  const p = url.pathname.replace("/api/v1", ""), q = url.searchParams, seg = p.split("/").slice(1), is = (m, pattern) => m === method && new RegExp(`^${pattern}$`).exec(p);
  if (is("GET", "/session")) return { body: sessionBody(session) };
  if (is("POST", "/setup")) { setupNeeded = false; return signIn(); }
  if (is("POST", "/sign-in")) return body.password === "demo-password-1" ? signIn(body.name) : fail(401, "bad-credentials", "Name or password is not right");
  if (is("POST", "/sign-in/link")) return signIn(body.name ?? "enrol");
  const trusted = trust.route(method, p, q, body, sessions.get(session), audit);
  if (trusted) return trusted;
  if (!session) return fail(401, "signed-out", "Nobody is signed in");
  if (method !== "GET" && req.headers["x-auscult"] !== "1") return fail(403, "forbidden", "Forged request refused");
  if (is("POST", "/sign-out")) { sessions.delete(session); for (const s of streams) if (s.session === session) { send(s, { id: position(), type: "signed-out", data: {}, about: {} }); s.res.end(); } return { body: sessionBody(null) }; }
  if (is("GET", "/wards")) return { body: { wards: [ward, ward2].map((w) => { const mine = tiles.filter((t) => t.place.ward_id === w.id), n = (x) => mine.flatMap((t) => t.alerts).filter((a) => a.state !== "resolved" && a.priority === x).length; return { ...w, places: mine.length, patients: mine.filter((t) => t.patient).length, alerts: { high: n("high"), medium: n("medium"), low: n("low") } }; }) } };
  if (is("GET", "/wards/[^/]+/board")) { const w = [ward, ward2].find((x) => x.id === seg[1]); return w ? { body: { ward: w, position: position(), server_time: now(), tiles: tiles.filter((t) => t.place.ward_id === w.id).map(tileOut) } } : fail(404, "not-found", "No such ward"); }
  if (is("GET", "/places")) return { body: { places: [...beds, home] } };
  if (is("GET", "/patients")) { const t = (q.get("query") ?? "").toLowerCase(); return { body: { patients: tiles.flatMap((x) => (x.patient && (!t || x.patient.family.toLowerCase().startsWith(t) || x.patient.given.toLowerCase().startsWith(t) || x.patient.record_number.toLowerCase() === t) ? [PATIENT(x.patient)] : [])) } }; }
  if (is("POST", "/patients")) return { body: { id: randomUUID(), ...body, place: null, ward_id: null, active: true } };
  if (is("GET", "/patients/[^/]+")) {
    const t = tileOf(seg[1]);
    if (!t) return fail(404, "not-found", "No such patient", "The patient does not exist, or is not open to you.");
    log("read", t.patient, "patient", null);
    const s = (measure, short, display, unit_display, kind) => ({ measure, short, display, unit_display, kind, device_id: t.d.id });
    return { body: { patient: PATIENT(t.patient), place: t.place, ward: t.place.ward_id === ward.id ? ward : ward2, latest: [...t.vitals.values()], series: [...[...t.vitals.values()].map((v) => s(v.measure, v.short, v.display, v.unit_display, v.components.length ? "panel" : "scalar")), s("ecg_ii", "II", "ECG lead II", "mV", "waveform"), s("plethysmogram", "Pleth", "Plethysmogram", "", "waveform")], devices: [pub(t.d)], alerts: t.alerts.filter((a) => a.state !== "resolved"), limits: limitsOf(t.patient.id), events: [], position: position(), server_time: now() } };
  }
  if (is("GET", "/patients/[^/]+/trend")) {
    const t = tileOf(seg[1]), from = Date.parse(q.get("from")), to = Date.parse(q.get("to")), buckets = Number(q.get("buckets")), bucket = Math.max(1000, Math.ceil((to - from) / buckets));
    return { body: { from: q.get("from"), to: q.get("to"), bucket_ms: bucket, series: q.get("measures").split(",").map((measure) => {
      const slow = ["systolic", "diastolic", "mean_pressure", "body_temperature"].includes(measure), step = slow ? Math.max(bucket, 900_000) : bucket, out = { measure, device_id: t.d.id, unit_display: { heart_rate: "/min", respiratory_rate: "/min", oxygen_saturation: "%", body_temperature: "°C" }[measure] ?? "mmHg", t: [], min: [], mean: [], max: [], count: [], observation_id: [] };
      for (let ms = Math.ceil(from / step) * step; ms < Math.min(to, Date.now()); ms += step) { const share = (ms - from) / (to - from); if (share > 0.42 && share < 0.5) continue; const v = valueAt(t, measure, ms), spread = slow ? 0 : bucket > 2000 ? 2 + bucket / 300_000 : 0; out.t.push(ms); out.mean.push(+v.toFixed(1)); out.min.push(+(v - spread).toFixed(1)); out.max.push(+(v + spread).toFixed(1)); out.count.push(spread ? 20 : 1); out.observation_id.push(spread ? null : [...t.vitals.values()][0].observation_id); }
      return out; }) } };
  }
  if (is("GET", "/patients/[^/]+/readings")) { const t = tileOf(seg[1]), m = q.get("measure"), v = t.vitals.get(m); return { body: { readings: v ? [...Array(40)].map((_, i) => ({ ...v, value: v.value === null ? null : String(Math.round(valueAt(t, m, Date.now() - i * 60_000))), measured_at: ago(i * 60), received_at: ago(i * 60 - 0.2) })) : [] } }; }
  if (is("GET", "/patients/[^/]+/waveform")) { const t = tileOf(seg[1]), m = q.get("measure"), from = Date.parse(q.get("from")), to = Math.min(Date.parse(q.get("to")), Date.now() - 1500), rate = RATE[m], segments = []; for (const [a, b] of [[from, from + (to - from) * 0.6], [from + (to - from) * 0.66, to]]) { const n = Math.max(0, Math.floor(((b - a) / 1000) * rate)), buf = Buffer.alloc(n * 2); for (let i = 0; i < n; i += 1) buf.writeInt16LE(Math.round(sampleAt(t, m, a / 1000 + i / rate) / GAIN[m]), i * 2); if (n) segments.push({ start_ms: Math.round(a), rate, device_id: t.d.id, gain: GAIN[m], offset: 0, samples_base64: buf.toString("base64") }); } return { body: { measure: m, rate, unit_display: m === "ecg_ii" ? "mV" : "", segments } }; }
  if (is("PUT", "/patients/[^/]+/limits")) { limits.set(seg[1], body.limits); return { body }; }
  if (is("GET", "/observations/[^/]+/provenance")) { const o = observations.get(seg[1]); if (!o) return fail(404, "not-found", "No such observation"); const panel = o.v.components.length > 0, text = `{"v":1,"t":"${o.v.measured_at}","${o.v.measure}":{"value":${o.v.value},"unit":"${o.v.unit}"}}`;
    return { body: { vital: o.v, device: pub(o.tile.d), patient: PATIENT(o.tile.patient), measured_at: o.v.measured_at, received_at: o.v.received_at, committed_at: o.v.committed_at, assignment: o.tile.d.assignment, frames: [panel ? { kind: "gatt/2a35", received_at: o.v.received_at, committed_at: o.v.committed_at, hex: bpHex, explained: BP_FIELDS } : { kind: "envelope", received_at: o.v.received_at, committed_at: o.v.committed_at, hex: hexOf(text), explained: [{ offset: text.indexOf("20"), length: 24, name: "t", raw_hex: hexOf(o.v.measured_at), meaning: "time of measurement" }, { offset: text.lastIndexOf("{"), length: text.length - text.lastIndexOf("{") - 1, name: o.v.measure, raw_hex: "", meaning: `${o.v.value} ${o.v.unit_display}` }] }] } }; }
  if (is("GET", "/alerts")) return { body: { alerts: allAlerts.filter((a) => (q.get("state") === "all" || a.state !== "resolved") && (!q.get("patient") || a.patient?.id === q.get("patient"))) } };
  if (is("POST", "/alerts/[^/]+/(acknowledge|resolve)")) { const a = allAlerts.find((x) => x.id === seg[1]); if (!a || a.state === "resolved" || (seg[2] === "acknowledge" && a.state !== "raised")) return fail(409, "already-answered", "Somebody was faster", "The alert was answered already."); const step = (state, by, note) => { a.state = state; a.steps.push({ state, at: now(), by, note }); }; step(seg[2] === "acknowledge" ? "acknowledged" : "resolved", { id: "u1", display: "Nurse Demo" }, body.note); if (a.latched && a.state === "acknowledged") step("resolved", null, null); a.latched = false; emitAlert(a); return { body: a }; }
  if (is("GET", "/devices")) return { body: { devices: devices.map(({ assignments, version, ...d }) => d) } };
  if (is("POST", "/devices")) { const d = device(body.name, body.kind, body.model, null); Object.assign(d, body, { link: "never", last_heard_at: null }); return { body: d }; }
  if (is("GET", "/devices/[^/]+")) { const d = devices.find((x) => x.id === seg[1]); return d ? { body: d } : fail(404, "not-found", "No such device"); }
  if (is("PUT", "/devices/[^/]+")) { const d = devices.find((x) => x.id === seg[1]); if (body.version !== d.version) return fail(409, "changed-by-somebody-else", "Somebody else changed this device", "Load it again and repeat your change."); Object.assign(d, body, { version: d.version + 1 }); return { body: d }; }
  if (is("POST", "/devices/[^/]+/assignments")) { const d = devices.find((x) => x.id === seg[1]); if (d.assignment && !d.assignment.end) return fail(409, "overlap", "The device is assigned in that time already", "End the other assignment first."); const t = tileOf(body.subject.id), place = beds.find((b) => b.id === body.subject.id); d.assignment = { id: randomUUID(), device_id: d.id, subject: { ...body.subject, label: t ? `${t.patient.family.toUpperCase()}, ${t.patient.given}` : (place?.name ?? "?") }, start: body.start, end: body.end }; d.assignments.unshift(d.assignment); emit("assignment", { patient_id: t?.patient.id ?? null, place_id: place?.id ?? null }); return { body: d.assignment }; }
  if (is("POST", "/assignments/[^/]+/end")) { const d = devices.find((x) => x.assignments.some((a) => a.id === seg[1])), a = d.assignments.find((x) => x.id === seg[1]); a.end = body.end; d.assignment = null; return { body: a }; }
  const waiting = () => quarantine.filter((x) => x.state === "waiting");
  const rerun = (x) => { const d = devices.find((y) => y.id === x.device.id); const ok = x.reason === "unassigned" ? d.assignments.some((a) => a.start <= x.received_at && (!a.end || a.end > x.received_at)) : x.reason === "clock" ? d.clock.rule !== "trust" : false; if (ok) { x.state = "released"; d.waiting_in_quarantine = Math.max(0, d.waiting_in_quarantine - 1); emit("quarantine", { items: waiting().length }); } return ok; };
  if (is("GET", "/quarantine")) return { body: { items: (q.get("state") === "all" ? quarantine : waiting()).map(qPub), count: { items: waiting().length, bytes: waiting().reduce((n, x) => n + x.size_bytes, 0), limit_items: 100_000 } } };
  if (is("GET", "/quarantine/[^/]+")) { const x = quarantine.find((y) => y.id === seg[1]); return x ? { body: { item: qPub(x), hex: x.hex, explained: x.explained } } : fail(404, "not-found", "No such item"); }
  if (is("POST", "/quarantine/rerun")) { const mine = waiting().filter((x) => (!body.device_id || x.device.id === body.device_id) && (!body.reason || x.reason === body.reason)); const released = mine.filter(rerun).length; return { body: { released, still_waiting: mine.length - released } }; }
  if (is("POST", "/quarantine/[^/]+/rerun")) { const x = quarantine.find((y) => y.id === seg[1]); const ok = rerun(x); return { body: { outcome: ok ? "committed" : "quarantined", what: ok ? "1 blood pressure charted" : x.what, observation_ids: [] } }; }
  if (is("POST", "/quarantine/[^/]+/discard")) { const x = quarantine.find((y) => y.id === seg[1]); x.state = "discarded"; return { body: qPub(x) }; }
  if (is("GET", "/audit")) { const before = Number(q.get("before") ?? Infinity); return { body: { rows: audit.filter((r) => r.sequence < before && (!q.get("patient") || r.patient?.id === q.get("patient"))).slice(0, Number(q.get("limit") ?? 50)), more: false, next_before: null } }; }
  if (is("GET", "/audit/groups")) return { body: { groups: [...Array(30)].map((_, i) => ({ group: 9000 - i, committed_at: ago(i), sources: tiles.slice(0, 3).flatMap((t) => (t.d ? [{ device: { id: t.d.id, name: t.d.name }, frames: 2, facts: 6, quarantined: 0, sha256: createHash("sha256").update(`${i}${t.d.id}`).digest("hex") }] : [])) })) } };
  return fail(404, "not-found", "No such operation");
}
function signIn(name = "demo") { const id = randomUUID(); sessions.set(id, { state: { enrol: "enrolment-needed", second: "second-factor-needed" }[name] ?? "signed-in", user: trust.people.find((one) => one.name === name) ?? trust.people[0] }); return { body: sessionBody(id), cookie: `auscult=${id}; Path=/; HttpOnly; SameSite=Strict` }; }

const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2" };
const server = createServer(async (req, res) => {
  const url = new URL(req.url, "http://x");
  const session = sessions.has(cookieOf(req)) ? cookieOf(req) : null;
  if (url.pathname === "/api/v1/live") {
    if (!session) { res.writeHead(401, { "content-type": "application/problem+json" }).end(JSON.stringify(fail(401, "signed-out", "Nobody is signed in").body)); return; }
    res.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    const s = { res, session, ward: url.searchParams.get("ward"), patient: url.searchParams.get("patient") };
    send(s, { id: position(), type: "hello", data: { position: position(), server_time: now() }, about: {} });
    const last = req.headers["last-event-id"];
    if (last) for (const e of backlog) if (Number(e.id.split(".")[1]) > Number(last.split(".")[1])) send(s, e);
    streams.add(s);
    res.on("close", () => streams.delete(s));
    return;
  }
  if (url.pathname.startsWith("/api/")) {
    let text = "";
    for await (const chunk of req) text += chunk;
    let answer;
    try { answer = route(req.method, url, text ? JSON.parse(text) : {}, session, req); } catch (error) { console.error(error); answer = fail(500, "internal", "The mock failed", String(error)); }
    res.writeHead(answer.status ?? 200, { "content-type": "application/json", "cache-control": "no-store", ...(answer.cookie ? { "set-cookie": answer.cookie } : {}) }).end(JSON.stringify(answer.body));
    return;
  }
  let file = join(DIST, url.pathname);
  if (url.pathname === "/" || !existsSync(file)) file = url.pathname.startsWith("/assets/") ? null : join(DIST, "index.html");
  if (file === null || !existsSync(file)) { res.writeHead(404).end(); return; }
  res.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream", "content-security-policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; object-src 'none'" }).end(readFileSync(file));
});
server.on("upgrade", (req, socket) => {
  if (!sessions.has(cookieOf(req))) { socket.end("HTTP/1.1 401 Unauthorized\r\n\r\n"); return; }
  const accept = createHash("sha1").update(req.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest("base64");
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  const client = { socket, buffer: Buffer.alloc(0), channels: [] };
  sockets.add(client);
  socket.on("data", (chunk) => wsData(client, chunk));
  socket.on("close", () => sockets.delete(client));
  socket.on("error", () => sockets.delete(client));
});
server.listen(port, "127.0.0.1", () => {
  const address = `http://127.0.0.1:${server.address().port}`;
  console.log(printJson ? JSON.stringify({ address, user: "demo", password: "demo-password-1" }) : `mock on ${address}, sign in as demo / demo-password-1`);
});
