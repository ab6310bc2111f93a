//! Waveforms of a patient: live on paper, and back in time row by row. One millimetre is a CSS millimetre.

import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";

import { get, query } from "../api/client.ts";
import type { PatientChart, SeriesInfo, WaveformHistory } from "../api/types.ts";
import { stripColor, stripNote } from "../board/tile.tsx";
import { clockText, dateText, fromLocalField, toLocalField } from "../format/time.ts";
import { useLink, useLinkLost } from "../live/context.tsx";
import { decodeSamples, MISSING } from "../strips/frame.ts";
import type { StripMark } from "../strips/stage.ts";
import type { Scale } from "../strips/sweep.ts";
import { useStage } from "../strips/useStage.ts";
import { Empty, Failure, Waiting } from "../ui/basics.tsx";
import { Icon } from "../ui/icons.tsx";
import { useThemeName } from "../ui/theme.ts";

/** CSS pixels of one CSS millimetre. */
export const MM_PX = 96 / 25.4;
const SPEED_MM_S = 25;
const GAINS_MM_MV = [5, 10, 20] as const;
const ROW_MM = 30;
const ROWS = 3;
/** How far back the slider reaches, in ms; the field beside it reaches further. */
const SLIDER_MS = 6 * 3_600_000;
/** The newest samples are still on their way; history ends this long ago, in ms. */
const SETTLED_MS = 3_000;

const isVoltage = (series: SeriesInfo) => series.unit_display === "mV";

function scaleText(series: SeriesInfo, gain: number): string {
  return isVoltage(series) ? `${SPEED_MM_S} mm/s  ${gain} mm/mV` : `${SPEED_MM_S} mm/s, height not to scale`;
}

export function Waveforms({ chart }: { chart: PatientChart }) {
  const waves = chart.series.filter((series) => series.kind === "waveform");
  const [history, setHistory] = useState(false);
  const [gain, setGain] = useState<number>(10);
  if (waves.length === 0) return null;
  return (
    <section className="card" aria-labelledby="waveforms">
      <div className="section-head">
        <h2 id="waveforms">Waveforms</h2>
        <div className="controls">
          <label>
            Gain{" "}
            <select value={gain} onChange={(event) => setGain(Number(event.target.value))}>
              {GAINS_MM_MV.map((value) => (
                <option key={value} value={value}>
                  {value} mm/mV
                </option>
              ))}
            </select>
          </label>
          <div className="segmented" role="group" aria-label="Which time">
            <button type="button" aria-pressed={!history} onClick={() => setHistory(false)}>
              Live
            </button>
            <button type="button" aria-pressed={history} onClick={() => setHistory(true)}>
              History
            </button>
          </div>
        </div>
      </div>
      {history ? <History chart={chart} waves={waves} gain={gain} /> : <Live chart={chart} waves={waves} gain={gain} />}
      <p className="hint">Millimetres are those of the browser; measure on a calibrated display or on paper only.</p>
    </section>
  );
}

function Live({ chart, waves, gain }: { chart: PatientChart; waves: SeriesInfo[]; gain: number }) {
  const box = useRef<HTMLDivElement>(null);
  const strips = useStage(box, true);
  const linkLost = useLinkLost();
  return (
    <div className="live-strips" ref={box}>
      {waves.map((series) => {
        const id = `live ${series.measure} ${series.device_id}`;
        const scale: Scale = isVoltage(series) ? { kind: "gain", pxPerUnit: gain * MM_PX } : { kind: "auto" };
        const mark: StripMark = {
          id,
          patient_id: chart.patient.id,
          measure: series.measure,
          color: stripColor(series.measure),
          scale,
          time: { pxPerSecond: SPEED_MM_S * MM_PX },
        };
        return (
          <figure key={id} className="paper-row">
            <div className={isVoltage(series) ? "paper" : "paper paper-low"} data-strip={JSON.stringify(mark)} />
            {isVoltage(series) && <CalibrationPulse gain={gain} />}
            <figcaption>
              <span className="paper-label">
                <strong>{series.display}</strong> {scaleText(series, gain)}
              </span>
              <span className="strip-note">{stripNote(strips.get(id), linkLost)}</span>
            </figcaption>
          </figure>
        );
      })}
    </div>
  );
}

/** 1 mV high and 5 mm wide, as recorders print it. */
function CalibrationPulse({ gain }: { gain: number }) {
  return (
    <svg className="pulse" width="8mm" height={`${gain + 1}mm`} viewBox={`0 0 8 ${gain + 1}`} aria-label={`1 mV calibration pulse at ${gain} mm/mV`} role="img">
      <path d={`M0 ${gain + 0.5}h1.5v${-gain}h5v${gain}h1.5`} />
    </svg>
  );
}

function History({ chart, waves, gain }: { chart: PatientChart; waves: SeriesInfo[]; gain: number }) {
  const link = useLink();
  const first = waves[0] as SeriesInfo;
  const [measure, setMeasure] = useState(first.measure);
  const series = waves.find((one) => one.measure === measure) ?? first;
  const box = useRef<HTMLDivElement>(null);
  const width = useWidth(box);
  const rowMs = Math.max(1_000, Math.floor((width / (SPEED_MM_S * MM_PX)) * 1_000));
  const pageMs = rowMs * ROWS;
  const newest = () => link.now() - SETTLED_MS;
  const [end, setEnd] = useState(newest);
  const from = end - pageMs;
  const id = chart.patient.id;
  const found = useQuery({
    queryKey: ["waveform", id, series.measure, from, end],
    queryFn: ({ signal }) =>
      get<WaveformHistory>(
        `/patients/${encodeURIComponent(id)}/waveform${query({ measure: series.measure, from: new Date(from).toISOString(), to: new Date(end).toISOString() })}`,
        signal,
      ),
    enabled: width > 0,
  });
  const move = (ms: number) => setEnd((at) => Math.min(newest(), at + ms));
  const latest = newest();
  return (
    <>
      <div className="controls history-controls">
        <select aria-label="Waveform" value={measure} onChange={(event) => setMeasure(event.target.value)}>
          {waves.map((one) => (
            <option key={one.measure + one.device_id} value={one.measure}>
              {one.display}
            </option>
          ))}
        </select>
        <button type="button" onClick={() => move(-pageMs)}>
          <Icon name="left" /> Earlier
        </button>
        <button type="button" onClick={() => move(pageMs)} disabled={end >= latest - 500}>
          Later <Icon name="right" />
        </button>
        <button type="button" onClick={() => setEnd(newest())}>
          Newest
        </button>
        <GoTo key={from} from={from} onGo={(at) => setEnd(Math.min(newest(), at + pageMs))} />
      </div>
      <input
        className="history-slider"
        type="range"
        aria-label="Time, over the last six hours"
        aria-valuetext={`${dateText(new Date(from))} ${clockText(new Date(from))}`}
        min={latest - SLIDER_MS}
        max={latest}
        step={1_000}
        value={Math.max(latest - SLIDER_MS, end)}
        onChange={(event) => setEnd(Number(event.target.value))}
      />
      {found.isError && <Failure error={found.error} retry={() => void found.refetch()} />}
      <div ref={box} className="history-rows" aria-busy={found.isFetching}>
        {found.isPending && <Waiting what="the waveform" />}
        {found.data?.segments.length === 0 && <Empty>No waveform was kept for this time.</Empty>}
        {found.data &&
          found.data.segments.length > 0 &&
          [...Array(ROWS).keys()].map((row) => (
            <figure key={row} className="paper-row">
              <Row history={found.data} from={from + row * rowMs} ms={rowMs} width={width} gain={isVoltage(series) ? gain : null} measure={series.measure} />
              <figcaption>
                <span className="paper-label">
                  <strong>{clockText(new Date(from + row * rowMs))}</strong> {dateText(new Date(from + row * rowMs))}{" "}
                  {row === 0 && `${series.display}, ${scaleText(series, gain)}`}
                </span>
              </figcaption>
            </figure>
          ))}
      </div>
    </>
  );
}

/** Where the page starts, as a field: a time typed in is gone to with Enter. */
function GoTo({ from, onGo }: { from: number; onGo: (ms: number) => void }) {
  const [text, setText] = useState(() => toLocalField(new Date(from)));
  const at = fromLocalField(text);
  return (
    <form
      className="controls"
      onSubmit={(event) => {
        event.preventDefault();
        if (at !== null) onGo(Date.parse(at));
      }}
    >
      <label>
        Starts at{" "}
        <input size={20} autoComplete="off" spellCheck={false} aria-invalid={at === null} value={text} onChange={(event) => setText(event.target.value)} />
      </label>
      <button type="submit" disabled={at === null}>
        Go
      </button>
    </form>
  );
}

function useWidth(box: React.RefObject<HTMLElement | null>): number {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    if (box.current === null) return;
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry?.contentRect.width ?? 0)));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, [box]);
  return width;
}

interface RowProps {
  history: WaveformHistory;
  from: number;
  ms: number;
  width: number;
  /** mm/mV; `null` fills the row. */
  gain: number | null;
  measure: string;
}

function Row({ history, from, ms, width, gain, measure }: RowProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const theme = useThemeName();
  const height = Math.round(ROW_MM * MM_PX);
  useEffect(() => {
    const element = canvas.current;
    const ctx = element?.getContext("2d");
    if (!element || !ctx) return;
    const dpr = window.devicePixelRatio || 1;
    element.width = Math.round(width * dpr);
    element.height = Math.round(height * dpr);
    ctx.scale(dpr, dpr);
    ctx.strokeStyle = getComputedStyle(element).getPropertyValue(stripColor(measure)).trim();
    ctx.lineWidth = 1.3;
    ctx.lineJoin = "round";
    trace(ctx, history, { from, ms, width, height, gain });
  }, [history, from, ms, width, height, gain, measure, theme]);
  return <canvas ref={canvas} className="paper" role="img" aria-label={`Waveform from ${clockText(new Date(from))}`} />;
}

interface Frame {
  from: number;
  ms: number;
  width: number;
  height: number;
  gain: number | null;
}

/** The samples of a row as `(x px, value)`; `null` where the line breaks. */
export function rowPoints(history: WaveformHistory, from: number, ms: number, width: number): ({ x: number; value: number } | null)[] {
  const points: ({ x: number; value: number } | null)[] = [];
  for (const segment of history.segments) {
    const step = 1_000 / segment.rate;
    const samples = decodeSamples(segment.samples_base64);
    const begin = Math.max(0, Math.ceil((from - segment.start_ms) / step));
    const end = Math.min(samples.length, Math.floor((from + ms - segment.start_ms) / step) + 1);
    if (begin >= end) continue;
    points.push(null);
    for (let i = begin; i < end; i += 1) {
      const raw = samples[i] as number;
      const x = ((segment.start_ms + i * step - from) / ms) * width;
      points.push(raw === MISSING ? null : { x, value: raw * segment.gain + segment.offset });
    }
  }
  return points;
}

function trace(ctx: CanvasRenderingContext2D, history: WaveformHistory, { from, ms, width, height, gain }: Frame): void {
  const points = rowPoints(history, from, ms, width);
  let [min, max] = [Infinity, -Infinity];
  for (const point of points) {
    if (point === null) continue;
    min = Math.min(min, point.value);
    max = Math.max(max, point.value);
  }
  if (min > max) return;
  const centre = (min + max) / 2;
  const pxPerUnit = gain !== null ? gain * MM_PX : max > min ? (height * 0.8) / (max - min) : 0;
  let down = false;
  ctx.beginPath();
  for (const point of points) {
    if (point === null) {
      down = false;
      continue;
    }
    const y = height / 2 - (point.value - centre) * pxPerUnit;
    if (down) ctx.lineTo(point.x, y);
    else ctx.moveTo(point.x, y);
    down = true;
  }
  ctx.stroke();
}
