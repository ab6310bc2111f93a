//! Who looked at one's own data, when, and why.

import { useInfiniteQuery } from "@tanstack/react-query";
import { useState } from "react";

import type { AuditPageOfRows } from "../../api/audit.ts";
import { get, query } from "../../api/client.ts";
import { doneText } from "../../format/audit.ts";
import { purposeText } from "../../format/consent.ts";
import { roleText } from "../../format/people.ts";
import { instantText } from "../../format/time.ts";
import { useUser } from "../../session.tsx";
import { Empty, Failure, Older, Waiting } from "../../ui/basics.tsx";
import { Table } from "../../ui/table.tsx";

/** Rows fetched at once. */
const PAGE = 100;

export function WhoLooked() {
  const log = useInfiniteQuery({
    queryKey: ["my-audit"],
    queryFn: ({ pageParam, signal }) => get<AuditPageOfRows>(`/me/audit${query({ before: pageParam, limit: PAGE })}`, signal),
    initialPageParam: null as number | null,
    getNextPageParam: (last) => (last.more ? (last.next_before ?? undefined) : undefined),
  });
  const me = useUser();
  const [own, setOwn] = useState(false);
  const all = log.data?.pages.flatMap((page) => page.rows) ?? [];
  const rows = own ? all : all.filter((row) => row.actor.id !== me.id);
  return (
    <section className="card" aria-labelledby="who-looked">
      <h2 id="who-looked">Who looked at my data</h2>
      {log.isPending && <Waiting what="who looked" />}
      {log.isError && <Failure error={log.error} retry={() => void log.refetch()} />}
      <label className="check">
        <input type="checkbox" checked={own} onChange={(event) => setOwn(event.target.checked)} /> My own looks too
      </label>
      {log.data && rows.length === 0 && <Empty>{all.length === 0 || !log.hasNextPage ? "Nobody so far." : "Nobody but you lately."}</Empty>}
      {rows.length > 0 && (
        <Table heads={["When", "Who", "Did", "Why"]}>
          {rows.map((row) => (
            <tr key={row.sequence} className={row.outcome === "success" ? undefined : "row-refused"}>
              <td data-label="When">{instantText(row.at)}</td>
              <td data-label="Who">
                {row.actor.label} <span className="muted">{row.role === null ? row.actor.kind : roleText(row.role).toLowerCase()}</span>
              </td>
              <td data-label="Did">
                {doneText(row)}
                {row.outcome !== "success" && ` (${row.outcome})`}
              </td>
              <td data-label="Why">
                {row.purpose === null ? <span className="muted">{row.actor.kind === "system" ? "By itself" : "Not said"}</span> : purposeText(row.purpose)}
                {row.break_glass !== null && row.purpose !== "BTG" && <span className="tag tag-bad">Glass broken</span>}
              </td>
            </tr>
          ))}
        </Table>
      )}
      <Older list={log} />
    </section>
  );
}
