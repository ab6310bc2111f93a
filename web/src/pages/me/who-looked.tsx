//! Who looked at one's own data, when, and why.

import { useInfiniteQuery } from "@tanstack/react-query";

import type { AuditPageOfRows } from "../../api/audit.ts";
import { get, query } from "../../api/client.ts";
import { purposeText } from "../../format/consent.ts";
import { roleText } from "../../format/people.ts";
import { instantText } from "../../format/time.ts";
import { Empty, Failure, Waiting } from "../../ui/basics.tsx";

/** Rows fetched at once. */
const PAGE = 25;

export function WhoLooked() {
  const log = useInfiniteQuery({
    queryKey: ["my-audit"],
    queryFn: ({ pageParam, signal }) => get<AuditPageOfRows>(`/me/audit${query({ before: pageParam, limit: PAGE })}`, signal),
    initialPageParam: null as number | null,
    getNextPageParam: (last) => (last.more ? (last.next_before ?? undefined) : undefined),
  });
  const rows = log.data?.pages.flatMap((page) => page.rows) ?? [];
  return (
    <section className="card" aria-labelledby="who-looked">
      <h2 id="who-looked">Who looked at my data</h2>
      {log.isPending && <Waiting what="who looked" />}
      {log.isError && <Failure error={log.error} retry={() => void log.refetch()} />}
      {log.data && rows.length === 0 && <Empty>Nobody so far.</Empty>}
      {rows.length > 0 && (
        <div className="table-scroll">
          <table className="stack-table">
            <thead>
              <tr>
                <th scope="col">When</th>
                <th scope="col">Who</th>
                <th scope="col">Did</th>
                <th scope="col">Why</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((row) => (
                <tr key={row.sequence} className={row.outcome === "success" ? undefined : "row-refused"}>
                  <td data-label="When">{instantText(row.at)}</td>
                  <td data-label="Who">
                    {row.actor.label} <span className="muted">{row.role === null ? row.actor.kind : roleText(row.role).toLowerCase()}</span>
                  </td>
                  <td data-label="Did">
                    {row.action} {row.object}
                    {row.outcome !== "success" && ` (${row.outcome})`}
                  </td>
                  <td data-label="Why">
                    {row.purpose === null ? <span className="muted">Not said</span> : purposeText(row.purpose)}
                    {row.break_glass !== null && row.purpose !== "BTG" && <span className="tag tag-bad">Glass broken</span>}
                  </td>
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
    </section>
  );
}
