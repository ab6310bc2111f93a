//! One bed on the ward board.

import { memo } from "react";

import type { DeviceState, Strip, Tile as TileData } from "../api/types.ts";
import { openAlerts, spokenAlert } from "../format/alerts.ts";
import { withheldText } from "../format/consent.ts";
import { fullName, initials } from "../format/people.ts";
import { ageSeconds, ageText } from "../format/time.ts";
import { slots, spokenVital } from "../format/vitals.ts";
import { Link } from "../router.tsx";
import type { StripStatus } from "../strips/messages.ts";
import type { StripMark } from "../strips/stage.ts";
import { Icon } from "../ui/icons.tsx";
import { AlarmBanner } from "./alarm.tsx";
import { TileReading } from "./reading.tsx";

/** Time across a strip on the board, in ms. */
const WINDOW_MS = 6_000;
/** Delays below this are usual (one block and the jitter buffer) and not worth a word, in ms. */
const DELAY_WORTH_SAYING_MS = 4_000;
const LOW_BATTERY_PERCENT = 20;

const STRIP_COLORS: [RegExp, string][] = [
  [/^ecg/, "--trace-ecg"],
  [/pleth/, "--trace-pleth"],
  [/arterial/, "--trace-pressure"],
  [/respiration/, "--trace-respiration"],
];

export function stripColor(measure: string): string {
  return STRIP_COLORS.find(([pattern]) => pattern.test(measure))?.[1] ?? "--trace-other";
}

interface TileProps {
  tile: TileData;
  now: number;
  linkLost: boolean;
  privacy: boolean;
  strips: Map<string, StripStatus>;
  showStrips: boolean;
  /** Roving focus: only one tile is in the tab order. */
  tabIndex: number;
  onFocus: () => void;
}

function deviceLink(devices: DeviceState[]): "live" | "silent" | "never" | "none" {
  if (devices.length === 0) return "none";
  if (devices.some((device) => device.link === "silent")) return "silent";
  return devices.some((device) => device.link === "live") ? "live" : "never";
}

/** The sentence a screen reader speaks for a bed. */
export function spokenTile(tile: TileData, now: number, linkLost: boolean, privacy: boolean): string {
  const who = tile.patient === null ? "no patient" : privacy ? initials(tile.patient) : fullName(tile.patient);
  const alerts = openAlerts(tile.alerts).map(spokenAlert);
  const vitals = slots(tile, now).flatMap(({ vital }) => (vital === null ? [] : [spokenVital(vital, now, linkLost)]));
  const withheld = tile.withheld?.length ? [withheldText(tile.withheld)] : [];
  return [tile.place.name, who, ...alerts, ...withheld, ...vitals].join(". ");
}

export const BoardTile = memo(function BoardTile(props: TileProps) {
  const { tile, now, linkLost, privacy, tabIndex, onFocus } = props;
  const [hr, spo2, rr, nibp, temp] = slots(tile, now);
  const top = openAlerts(tile.alerts)[0];
  const look = top === undefined ? "" : `tile-${top.priority}${top.state === "acknowledged" ? " tile-answered" : ""}`;
  const reading = { now, linkLost };
  const withheld = tile.withheld?.length ? withheldText(tile.withheld) : "";
  // The sentence is for screen readers, the figures for the eye: read out one by one they would make no sense.
  const content = (
    <>
      <span className="sr-only">{spokenTile(tile, now, linkLost, privacy)}</span>
      <div className="tile-eye" aria-hidden="true">
        <div className="tile-head">
          <span className="tile-bed">{tile.place.name}</span>
          <span className="tile-name">{tile.patient === null ? "No patient" : privacy ? initials(tile.patient) : fullName(tile.patient)}</span>
          <TileDevices devices={tile.devices} now={now} />
        </div>
        <AlarmBanner alerts={tile.alerts} />
        {withheld && (
          <p className="tile-withheld" title={withheld}>
            {withheld}
          </p>
        )}
        <div className="tile-main">
          <TileStrip {...props} strip={tile.strips[0]} />
          <TileReading label={hr?.label ?? "HR"} vital={hr?.vital ?? null} size="large" {...reading} />
          <TileStrip {...props} strip={tile.strips[1]} />
          <TileReading label={spo2?.label ?? "SpO₂"} vital={spo2?.vital ?? null} size="large" {...reading} />
        </div>
        <div className="tile-small">
          <TileReading label={rr?.label ?? "RR"} vital={rr?.vital ?? null} size="small" {...reading} />
          <TileReading label={nibp?.label ?? "NIBP"} vital={nibp?.vital ?? null} size="small" {...reading} />
          <TileReading label={temp?.label ?? "Temp"} vital={temp?.vital ?? null} size="small" {...reading} />
        </div>
      </div>
    </>
  );
  const shared = { className: `tile ${look}`, tabIndex, onFocus, "data-tile": tile.place.id };
  if (tile.patient === null) {
    return (
      <div {...shared} className={`${shared.className} tile-empty`} role="group">
        {content}
      </div>
    );
  }
  return (
    <Link {...shared} to={`/patients/${tile.patient.id}`}>
      {content}
    </Link>
  );
});

function TileDevices({ devices, now }: { devices: DeviceState[]; now: number }) {
  const state = deviceLink(devices);
  const silent = devices.find((device) => device.link === "silent");
  const batteries = devices.flatMap((device) => (device.battery_percent === null ? [] : [Number(device.battery_percent)]));
  const lowest = batteries.length === 0 ? null : Math.min(...batteries);
  const heard = silent?.last_heard_at ? ` ${ageText(ageSeconds(silent.last_heard_at, now))}` : "";
  return (
    <span className="tile-devices">
      {lowest !== null && (
        <span className={lowest <= LOW_BATTERY_PERCENT ? "battery battery-low" : "battery"} title="Lowest device battery">
          <Icon name="battery" size={14} />
          {lowest}%
        </span>
      )}
      {state === "silent" && (
        <span className="nolink" title={`${silent?.name ?? "Device"}: nothing heard`}>
          <Icon name="nolink" size={14} />
          silent{heard}
        </span>
      )}
      {state === "never" && <span className="nolink">never heard</span>}
      {state === "none" && <span className="muted">no device</span>}
    </span>
  );
}

function TileStrip({ tile, strip, strips, showStrips, linkLost }: TileProps & { strip: Strip | undefined }) {
  if (!showStrips) return null;
  if (strip === undefined || tile.patient === null) return <div className="strip strip-none">no waveform</div>;
  const id = `${tile.place.id} ${strip.measure}`;
  const status = strips.get(id);
  const mark: StripMark = {
    id,
    patient_id: tile.patient.id,
    measure: strip.measure,
    color: stripColor(strip.measure),
    scale: { kind: "auto" },
    time: { windowMs: WINDOW_MS },
  };
  return (
    <div className="strip" data-strip={JSON.stringify(mark)}>
      <span className="strip-name">
        {strip.short} <small>not to scale</small>
      </span>
      <span className="strip-note">{stripNote(status, linkLost)}</span>
    </div>
  );
}

/** Says when a strip is not what it seems: waiting, without signal, or behind. */
export function stripNote(status: StripStatus | undefined, linkLost: boolean): string {
  if (linkLost) return "link lost";
  if (status === undefined || status.state === "waiting") return "waiting";
  if (status.state === "silent") return "no signal";
  return status.delay_ms > DELAY_WORTH_SAYING_MS ? `${Math.floor(status.delay_ms / 1_000)} s behind` : "";
}
