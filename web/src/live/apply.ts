//! What one event changes on a ward board and on a patient's page. Applying an event twice changes nothing more.

import type { Alert, Board, DeviceState, PatientChart, Tile, Vital } from "../api/types.ts";
import { laterAlert } from "../format/alerts.ts";
import type { LiveEvent } from "./follow.ts";

export interface VitalsEvent {
  patient_id: string | null;
  place_id: string | null;
  vitals: Vital[];
}

/** Whether a value claims to be of the future of one that arrived now: the clock of its device ran ahead. */
const fromTheFuture = (old: Vital, incoming: Vital) => Date.parse(old.measured_at) > Date.parse(incoming.received_at) + AHEAD_MS;

const isLate = (vital: Vital) => vital.findings.some((finding) => finding.name === "late");

/** A device's clock may run so far ahead of the server's without a remark. */
const AHEAD_MS = 5_000;

/** The latest value of each measure of each device: the newer measurement wins, the same instant is replaced. */
export function mergeVitals(known: Vital[], incoming: Vital[]): Vital[] {
  let merged = known;
  for (const vital of incoming) {
    const at = merged.findIndex((v) => v.measure === vital.measure && v.device_id === vital.device_id);
    const old = merged[at];
    if (old === undefined) merged = [...merged, vital];
    else if (Date.parse(vital.measured_at) >= Date.parse(old.measured_at)) merged = merged.with(at, vital);
    else if (fromTheFuture(old, vital) && !isLate(vital)) merged = merged.with(at, vital);
  }
  return merged;
}

/** Resolved alerts leave the list; a late event never brings an alert back to an earlier step. */
export function mergeAlert(known: Alert[], incoming: Alert): Alert[] {
  const at = known.findIndex((alert) => alert.id === incoming.id);
  const old = known[at];
  if (old === undefined) return incoming.state === "resolved" ? known : [incoming, ...known];
  const later = laterAlert(old, incoming);
  if (later.state === "resolved") return known.toSpliced(at, 1);
  return later === old ? known : known.with(at, later);
}

function mergeDevice(known: DeviceState[], incoming: DeviceState): DeviceState[] {
  const at = known.findIndex((device) => device.id === incoming.id);
  const old = known[at];
  if (old === undefined) return known;
  const older = Date.parse(incoming.last_heard_at ?? "") < Date.parse(old.last_heard_at ?? "");
  return older ? known : known.with(at, { ...old, ...incoming });
}

function concerns(alert: Alert, tile: Tile): boolean {
  if (alert.patient) return alert.patient.id === tile.patient?.id;
  return alert.place?.id === tile.place.id || tile.devices.some((device) => device.id === alert.device.id);
}

function applyToTile(tile: Tile, event: LiveEvent): Tile {
  if (event.type === "vitals") {
    const { patient_id, place_id, vitals: incoming } = event.data as VitalsEvent;
    const ours = patient_id === null ? place_id === tile.place.id : patient_id === tile.patient?.id;
    if (!ours) return tile;
    const vitals = mergeVitals(tile.vitals, incoming);
    return vitals === tile.vitals ? tile : { ...tile, vitals };
  }
  if (event.type === "alert") {
    const alert = event.data as Alert;
    if (!concerns(alert, tile)) return tile;
    const alerts = mergeAlert(tile.alerts, alert);
    return alerts === tile.alerts ? tile : { ...tile, alerts };
  }
  if (event.type === "device") {
    const devices = mergeDevice(tile.devices, event.data as DeviceState);
    return devices === tile.devices ? tile : { ...tile, devices };
  }
  return tile;
}

/** Tiles that an event does not concern stay the same object, so that they are not drawn again. */
export function applyToBoard(board: Board, event: LiveEvent): Board {
  let changed = false;
  const tiles = board.tiles.map((tile) => {
    const next = applyToTile(tile, event);
    changed ||= next !== tile;
    return next;
  });
  return changed ? { ...board, tiles } : board;
}

export function applyToChart(chart: PatientChart, event: LiveEvent): PatientChart {
  if (event.type === "vitals") {
    const { patient_id, vitals } = event.data as VitalsEvent;
    if (patient_id !== chart.patient.id) return chart;
    return { ...chart, latest: mergeVitals(chart.latest, vitals) };
  }
  if (event.type === "alert") {
    const alert = event.data as Alert;
    if (alert.patient?.id !== chart.patient.id) return chart;
    return { ...chart, alerts: mergeAlert(chart.alerts, alert) };
  }
  if (event.type === "device") return { ...chart, devices: mergeDevice(chart.devices, event.data as DeviceState) };
  return chart;
}
