//! The alarm banner: filled colour, symbol and words, all three; flashing in step on the whole screen.

import { useLayoutEffect, useRef } from "react";

import type { Alert } from "../api/types.ts";
import { alertText, openAlerts, spokenAlert, stars } from "../format/alerts.ts";

/** Starts an element's animations at the page's own zero, so that all banners of a priority flash together. */
export function useFlashInStep(key: string) {
  const element = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    for (const animation of element.current?.getAnimations?.() ?? []) animation.startTime = 0;
  }, [key]);
  return element;
}

/** The most urgent open alert of a bed, and how many more there are. */
export function AlarmBanner({ alerts }: { alerts: Alert[] }) {
  const open = openAlerts(alerts);
  const first = open[0];
  const look = first === undefined ? "alarm-none" : alarmClass(first);
  const banner = useFlashInStep(look);
  if (first === undefined) return <div className="alarm alarm-none">No open alerts</div>;
  return (
    <div ref={banner} className={`alarm ${look}`} title={open.map(spokenAlert).join("\n")}>
      <span className="alarm-stars" aria-hidden="true">
        {stars(first.priority)}
      </span>
      <span className="alarm-text">{alertText(first)}</span>
      {first.state === "acknowledged" && <span className="alarm-mark">Ack</span>}
      {first.latched && <span className="alarm-mark">Ended</span>}
      {open.length > 1 && <span className="alarm-more">+{open.length - 1}</span>}
    </div>
  );
}

/** Flashing asks for an answer: an acknowledged alert is steady, and drawn as an outline. */
export function alarmClass(alert: Alert): string {
  return `alarm-${alert.priority} ${alert.state === "acknowledged" ? "alarm-answered" : "alarm-raised"}`;
}
