//! The trends of a patient, from minutes to days, with one cursor through all charts.

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useMemo, useRef, useState } from "react";

import { get, query } from "../api/client.ts";
import type { PatientChart, Trend, Vital } from "../api/types.ts";
import { preciseText } from "../format/time.ts";
import { absentText, hasNoValue, valueText } from "../format/vitals.ts";
import type { VitalsEvent } from "../live/apply.ts";
import { useLink, useLiveEvent, useNow } from "../live/context.tsx";
import { Dialog, Empty, Failure, Waiting } from "../ui/basics.tsx";
import { TrendChart } from "./chart.tsx";
import { cameAfter, chartGroups, grown, PANEL_OF } from "./series.ts";

const MINUTE_MS = 60_000;
const RANGES = [
  { label: "15 min", ms: 15 * MINUTE_MS },
  { label: "1 h", ms: 60 * MINUTE_MS },
  { label: "6 h", ms: 360 * MINUTE_MS },
  { label: "24 h", ms: 1_440 * MINUTE_MS },
  { label: "7 d", ms: 10_080 * MINUTE_MS },
] as const;

/** Points across a chart: more than two to a pixel cannot be seen. */
const BUCKETS = 450;
/** Time between two drawings of what came over the live stream, in ms. */
const DRAW_EVERY_MS = 10_000;
/** A trend is read anew after so long, in ms, for what came late: each reading is an entry in the audit log. */
const RENEW_MS = 300_000;
/** Most live readings kept between two readings of a trend: one a second of sixteen measures. */
const LIVE_MAX = 4_800;
/** Most readings listed. */
const READINGS_MAX = 200;

interface TrendsProps {
  chart: PatientChart;
  onOrigin: (observationId: string) => void;
}

export function Trends({ chart, onOrigin }: TrendsProps) {
  const link = useLink();
  const [rangeMs, setRangeMs] = useState<number>(RANGES[1].ms);
  const [listed, setListed] = useState<{ measure: string; from: number; to: number } | null>(null);
  const id = chart.patient.id;
  // The groups depend on which series exist, not on their values: charts must not be built anew with each reading.
  const shape = JSON.stringify([chart.series, chart.latest.map((v) => [v.measure, v.stale_after_s, v.components?.map((c) => c.measure)])]);
  const groups = useMemo(() => chartGroups(chart.series, chart.latest), [shape]);
  const measures = groups.flatMap((group) => group.measures).join(",");
  const trend = useQuery({
    queryKey: ["trend", id, measures, rangeMs],
    queryFn: ({ signal }) => {
      const to = link.now();
      const range = { from: new Date(to - rangeMs).toISOString(), to: new Date(to).toISOString() };
      return get<Trend>(`/patients/${encodeURIComponent(id)}/trend${query({ measures, ...range, buckets: BUCKETS })}`, signal);
    },
    enabled: measures !== "",
    placeholderData: keepPreviousData,
    refetchInterval: Math.max(RENEW_MS, rangeMs / BUCKETS),
  });
  const live = useRef<Vital[]>([]);
  useLiveEvent((event) => {
    if (event.type === "reset") void trend.refetch();
    if (event.type !== "vitals") return;
    const { patient_id: patient, vitals } = event.data as VitalsEvent;
    if (patient === id) live.current = [...live.current, ...vitals].slice(-LIVE_MAX);
  });
  const drawn = Math.floor(useNow() / DRAW_EVERY_MS);
  const shown = useMemo(() => {
    if (trend.data === undefined) return undefined;
    const readTo = Date.parse(trend.data.to);
    live.current = live.current.filter((vital) => cameAfter(vital, readTo));
    return grown(trend.data, live.current, Math.max(readTo, link.now()));
  }, [trend.data, drawn, link]);
  return (
    <section className="card" aria-labelledby="trends">
      <div className="section-head">
        <h2 id="trends">Trends</h2>
        <div className="segmented" role="group" aria-label="Time shown">
          {RANGES.map((range) => (
            <button key={range.label} type="button" aria-pressed={range.ms === rangeMs} onClick={() => setRangeMs(range.ms)}>
              {range.label}
            </button>
          ))}
        </div>
      </div>
      {groups.length === 0 && <Empty>Nothing was measured that has a trend.</Empty>}
      {trend.isError && <Failure error={trend.error} retry={() => void trend.refetch()} />}
      {groups.length > 0 && trend.isPending && <Waiting what="trends" />}
      {shown && (
        <div className={trend.isPlaceholderData ? "charts charts-old" : "charts"}>
          {groups.map((group) => (
            <TrendChart
              key={group.key}
              group={group}
              trend={shown}
              limits={chart.limits}
              syncKey={id}
              onPick={(pick) => ("observationId" in pick ? onOrigin(pick.observationId) : setListed(pick))}
            />
          ))}
        </div>
      )}
      <p className="hint">The line is the mean, the band around it the smallest and largest reading. Where nothing was measured, nothing is drawn. Dashed: limits.</p>
      {listed && <ReadingsDrawer patientId={id} {...listed} onClose={() => setListed(null)} onOrigin={onOrigin} />}
    </section>
  );
}

interface ReadingsProps {
  patientId: string;
  measure: string;
  from: number;
  to: number;
  onClose: () => void;
  onOrigin: (observationId: string) => void;
}

function ReadingsDrawer({ patientId, measure, from, to, onClose, onOrigin }: ReadingsProps) {
  // Components are kept with their panel.
  const asked = PANEL_OF[measure] ?? measure;
  const found = useQuery({
    queryKey: ["readings", patientId, asked, from, to],
    queryFn: ({ signal }) =>
      get<{ readings: Vital[] }>(
        `/patients/${encodeURIComponent(patientId)}/readings${query({ measure: asked, from: new Date(from).toISOString(), to: new Date(to).toISOString(), limit: READINGS_MAX })}`,
        signal,
      ),
  });
  const readings = found.data?.readings ?? [];
  return (
    <Dialog title="Readings" onClose={onClose} drawer>
      <p className="hint">
        {preciseText(new Date(from).toISOString())} to {preciseText(new Date(to).toISOString())}, newest first
        {readings.length === READINGS_MAX && `; the newest ${READINGS_MAX} only`}. Choose a value to see where it comes from.
      </p>
      {found.isPending && <Waiting what="readings" />}
      {found.isError && <Failure error={found.error} retry={() => void found.refetch()} />}
      {found.data && readings.length === 0 && <Empty>No reading in this time.</Empty>}
      {readings.length > 0 && (
        <div className="table-scroll">
          <table>
            <thead>
              <tr>
                <th scope="col">Measured</th>
                <th scope="col">Value</th>
                <th scope="col">Findings</th>
              </tr>
            </thead>
            <tbody>
              {readings.map((vital) => (
                <tr key={vital.observation_id + vital.measured_at}>
                  <td>{preciseText(vital.measured_at)}</td>
                  <td className="nowrap">
                    <button type="button" className="link" onClick={() => onOrigin(vital.observation_id)}>
                      {hasNoValue(vital) ? absentText(vital.absent) : `${valueText(vital, true)} ${vital.unit_display}`}
                    </button>
                  </td>
                  <td>{vital.findings.map((finding) => finding.text).join("; ") || <span className="muted">None</span>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Dialog>
  );
}
