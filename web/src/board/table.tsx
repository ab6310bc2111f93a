//! The ward board as a table: for screen readers beside the tiles, and for anyone who prefers rows.

import { useEffect, useRef, useState } from "react";

import type { Board } from "../api/types.ts";
import { alertText, openAlerts, priorityText, stars, stateText } from "../format/alerts.ts";
import { withheldText } from "../format/consent.ts";
import { fullName, initials } from "../format/people.ts";
import { absentText, freshness, hasNoValue, type Slot, slots, valueText } from "../format/vitals.ts";
import { useLinkLost, useLink } from "../live/context.tsx";
import { Link } from "../router.tsx";

/** The table for screen readers is renewed this seldom, in ms: rows that change under the reading cursor cannot be read. */
const RENEW_MS = 10_000;

interface TableProps {
  board: Board;
  privacy: boolean;
  visible: boolean;
}

export function BoardTable({ board, privacy, visible }: TableProps) {
  const link = useLink();
  const linkLost = useLinkLost();
  const latest = useRef(board);
  latest.current = board;
  const [shown, setShown] = useState({ board, now: link.now() });
  useEffect(() => {
    const renew = () => setShown({ board: latest.current, now: link.now() });
    renew();
    const timer = setInterval(renew, visible ? 1_000 : RENEW_MS);
    return () => clearInterval(timer);
  }, [link, visible]);
  const current = visible ? board : shown.board;
  return (
    <div className={visible ? "table-scroll" : "sr-only"}>
      <table className="board-table">
        <caption className={visible ? "sr-only" : undefined}>Beds of {board.ward.name}: alerts and latest values</caption>
        <thead>
          <tr>
            <th scope="col">Bed</th>
            <th scope="col">Patient</th>
            <th scope="col">Alert</th>
            <th scope="col">HR</th>
            <th scope="col">SpO₂</th>
            <th scope="col">RR</th>
            <th scope="col">NIBP</th>
            <th scope="col">Temp</th>
            <th scope="col">Devices</th>
          </tr>
        </thead>
        <tbody>
          {current.tiles.map((tile) => {
            const alert = openAlerts(tile.alerts)[0];
            return (
              <tr key={`${tile.place.id} ${tile.patient?.id ?? ""}`}>
                <th scope="row">{tile.place.name}</th>
                <td>
                  {tile.patient === null ? (
                    "No patient"
                  ) : visible ? (
                    <Link to={`/patients/${tile.patient.id}`}>{privacy ? initials(tile.patient) : fullName(tile.patient)}</Link>
                  ) : privacy ? (
                    initials(tile.patient)
                  ) : (
                    fullName(tile.patient)
                  )}
                </td>
                <td>
                  {alert ? (
                    <>
                      <span className={`badge badge-${alert.priority}`}>
                        {stars(alert.priority)} {priorityText(alert.priority)}
                      </span>{" "}
                      {alertText(alert)}. {stateText(alert)}
                    </>
                  ) : (
                    "None"
                  )}
                  {tile.withheld?.length ? <span className="muted"> {withheldText(tile.withheld)}.</span> : null}
                </td>
                {slots(tile, shown.now).map((slot, index) => (
                  <Cell key={index} slot={slot} now={shown.now} linkLost={linkLost} />
                ))}
                <td>{tile.devices.map((device) => `${device.name}: ${device.link}`).join(", ") || "None"}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function Cell({ slot, now, linkLost }: { slot: Slot; now: number; linkLost: boolean }) {
  const { vital } = slot;
  if (vital === null) return <td className="muted">No data</td>;
  if (hasNoValue(vital)) return <td className="muted">{absentText(vital.absent)}</td>;
  const fresh = freshness(vital, now, linkLost);
  return (
    <td className={fresh.stale ? "cell-stale" : undefined}>
      {valueText(vital)} <span className="unit">{vital.unit_display}</span>{" "}
      <span className="age">
        {fresh.stale ? "stale, " : ""}
        {fresh.text}
      </span>
    </td>
  );
}
