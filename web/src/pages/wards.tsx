//! The wards, each with what is open in it.

import { useQuery } from "@tanstack/react-query";

import { get } from "../api/client.ts";
import type { Priority, WardLine } from "../api/types.ts";
import { priorityText, stars } from "../format/alerts.ts";
import { Link } from "../router.tsx";
import { Empty, Failure, PageTitle, useDocumentTitle, Waiting } from "../ui/basics.tsx";

const PRIORITIES: Priority[] = ["high", "medium", "low"];

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
            <Link to={`/wards/${ward.id}`} className="ward-card">
              <strong>{ward.name}</strong>
              <span>
                {ward.patients} {ward.patients === 1 ? "patient" : "patients"} in {ward.places} {ward.places === 1 ? "place" : "places"}
              </span>
              <span className="ward-alerts">
                {PRIORITIES.filter((priority) => ward.alerts[priority] > 0).map((priority) => (
                  <span key={priority} className={`badge badge-${priority}`}>
                    <span aria-hidden="true">{stars(priority)}</span> {ward.alerts[priority]} {priorityText(priority).toLowerCase()}
                  </span>
                ))}
                {PRIORITIES.every((priority) => ward.alerts[priority] === 0) && <span className="muted">No open alerts</span>}
              </span>
            </Link>
          </li>
        ))}
      </ul>
    </div>
  );
}
