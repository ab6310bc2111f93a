//! Bytes as they came, each with its meaning: rows of hexadecimal digits beside the list of fields.

import { useMemo, useState } from "react";

import type { ExplainedField } from "../api/types.ts";

const ROW_BYTES = 16;
/** Most bytes that are laid out; more would make the page slow and nobody reads them. */
const SHOWN_BYTES_MAX = 8_192;

export function bytesOf(hex: string): number[] {
  const bytes: number[] = [];
  for (let i = 0; i + 1 < hex.length; i += 2) bytes.push(Number.parseInt(hex.slice(i, i + 2), 16));
  return bytes;
}

/** For each byte the index of the innermost field that covers it, or −1. */
export function fieldOfByte(length: number, fields: ExplainedField[]): number[] {
  const owner = new Array<number>(length).fill(-1);
  const byLength = fields.map((field, index) => ({ field, index })).sort((a, b) => b.field.length - a.field.length);
  for (const { field, index } of byLength) {
    for (let i = field.offset; i < Math.min(length, field.offset + field.length); i += 1) owner[i] = index;
  }
  return owner;
}

interface HexProps {
  hex: string;
  explained: ExplainedField[];
  /** Where the trouble begins. */
  fault?: number | null;
}

export function HexView({ hex, explained, fault = null }: HexProps) {
  const [lit, setLit] = useState<number | null>(null);
  const all = useMemo(() => bytesOf(hex), [hex]);
  const bytes = all.slice(0, SHOWN_BYTES_MAX);
  const owner = useMemo(() => fieldOfByte(bytes.length, explained), [bytes.length, explained]);
  const rows = [...Array(Math.ceil(bytes.length / ROW_BYTES)).keys()];
  const look = (at: number) =>
    [
      "byte",
      owner[at] === -1 ? "" : (owner[at] as number) % 2 === 0 ? "byte-even" : "byte-odd",
      lit !== null && owner[at] === lit ? "byte-lit" : "",
      at === fault ? "byte-fault" : "",
    ].join(" ");
  const beyond = fault !== null && fault >= all.length;
  return (
    <div className="hex">
      <div className="hex-bytes" role="group" aria-label={`${all.length} bytes`} tabIndex={0}>
        {rows.map((row) => (
          <div className="hex-row" key={row}>
            <span className="hex-offset">{(row * ROW_BYTES).toString(16).padStart(4, "0")}</span>
            <span className="hex-digits">
              {bytes.slice(row * ROW_BYTES, (row + 1) * ROW_BYTES).map((byte, i) => {
                const at = row * ROW_BYTES + i;
                return (
                  <span key={at} className={look(at)} onMouseEnter={() => setLit(owner[at] ?? null)} onMouseLeave={() => setLit(null)}>
                    {byte.toString(16).padStart(2, "0")}
                  </span>
                );
              })}
            </span>
            <span className="hex-text" aria-hidden="true">
              {bytes.slice(row * ROW_BYTES, (row + 1) * ROW_BYTES).map((byte, i) => {
                const at = row * ROW_BYTES + i;
                return (
                  <span key={at} className={look(at)}>
                    {byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "·"}
                  </span>
                );
              })}
            </span>
          </div>
        ))}
        {all.length > bytes.length && <p className="hint">… and {all.length - bytes.length} more bytes</p>}
        {all.length === 0 && <p className="hint">No bytes.</p>}
      </div>
      {fault !== null && (
        <p className="hex-fault">
          <span aria-hidden="true">▲</span> The trouble begins at byte {fault} (0x{fault.toString(16).padStart(4, "0")})
          {beyond ? ", behind the last byte: the data end too early" : ""}.
        </p>
      )}
      {explained.length > 0 && (
        <div className="table-scroll">
          <table className="fields stack-table">
            <thead>
              <tr>
                <th scope="col">Offset</th>
                <th scope="col">Field</th>
                <th scope="col">Bytes</th>
                <th scope="col">Meaning</th>
              </tr>
            </thead>
            <tbody>
              {explained.map((field, index) => (
                <tr
                  key={index}
                  className={`${lit === index ? "lit" : ""} ${covers(field, fault) ? "faulty" : ""}`}
                  onMouseEnter={() => setLit(index)}
                  onMouseLeave={() => setLit(null)}
                >
                  <td className="mono" data-label="Offset">
                    {field.offset}
                  </td>
                  <td data-label="Field">{field.name}</td>
                  <td className="mono" data-label="Bytes">
                    {field.raw_hex.length > 24 ? `${field.raw_hex.slice(0, 24)}…` : field.raw_hex}
                  </td>
                  <td data-label="Meaning">{field.meaning}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {explained.length === 0 && <p className="hint">No field of these bytes could be named.</p>}
    </div>
  );
}

function covers(field: ExplainedField, fault: number | null): boolean {
  return fault !== null && fault >= field.offset && fault < field.offset + field.length;
}
