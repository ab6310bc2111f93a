//! All devices by the state of their certificates, the authority that issues them, and taking in a list of expected devices.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get } from "../api/client.ts";
import type { Authority, Enrolment } from "../api/enrolment.ts";
import { instantText } from "../format/time.ts";
import { Link } from "../router.tsx";
import { useRights } from "../session.tsx";
import { Empty, Fact, Failure, PageTitle, useDocumentTitle, Waiting } from "../ui/basics.tsx";
import { ClaimDialog, EnrolmentBadge } from "../ui/enrolment.tsx";
import { ImportDialog } from "../ui/import-devices.tsx";
import { mayEnrolDevices } from "../ui/roles.ts";
import { Table } from "../ui/table.tsx";

type Filter = "all" | "waiting" | "trouble";

const fits: Record<Filter, (one: Enrolment) => boolean> = {
  all: () => true,
  waiting: ({ state }) => state === "none" || state === "claimable",
  trouble: ({ state }) => state === "expired" || state === "renewal-to-review" || state === "revoked",
};

const FILTERS: [Filter, string][] = [
  ["all", "All"],
  ["waiting", "Not enrolled"],
  ["trouble", "Need somebody"],
];

export function EnrolmentPage() {
  useDocumentTitle("Device certificates");
  const rights = useRights();
  const client = useQueryClient();
  const [filter, setFilter] = useState<Filter>("all");
  const [claiming, setClaiming] = useState<Enrolment | null>(null);
  const [importing, setImporting] = useState(false);
  const found = useQuery({ queryKey: ["enrolment"], queryFn: ({ signal }) => get<{ devices: Enrolment[]; authority: Authority }>("/enrolment", signal) });
  const may = mayEnrolDevices(rights);
  const shown = (found.data?.devices ?? []).filter(fits[filter]);
  const renewed = () => void client.invalidateQueries({ queryKey: ["enrolment"] });
  return (
    <div className="page">
      <PageTitle
        seenBy="biomedical engineers and administrators."
        actions={
          <>
            <Link className="button" to="/devices">
              Devices
            </Link>
            {may && (
              <button type="button" onClick={() => setImporting(true)}>
                Import a list
              </button>
            )}
          </>
        }
      >
        Device certificates
      </PageTitle>
      {found.isPending && <Waiting what="certificates" />}
      {found.isError && <Failure error={found.error} retry={() => void found.refetch()} />}
      {found.data && (
        <>
          <AuthorityCard authority={found.data.authority} />
          <div className="filters">
            <div className="segmented" role="group" aria-label="Which devices">
              {FILTERS.map(([key, label]) => (
                <button key={key} type="button" aria-pressed={filter === key} onClick={() => setFilter(key)}>
                  {label} <span className="muted">{found.data.devices.filter(fits[key]).length}</span>
                </button>
              ))}
            </div>
          </div>
          {shown.length === 0 && <Empty>No device fits.</Empty>}
          {shown.length > 0 && (
            <Table heads={["Device", "Serial number", "State", "Valid until", "Last renewed", { acts: "Act" }]}>
              {shown.map((one) => (
                <tr key={one.device_id}>
                  <th scope="row">
                    <Link to={`/devices/${one.device_id}`}>{one.name}</Link>
                  </th>
                  <td data-label="Serial number" className="mono">
                    {one.serial}
                  </td>
                  <td data-label="State">
                    <EnrolmentBadge state={one.state} />
                  </td>
                  <td data-label="Valid until">{one.certificate === null ? <span className="muted">None</span> : instantText(one.certificate.not_after)}</td>
                  <td data-label="Last renewed">{one.last_renewed_at === null ? <span className="muted">Never</span> : instantText(one.last_renewed_at)}</td>
                  <td className="acts">
                    {may && (one.state === "none" || one.state === "claimable") && !one.retired && (
                      <button type="button" onClick={() => setClaiming(one)} aria-label={`Claim code for ${one.name}`}>
                        Claim code
                      </button>
                    )}
                  </td>
                </tr>
              ))}
            </Table>
          )}
        </>
      )}
      {claiming && (
        <ClaimDialog
          enrolment={claiming}
          onClose={() => {
            setClaiming(null);
            renewed();
          }}
        />
      )}
      {importing && <ImportDialog onClose={() => setImporting(false)} onDone={renewed} />}
    </div>
  );
}

function AuthorityCard({ authority }: { authority: Authority }) {
  return (
    <section className="card" aria-labelledby="authority">
      <h2 id="authority">Authority</h2>
      {authority.is_root_key_here && (
        <p className="message message-note">
          <strong>The root key still lies on this server.</strong> Take it away, so that a break-in cannot forge the authority itself: <span className="mono">auscult pki take-root</span>.
        </p>
      )}
      <dl className="facts">
        <Fact label="Name">{authority.name}</Fact>
        <Fact label="Root valid until">{instantText(authority.root_not_after)}</Fact>
        <Fact label="Root SHA-256">
          <span className="mono">{authority.root_sha256}</span>
        </Fact>
        {authority.issuing.map((one) => (
          <Fact key={one.id} label={one.is_current ? "Issuing key" : "Issuing key from before"}>
            <span className="mono">{one.id}</span>, until {instantText(one.not_after)}. <a href={one.crl_path} download>Revocation list</a>
          </Fact>
        ))}
      </dl>
    </section>
  );
}
