//! One trend chart: mean with the envelope of smallest and largest, limits as dashed lines, a cursor shared by all charts.

import { type CSSProperties, useEffect, useMemo, useRef } from "react";
import uPlot from "uplot";

import type { Limit, Trend, TrendSeries } from "../api/types.ts";
import { clockText, dateText } from "../format/time.ts";
import { useThemeName } from "../ui/theme.ts";
import { align, type ChartGroup, figure, lonely, nearest } from "./series.ts";

const HEIGHT_PX = 128;
const AXIS_WIDTH_PX = 46;
const DAY_S = 86_400;

const LINE_COLORS = ["--trace-ecg", "--trace-pleth", "--trace-respiration", "--trace-pressure", "--trace-other"];

const colorOf = (index: number): string => LINE_COLORS[index % LINE_COLORS.length] as string;
const nameOf = (group: ChartGroup, { measure }: TrendSeries): string => group.names[measure] ?? measure.replaceAll("_", " ");

interface ChartProps {
  group: ChartGroup;
  trend: Trend;
  limits: Limit[];
  /** Charts with one key share their cursor. */
  syncKey: string;
  onPick: (pick: { observationId: string } | { measure: string; from: number; to: number }) => void;
}

export function TrendChart({ group, trend, limits, syncKey, onPick }: ChartProps) {
  const box = useRef<HTMLDivElement>(null);
  const readout = useRef<HTMLSpanElement>(null);
  const theme = useThemeName();
  // Where the pointer stands: a chart that is drawn anew under it goes on saying what is there.
  const cursor = useRef<{ left: number; top: number }>({ left: -1, top: -1 });
  const pick = useRef(onPick);
  pick.current = onPick;

  const mine = useMemo(() => trend.series.filter((one) => group.measures.includes(one.measure) && one.t.length > 0), [group, trend]);

  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    const plot = draw(element, { group, trend, limits, syncKey }, mine, {
      ready: (u) => {
        if (cursor.current.left >= 0) u.setCursor(cursor.current);
      },
      moved: (u) => {
        cursor.current = { left: u.cursor.left ?? -1, top: u.cursor.top ?? -1 };
        if (readout.current) readout.current.textContent = readoutText(u, group, mine, trend);
      },
    });
    plot.over.addEventListener("click", () => {
      const at = plot.posToVal(plot.cursor.left ?? 0, "x") * 1_000;
      const reach = Math.max(trend.bucket_ms, ((Date.parse(trend.to) - Date.parse(trend.from)) / plot.width) * 12);
      for (const one of mine) {
        const index = nearest(one, at, reach);
        if (index === null) continue;
        const id = one.observation_id[index];
        const from = one.t[index] as number;
        pick.current(id ? { observationId: id } : { measure: one.measure, from, to: from + trend.bucket_ms });
        return;
      }
    });
    const resize = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    resize.observe(element);
    return () => {
      resize.disconnect();
      plot.destroy();
    };
  }, [group, trend, limits, syncKey, theme, mine]);

  return (
    <div className="chart">
      <div className="chart-head">
        <h3>
          {group.title} <span className="unit">{group.unit}</span>
        </h3>
        {mine.length > 1 && (
          <ul className="chart-key" aria-hidden="true">
            {mine.map((one, index) => (
              <li key={`${one.measure} ${one.device_id}`} style={{ "--key": `var(${colorOf(index)})` } as CSSProperties}>
                {nameOf(group, one)}
              </li>
            ))}
          </ul>
        )}
        <span className="chart-readout" ref={readout} />
        <button
          type="button"
          className="link"
          onClick={() => onPick({ measure: group.measures[0] ?? group.key, from: Date.parse(trend.from), to: Date.parse(trend.to) })}
        >
          Readings<span className="sr-only"> of {group.title}</span>
        </button>
      </div>
      <div ref={box} className="chart-box" role="img" aria-label={summary(group, trend)} />
    </div>
  );
}

/** What a screen reader is told instead of the picture. */
export function summary(group: ChartGroup, trend: Trend): string {
  const parts = trend.series
    .filter((one) => group.measures.includes(one.measure))
    .map((one) => {
      if (one.t.length === 0) return `${one.measure.replaceAll("_", " ")}: no readings`;
      const last = figure(one.mean.at(-1) as number);
      return `${one.measure.replaceAll("_", " ")}: from ${figure(Math.min(...one.min))} to ${figure(Math.max(...one.max))}, last ${last} ${one.unit_display}`;
    });
  return `${group.title}. ${parts.join(". ") || "No readings in this time"}.`;
}

function draw(element: HTMLElement, props: Omit<ChartProps, "onPick">, mine: TrendSeries[], on: { ready: (u: uPlot) => void; moved: (u: uPlot) => void }): uPlot {
  const { group, trend, limits, syncKey } = props;
  const style = getComputedStyle(element);
  const color = (name: string) => style.getPropertyValue(name).trim();
  const { x, columns } = align(mine, group.joinMs, trend.bucket_ms);
  const span = (Date.parse(trend.to) - Date.parse(trend.from)) / 1_000;
  const series: uPlot.Series[] = [{}];
  const bands: uPlot.Band[] = [];
  const data: (number | null | undefined)[][] = [x];
  columns.forEach((column, index) => {
    const stroke = color(colorOf(index));
    const points = new Set(lonely(column.mean));
    data.push(column.max, column.min, column.mean);
    const at = data.length;
    const edge: uPlot.Series = { points: { show: false }, ...(group.bars ? { paths: () => null } : {}) };
    series.push({ ...edge }, { ...edge }, {
      stroke,
      width: 1.5,
      ...(group.bars ? { paths: () => null } : {}),
      points: group.bars
        ? { show: true, size: 5, stroke, fill: stroke }
        : { show: true, size: 5, stroke, fill: stroke, filter: () => [...points] },
    });
    if (!group.bars) bands.push({ series: [at - 3, at - 2], fill: `${stroke}33` });
  });
  const mineLimits = limits.filter((limit) => group.measures.includes(limit.measure));
  const options: uPlot.Options = {
    width: Math.max(120, element.clientWidth),
    height: HEIGHT_PX,
    legend: { show: false },
    padding: [6, 22, 0, 0],
    cursor: { sync: { key: syncKey, setSeries: false }, drag: { x: false, y: false }, points: { show: false }, y: false },
    scales: { x: { time: true, range: () => [Date.parse(trend.from) / 1_000, Date.parse(trend.to) / 1_000] }, y: { range: (_, min, max) => yRange(min, max) } },
    series,
    bands,
    axes: [
      { stroke: color("--ink-2"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, size: 24, font: `11px ${color("--font")}`, values: (_, ticks) => ticks.map((tick) => tickText(tick, span)) },
      { stroke: color("--ink-2"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, size: AXIS_WIDTH_PX, font: `11px ${color("--font")}` },
    ],
    hooks: {
      draw: [(u) => drawLimits(u, mineLimits, color("--ink-2")), ...(group.bars ? [(u: uPlot) => drawBars(u, mine, color("--trace-ecg"))] : [])],
      ready: [on.ready],
      setCursor: [on.moved],
    },
  };
  return new uPlot(options, data as uPlot.AlignedData, element);
}

/** The scale of the data with a margin; limits are not forced into it, or a far one would flatten everything. */
function yRange(min: number | null, max: number | null): [number, number] {
  if (min === null || max === null) return [0, 1];
  const margin = Math.max((max - min) * 0.12, 1);
  return [min - margin, max + margin];
}

function tickText(tick: number, spanS: number): string {
  const at = new Date(tick * 1_000);
  const midnight = at.getHours() === 0 && at.getMinutes() === 0;
  if (spanS > 2 * DAY_S || midnight) return midnight ? dateText(at).slice(0, 6) : clockText(at, false);
  return clockText(at, spanS < 1_200 && at.getSeconds() !== 0);
}

function drawLimits(u: uPlot, limits: Limit[], stroke: string): void {
  const { ctx } = u;
  ctx.save();
  ctx.strokeStyle = stroke;
  ctx.setLineDash([4, 4]);
  ctx.lineWidth = 1;
  for (const value of limits.flatMap((limit) => [limit.low, limit.high])) {
    if (value === null) continue;
    const y = u.valToPos(value, "y", true);
    if (y < u.bbox.top || y > u.bbox.top + u.bbox.height) continue;
    ctx.beginPath();
    ctx.moveTo(u.bbox.left, y);
    ctx.lineTo(u.bbox.left + u.bbox.width, y);
    ctx.stroke();
  }
  ctx.restore();
}

/** A bar from diastolic to systolic at each instant where both were measured. */
function drawBars(u: uPlot, series: TrendSeries[], stroke: string): void {
  const systolic = series.find((one) => one.measure.endsWith("systolic"));
  const diastolic = series.find((one) => one.measure.endsWith("diastolic"));
  if (!systolic || !diastolic) return;
  const low = new Map(diastolic.t.map((time, index) => [time, diastolic.mean[index] as number]));
  const { ctx } = u;
  ctx.save();
  ctx.strokeStyle = stroke;
  ctx.lineWidth = 1.5 * devicePixelRatio;
  systolic.t.forEach((time, index) => {
    const bottom = low.get(time);
    if (bottom === undefined) return;
    const x = u.valToPos(time / 1_000, "x", true);
    ctx.beginPath();
    ctx.moveTo(x, u.valToPos(systolic.mean[index] as number, "y", true));
    ctx.lineTo(x, u.valToPos(bottom, "y", true));
    ctx.stroke();
  });
  ctx.restore();
}

function readoutText(u: uPlot, group: ChartGroup, series: TrendSeries[], trend: Trend): string {
  const { left } = u.cursor;
  if (left === undefined || left < 0) return "";
  const at = u.posToVal(left, "x") * 1_000;
  const reach = Math.max(trend.bucket_ms * 1.5, ((Date.parse(trend.to) - Date.parse(trend.from)) / u.width) * 8);
  const texts = series.flatMap((one) => {
    const index = nearest(one, at, reach);
    if (index === null) return [];
    const [min, mean, max, count] = [one.min[index], one.mean[index], one.max[index], one.count[index]] as [number, number, number, number];
    const name = series.length > 1 ? `${nameOf(group, one)} ` : "";
    return count > 1 ? [`${name}${figure(mean)} (${figure(min)}–${figure(max)}, ${count} readings)`] : [`${name}${figure(mean)}`];
  });
  const when = new Date(at);
  return `${dateText(when).slice(0, 6)} ${clockText(when)}  ${texts.length === 0 ? "no reading" : `${texts.join("  ")} ${series[0]?.unit_display ?? ""}`}`;
}
