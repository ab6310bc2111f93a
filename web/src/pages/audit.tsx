//! The audit log: who did what with whose data, and what devices delivered.

import { useInfiniteQuery } from "@tanstack/react-query";
import { useState } from "react";

import { get, query } from "../api/client.ts";
import type { AuditGroup, AuditRow, PatientLine } from "../api/types.ts";
import { fullName } from "../format/people.ts";
import { preciseText, withReadableTimes } from "../format/time.ts";
import { Link } from "../router.tsx";
import { useRole } from "../session.tsx";
import { Dialog, Empty, Failure, PageTitle, useDocumentTitle, Waiting } from "../ui/basics.tsx";
import { maySeePatients } from "../ui/roles.ts";
import { PatientPicker } from "../ui/search.tsx";

/** Rows fetched at once. */
const PAGE = 100;

export function AuditPage() {
  useDocumentTitle("Audit log");
  const [view, setView] = useState<"acts" | "devices">("acts");
  return (
    <div className="page">
      <PageTitle
        actions={
          <div className="segmented" role="group" aria-label="Which log">
            <button type="button" aria-pressed={view === "acts"} onClick={() => setView("acts")}>
              People and programs
            </button>
            <button type="button" aria-pressed={view === "devices"} onClick={() => setView("devices")}>
              Device deliveries
            </button>
          </div>
        }
      >
        Audit log
      </PageTitle>
      {view === "acts" ? <Acts /> : <Groups />}
    </div>
  );
}

function Acts() {
  const role = useRole();
  const [patient, setPatient] = useState<{ id: string; label: string } | null>(null);
  const [picking, setPicking] = useState(false);
  const log = useInfiniteQuery({
    queryKey: ["audit", patient?.id ?? null],
    queryFn: ({ pageParam, signal }) => get<{ rows: AuditRow[] }>(`/audit${query({ patient: patient?.id, before: pageParam, limit: PAGE })}`, signal),
    initialPageParam: null as number | null,
    getNextPageParam: (last) => (last.rows.length < PAGE ? undefined : (last.rows.at(-1)?.sequence ?? undefined)),
  });
  const rows = log.data?.pages.flatMap((page) => page.rows) ?? [];
  return (
    <>
      <div className="filters">
        {patient === null ? (
          maySeePatients(role) && (
            <button type="button" onClick={() => setPicking(true)}>
              Of one patient …
            </button>
          )
        ) : (
          <>
            <span>
              Of <strong>{patient.label}</strong>
            </span>
            <button type="button" onClick={() => setPatient(null)}>
              Show all
            </button>
          </>
        )}
        <button type="button" onClick={() => void log.refetch()}>
          Look again
        </button>
      </div>
      {log.isPending && <Waiting what="the log" />}
      {log.isError && <Failure error={log.error} retry={() => void log.refetch()} />}
      {log.data && rows.length === 0 && <Empty>Nothing is logged.</Empty>}
      {rows.length > 0 && (
        <div className="table-scroll">
          <table className="stack-table">
            <thead>
              <tr>
                <th scope="col" className="number">
                  No.
                </th>
                <th scope="col">When</th>
                <th scope="col">Who</th>
                <th scope="col">Did</th>
                <th scope="col">To</th>
                <th scope="col">Patient</th>
                <th scope="col">Outcome</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((row) => (
                <tr key={row.sequence} className={row.outcome === "success" ? undefined : "row-refused"}>
                  <td className="number mono" data-label="No.">
                    {row.sequence}
                  </td>
                  <td className="nowrap" data-label="When">
                    {preciseText(row.at)}
                  </td>
                  <td className="nowrap" data-label="Who">
                    {row.actor.label} <span className="muted">{row.actor.kind}</span>
                  </td>
                  <td data-label="Did">{row.action}</td>
                  <td data-label="To">
                    {[row.object, row.device?.name].filter(Boolean).join(", ")}
                    {row.detail && <Detail text={withReadableTimes(row.detail)} />}
                  </td>
                  <td className="nowrap" data-label="Patient">
                    {row.patient === null ? (
                      <span className="muted">None</span>
                    ) : (
                      <button type="button" className="link" onClick={() => setPatient(row.patient)}>
                        {row.patient.label}
                      </button>
                    )}
                  </td>
                  <td data-label="Outcome">{row.outcome}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {log.hasNextPage && (
        <button type="button" className="more" disabled={log.isFetchingNextPage} onClick={() => void log.fetchNextPage()}>
          Older
        </button>
      )}
      {picking && (
        <Dialog title="Whose data?" onClose={() => setPicking(false)} wide>
          <PatientPicker
            label="Patient"
            autoFocus
            onPick={(found: PatientLine) => {
              setPatient({ id: found.id, label: fullName(found) });
              setPicking(false);
            }}
          />
        </Dialog>
      )}
    </>
  );
}

/** Longest detail that is shown at once, in characters. */
const DETAIL_SHOWN = 160;

function Detail({ text }: { text: string }) {
  if (text.length <= DETAIL_SHOWN) return <span className="muted"> {text}</span>;
  return (
    <details className="muted">
      <summary>{text.slice(0, 80)} …</summary>
      {text}
    </details>
  );
}

function Groups() {
  const log = useInfiniteQuery({
    queryKey: ["audit-groups"],
    queryFn: ({ pageParam, signal }) => get<{ groups: AuditGroup[] }>(`/audit/groups${query({ before: pageParam, limit: PAGE })}`, signal),
    initialPageParam: null as number | null,
    getNextPageParam: (last) => (last.groups.length < PAGE ? undefined : (last.groups.at(-1)?.group ?? undefined)),
  });
  const groups = log.data?.pages.flatMap((page) => page.groups) ?? [];
  return (
    <>
      <p className="muted">Each group was written to disk in one piece before it was acknowledged; the hash covers the bytes as they came.</p>
      {log.isPending && <Waiting what="the log" />}
      {log.isError && <Failure error={log.error} retry={() => void log.refetch()} />}
      {log.data && groups.length === 0 && <Empty>No device has delivered anything yet.</Empty>}
      {groups.length > 0 && (
        <div className="table-scroll">
          <table className="stack-table">
            <thead>
              <tr>
                <th scope="col" className="number">
                  Group
                </th>
                <th scope="col">On disk</th>
                <th scope="col">Device</th>
                <th scope="col" className="number">
                  Frames
                </th>
                <th scope="col" className="number">
                  Facts
                </th>
                <th scope="col" className="number">
                  Quarantined
                </th>
                <th scope="col">SHA-256</th>
              </tr>
            </thead>
            <tbody>
              {groups.flatMap((group) =>
                group.sources.map((source) => (
                  <tr key={`${group.group} ${source.device.id}`}>
                    <td className="number mono" data-label="Group">
                      {group.group}
                    </td>
                    <td data-label="On disk">{preciseText(group.committed_at)}</td>
                    <td data-label="Device">
                      <Link to={`/devices/${source.device.id}`}>{source.device.name}</Link>
                    </td>
                    <td className="number" data-label="Frames">
                      {source.frames}
                    </td>
                    <td className="number" data-label="Facts">
                      {source.facts}
                    </td>
                    <td className="number" data-label="Quarantined">
                      {source.quarantined}
                    </td>
                    <td className="mono" data-label="SHA-256" title={source.sha256}>
                      {source.sha256.slice(0, 16)}…
                    </td>
                  </tr>
                )),
              )}
            </tbody>
          </table>
        </div>
      )}
      {log.hasNextPage && (
        <button type="button" className="more" disabled={log.isFetchingNextPage} onClick={() => void log.fetchNextPage()}>
          Older
        </button>
      )}
    </>
  );
}
