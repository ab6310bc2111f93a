//! The wards, each with what is open in it.

import { useQuery } from "@tanstack/react-query";

import { get } from "../api/client.ts";
import type { Priority, WardLine } from "../api/types.ts";
import { priorityText, stars } from "../format/alerts.ts";
import { Link } from "../router.tsx";
import { Empty, Failure, PageTitle, useDocumentTitle, Waiting } from "../ui/basics.tsx";

const PRIORITIES: Priority[] = ["high", "medium", "low"];

/** Patients who may not be seen are not counted as none. */
function countsText({ patients, places }: WardLine): string {
  const room = `${places} ${places === 1 ? "place" : "places"}`;
  return patients === null ? room : `${patients} ${patients === 1 ? "patient" : "patients"} in ${room}`;
}

function OpenAlerts({ alerts }: { alerts: Record<Priority, number> }) {
  const open = PRIORITIES.filter((priority) => alerts[priority] > 0);
  return (
    <span className="ward-alerts">
      {open.map((priority) => (
        <span key={priority} className={`badge badge-${priority}`}>
          <span aria-hidden="true">{stars(priority)}</span> {alerts[priority]} {priorityText(priority).toLowerCase()}
        </span>
      ))}
      {open.length === 0 && <span className="muted">No open alerts</span>}
    </span>
  );
}

function WardCard({ ward }: { ward: WardLine }) {
  const content = (
    <>
      <strong>{ward.name}</strong>
      <span>{countsText(ward)}</span>
      {ward.alerts === null ? <span className="muted">Its patients are not open to you</span> : <OpenAlerts alerts={ward.alerts} />}
    </>
  );
  // Whoever may see no patient may see no board.
  if (ward.patients === null) return <div className="ward-card">{content}</div>;
  return (
    <Link to={`/wards/${ward.id}`} className="ward-card">
      {content}
    </Link>
  );
}

export function WardsPage() {
  useDocumentTitle("Wards");
  const wards = useQuery({ queryKey: ["wards"], queryFn: ({ signal }) => get<{ wards: WardLine[] }>("/wards", signal) });
  return (
    <div className="page">
      <PageTitle seenBy="clinicians, each their own wards, and administrators.">Wards</PageTitle>
      {wards.isPending && <Waiting what="wards" />}
      {wards.isError && <Failure error={wards.error} retry={() => void wards.refetch()} />}
      {wards.data?.wards.length === 0 && <Empty>No ward is set up, or none is open to you.</Empty>}
      <ul className="ward-list">
        {wards.data?.wards.map((ward) => (
          <li key={ward.id}>
            <WardCard ward={ward} />
          </li>
        ))}
      </ul>
    </div>
  );
}
