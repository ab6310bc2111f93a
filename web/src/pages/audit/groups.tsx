//! What devices delivered, group by group as it was committed.

import { useInfiniteQuery } from "@tanstack/react-query";

import { get, query } from "../../api/client.ts";
import type { AuditGroup } from "../../api/audit.ts";
import { preciseText } from "../../format/time.ts";
import { Link } from "../../router.tsx";
import { Empty, Failure, Older, Waiting } from "../../ui/basics.tsx";
import { Table } from "../../ui/table.tsx";

/** Rows fetched at once. */
const PAGE = 100;

export function Groups() {
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
        <Table heads={[{ figures: "Group" }, "On disk", "Device", { figures: "Frames" }, { figures: "Facts" }, { figures: "Quarantined" }, "SHA-256"]}>
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
        </Table>
      )}
      <Older list={log} />
    </>
  );
}
