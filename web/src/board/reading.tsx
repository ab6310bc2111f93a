//! One value with its name, unit and age; stale and unknown values never look current.

import type { Vital } from "../api/types.ts";
import { absentText, freshness, hasNoValue, valueText } from "../format/vitals.ts";

interface ReadingProps {
  label: string;
  vital: Vital | null;
  now: number;
  linkLost: boolean;
  size: "large" | "small";
}

/** For a tile: compact, not a control of its own. */
export function TileReading({ label, vital, now, linkLost, size }: ReadingProps) {
  if (vital === null) {
    return (
      <div className={`reading reading-${size} reading-none`}>
        <span className="reading-label">{label}</span>
        <span className="reading-value">—</span>
        <span className="reading-age">no data</span>
      </div>
    );
  }
  const fresh = freshness(vital, now, linkLost);
  const none = hasNoValue(vital);
  const odd = vital.findings.length > 0 || (vital.components ?? []).some((c) => c.findings.length > 0);
  const state = none ? "reading-none" : fresh.stale ? "reading-stale" : "";
  return (
    <div className={`reading reading-${size} ${state}`}>
      <span className="reading-label">
        {label}
        <span className="reading-unit"> {vital.unit_display}</span>
      </span>
      <span className="reading-value">
        {valueText(vital)}
        {odd && !none && (
          <span className="reading-odd" title={vital.findings.map((f) => f.text).join("; ") || "A part has a finding"}>
            †
          </span>
        )}
      </span>
      <span className="reading-age">{none ? absentText(vital.absent) : `${fresh.stale ? "stale " : ""}${fresh.text}`}</span>
    </div>
  );
}
