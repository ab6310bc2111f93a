//! Where a value comes from: device, times, assignment, findings, and the very bytes.

import { useQuery } from "@tanstack/react-query";

import { get } from "../api/client.ts";
import type { Provenance } from "../api/types.ts";
import { fullName } from "../format/people.ts";
import { ageText, instantText, preciseText } from "../format/time.ts";
import { absentText, hasNoValue, valueText } from "../format/vitals.ts";
import { Link } from "../router.tsx";
import { Dialog, Fact, Failure, Waiting } from "./basics.tsx";
import { HexView } from "./hex.tsx";

export function ProvenanceDrawer({ observationId, onClose }: { observationId: string; onClose: () => void }) {
  const found = useQuery({
    queryKey: ["provenance", observationId],
    queryFn: ({ signal }) => get<Provenance>(`/observations/${encodeURIComponent(observationId)}/provenance`, signal),
  });
  return (
    <Dialog title="Where this value comes from" onClose={onClose} drawer>
      {found.isPending && <Waiting what="the value's origin" />}
      {found.isError && <Failure error={found.error} retry={() => void found.refetch()} />}
      {found.data && <Origin origin={found.data} onClose={onClose} />}
    </Dialog>
  );
}

/** `+0.2 s` between two instants. */
function after(from: string, to: string): string {
  const seconds = (Date.parse(to) - Date.parse(from)) / 1000;
  if (Number.isNaN(seconds)) return "";
  return Math.abs(seconds) < 100 ? `${seconds < 0 ? "−" : "+"}${Math.abs(seconds).toFixed(3)} s` : `${seconds < 0 ? "−" : "+"}${ageText(Math.abs(seconds))}`;
}

function Origin({ origin, onClose }: { origin: Provenance; onClose: () => void }) {
  const { vital, device, patient, assignment } = origin;
  const findings = [...vital.findings, ...(vital.components ?? []).flatMap((c) => c.findings.map((f) => ({ ...f, text: `${c.short}: ${f.text}` })))];
  return (
    <div className="origin">
      <p className="origin-value">
        <span>{vital.display}</span>
        <strong>{hasNoValue(vital) ? absentText(vital.absent) : valueText(vital, true)}</strong>
        <span className="unit">
          {vital.unit_display} (UCUM <span className="mono">{vital.unit}</span>)
        </span>
      </p>
      {(vital.components ?? []).some((c) => c.value === null) && (
        <p className="hint">
          {(vital.components ?? [])
            .filter((c) => c.value === null)
            .map((c) => `${c.short}: ${absentText(c.absent)}`)
            .join("; ")}
        </p>
      )}
      <h3>Times</h3>
      <dl className="facts">
        <Fact label="Measured">{preciseText(origin.measured_at)}</Fact>
        <Fact label="Received">
          {preciseText(origin.received_at)} <span className="age">{after(origin.measured_at, origin.received_at)}</span>
        </Fact>
        <Fact label="On disk (acknowledged)">
          {preciseText(origin.committed_at)} <span className="age">{after(origin.received_at, origin.committed_at)}</span>
        </Fact>
      </dl>
      <h3>Source</h3>
      <dl className="facts">
        <Fact label="Device">
          {device === null ? (
            <span className="muted">Not shared with you</span>
          ) : (
            <>
              <Link to={`/devices/${device.id}`} onClick={onClose}>
                {device.name}
              </Link>
              , {device.kind} {device.model}
            </>
          )}
        </Fact>
        <Fact label="Patient">{patient === null ? "None" : fullName(patient)}</Fact>
        <Fact label="Assignment at that time">
          {assignment === null ? "None" : `${instantText(assignment.start)} to ${assignment.end === null ? "now (open)" : instantText(assignment.end)}`}
        </Fact>
        <Fact label="Observation id">
          <span className="mono">{vital.observation_id}</span>
        </Fact>
      </dl>
      <h3>Findings</h3>
      {findings.length === 0 ? (
        <p className="muted">None.</p>
      ) : (
        <ul className="findings">
          {findings.map((finding, index) => (
            <li key={index}>
              {finding.text} <span className="mono muted">{finding.name}</span>
            </li>
          ))}
        </ul>
      )}
      <h3>{origin.frames.length === 1 ? "The bytes that arrived" : `The bytes that arrived, ${origin.frames.length} times`}</h3>
      {origin.frames.length === 0 && <p className="muted">The raw bytes are no longer kept.</p>}
      {origin.frames.map((frame, index) => (
        <section key={index}>
          <p className="hint">
            <span className="mono">{frame.kind}</span>, received {preciseText(frame.received_at)}, on disk {preciseText(frame.committed_at)}
          </p>
          <HexView hex={frame.hex} explained={frame.explained} />
        </section>
      ))}
    </div>
  );
}
