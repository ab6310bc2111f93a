//! The audit log: who did what with whose data, the state of the log itself, and what devices delivered.

import { useInfiniteQuery } from "@tanstack/react-query";
import { useState } from "react";

import type { AuditPageOfRows, AuditRow } from "../../api/audit.ts";
import { get, query } from "../../api/client.ts";
import { purposeText } from "../../format/consent.ts";
import { roleText } from "../../format/people.ts";
import { preciseText, withReadableTimes } from "../../format/time.ts";
import { navigate, useLocation } from "../../router.tsx";
import { Empty, Failure, Older, PageTitle, useDocumentTitle, Waiting } from "../../ui/basics.tsx";
import { Icon } from "../../ui/icons.tsx";
import { askedOf, Filters, type Wanted, wantedIn } from "./filters.tsx";
import { Groups } from "./groups.tsx";
import { LogPanel } from "./log.tsx";
import { ProofDrawer } from "./proof.tsx";

/** Rows fetched at once. */
const PAGE = 100;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

const VIEWS = [
  ["acts", "People and programs"],
  ["devices", "Device deliveries"],
  ["log", "State of the log"],
] as const;
type View = (typeof VIEWS)[number][0];

export function AuditPage() {
  useDocumentTitle("Audit log");
  const [view, setView] = useState<View>("acts");
  return (
    <div className="page">
      <PageTitle
        seenBy="auditors and administrators. Looking at the log is itself logged."
        actions={
          <div className="segmented" role="group" aria-label="Which log">
            {VIEWS.map(([key, label]) => (
              <button key={key} type="button" aria-pressed={view === key} onClick={() => setView(key)}>
                {label}
              </button>
            ))}
          </div>
        }
      >
        Audit log
      </PageTitle>
      {view === "acts" && <Acts />}
      {view === "devices" && <Groups />}
      {view === "log" && <LogPanel />}
    </div>
  );
}

function Acts() {
  const { search } = useLocation();
  const inAddress = wantedIn(search);
  // Browsers keep addresses: ids stand there, a record number that was typed does not.
  const [record, setRecord] = useState<string | null>(null);
  const wanted = record === null ? inAddress : { ...inAddress, patient: { id: record, label: `record ${record}` } };
  const [proving, setProving] = useState<AuditRow | null>(null);
  // The filters stand in the address: a search can be kept, sent and gone back to.
  const want = (next: Wanted) => {
    const typed = next.patient !== null && !UUID.test(next.patient.id) ? next.patient.id : null;
    setRecord(typed);
    navigate(`/audit${query(askedOf(typed === null ? next : { ...next, patient: null }))}`, { replace: true });
  };
  const asked = askedOf(wanted);
  const log = useInfiniteQuery({
    queryKey: ["audit", asked],
    queryFn: ({ pageParam, signal }) => get<AuditPageOfRows>(`/audit${query({ ...asked, before: pageParam, limit: PAGE })}`, signal),
    initialPageParam: null as number | null,
    getNextPageParam: (last) => (last.more ? (last.next_before ?? undefined) : undefined),
  });
  const rows = log.data?.pages.flatMap((page) => page.rows) ?? [];
  return (
    <>
      <Filters wanted={wanted} onChange={want} onAgain={() => void log.refetch()} />
      {log.isPending && <Waiting what="the log" />}
      {log.isError && <Failure error={log.error} retry={() => void log.refetch()} />}
      {log.data && rows.length === 0 && <Empty>Nothing in the log fits.</Empty>}
      {rows.length > 0 && (
        <div className="table-scroll">
          <table className="stack-table audit-table">
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
                <th scope="col">Proof</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((row) => (
                <Row key={row.sequence} row={row} onPatient={(patient) => want({ ...wanted, patient })} onProof={() => setProving(row)} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      <Older list={log} />
      {proving && <ProofDrawer row={proving} onClose={() => setProving(null)} />}
    </>
  );
}

function Row({ row, onPatient, onProof }: { row: AuditRow; onPatient: (patient: { id: string; label: string }) => void; onProof: () => void }) {
  const { patient } = row;
  return (
    <tr className={row.outcome === "success" ? undefined : "row-refused"}>
      <td className="number mono nowrap" data-label="No.">
        {row.sequence}
      </td>
      <td className="nowrap" data-label="When">
        {preciseText(row.at)}
      </td>
      <td data-label="Who">
        {row.actor.label}
        <span className="muted">, {row.role === null ? row.actor.kind : roleText(row.role).toLowerCase()}</span>
      </td>
      <td data-label="Did">
        {row.action}
        {row.purpose !== null && <span className="muted">, {purposeText(row.purpose).toLowerCase()}</span>}
        {row.break_glass !== null && (
          <span className="tag tag-bad">
            <Icon name="glass" size={13} /> Glass broken
          </span>
        )}
      </td>
      <td data-label="To">
        {[row.object, row.device?.name].filter(Boolean).join(", ")}
        {row.detail && <Detail text={withReadableTimes(row.detail)} />}
        {row.policies.length > 0 && <span className="muted mono"> decided by {row.policies.join(", ")}</span>}
      </td>
      <td data-label="Patient">
        {patient === null ? (
          <span className="muted">None</span>
        ) : (
          <button type="button" className="link" onClick={() => onPatient(patient)}>
            {patient.label}
          </button>
        )}
      </td>
      <td className="nowrap" data-label="Outcome">
        {row.outcome}
      </td>
      <td className="nowrap" data-label="Proof">
        {row.provable ? (
          <button type="button" onClick={onProof} aria-label={`Prove row ${row.sequence}`}>
            Prove
          </button>
        ) : (
          <span className="muted">In a moment</span>
        )}
      </td>
    </tr>
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
