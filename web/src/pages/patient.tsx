//! One patient: who, how now, how before, what is open, and where each value comes from.

import { useEffect, useState } from "react";

import { ApiError } from "../api/client.ts";
import type { PatientChart } from "../api/types.ts";
import { byUrgency } from "../format/alerts.ts";
import { withheldText } from "../format/consent.ts";
import { ageSeconds, agoText } from "../format/time.ts";
import { applyToChart } from "../live/apply.ts";
import { useFollowed, useLinkLost, useNow } from "../live/context.tsx";
import { PatientBanner } from "../patient/banner.tsx";
import { Consents } from "../patient/consents.tsx";
import { Events } from "../patient/events.tsx";
import { ExportButtons } from "../patient/export.tsx";
import { LatestVitals } from "../patient/latest.tsx";
import { Limits } from "../patient/limits.tsx";
import { Waveforms } from "../patient/paper.tsx";
import { Trends } from "../patient/trends.tsx";
import { Link } from "../router.tsx";
import { useRights } from "../session.tsx";
import { AlertCard } from "../ui/alert-card.tsx";
import { Failure, SeenBy, useDocumentTitle, Waiting } from "../ui/basics.tsx";
import { LinkBadge } from "../ui/device-state.tsx";
import { ProvenanceDrawer } from "../ui/provenance.tsx";
import { ENTRIES, homeOf, mayActOnAlerts, mayBreakGlass, mayExportPatients, mayManageConsents, mayReadAudit, mayReadConsents, type Rights } from "../ui/roles.ts";

export function PatientPage({ patientId }: { patientId: string }) {
  // The name stays out of the title: titles are kept by the browser's history.
  useDocumentTitle("Patient");
  const { data, error, refetch } = useFollowed<PatientChart>(`/patients/${encodeURIComponent(patientId)}`, applyToChart);
  const rights = useRights();
  if (data === null) {
    if (error instanceof ApiError && [403, 404].includes(error.status)) return <NotOpen rights={rights} />;
    return <div className="page">{error ? <Failure error={error} retry={refetch} /> : <Waiting what="the patient" />}</div>;
  }
  return (
    <>
      {error ? <Failure error={error} retry={refetch} /> : null}
      <Chart chart={data} refetch={refetch} />
    </>
  );
}

/** Not there, another ward's, denied, or a glass that has ended: the server does not say which. */
function NotOpen({ rights }: { rights: Rights }) {
  const mayBreak = mayBreakGlass(rights);
  const home = ENTRIES.find(({ to }) => to === homeOf(rights));
  return (
    <div className="page">
      <p className="message message-bad" role="alert">
        <strong>This patient is not open to you.</strong> There is no such patient, it is not one of yours, or your access to it has ended.{" "}
        {mayBreak && "In an emergency you can break the glass, on the page "}
        {mayBreak && <Link to="/patients">Patients</Link>}
        {!mayBreak && "What is open to you, you find on the page "}
        {!mayBreak && <Link to={home?.to ?? "/account"}>{home?.label ?? "Your account"}</Link>}.
      </p>
    </div>
  );
}

function Chart({ chart, refetch }: { chart: PatientChart; refetch: () => void }) {
  const now = useNow();
  const linkLost = useLinkLost();
  const rights = useRights();
  const [origin, setOrigin] = useState<string | null>(null);
  useEffect(() => document.querySelector<HTMLElement>(".banner-name")?.focus({ preventScroll: true }), []);
  const alerts = [...chart.alerts].filter((alert) => alert.state !== "resolved").sort(byUrgency);
  return (
    <div className="patient">
      <div className="patient-top">
        <PatientBanner chart={chart} now={now} />
        <LatestVitals vitals={chart.latest} devices={chart.devices} now={now} linkLost={linkLost} onOrigin={setOrigin} />
      </div>
      <div className="patient-grid">
        <div className="patient-main">
          {chart.withheld?.length ? (
            <p className="message message-note withheld">
              <strong>{withheldText(chart.withheld)}.</strong> What is missing here may be measured all the same: look at the bedside. Alarms come whatever the rules say.
            </p>
          ) : null}
          <Waveforms chart={chart} />
          <Trends chart={chart} onOrigin={setOrigin} />
        </div>
        <div className="patient-side">
          <section aria-labelledby="alerts">
            <h2 id="alerts">Open alerts</h2>
            {alerts.length === 0 && <p className="muted">No open alerts.</p>}
            {alerts.map((alert) => (
              <AlertCard key={alert.id} alert={alert} now={now} onChanged={refetch} />
            ))}
          </section>
          <Limits chart={chart} mayEdit={mayActOnAlerts(rights)} onChanged={refetch} />
          <Events chart={chart} />
          {mayReadConsents(rights) && <Consents patientId={chart.patient.id} mayChange={mayManageConsents(rights)} />}
          {mayExportPatients(rights) && (
            <section className="card" aria-labelledby="export">
              <h2 id="export">Everything, to take away</h2>
              <ExportButtons patientId={chart.patient.id} />
            </section>
          )}
          <section className="card" aria-labelledby="devices">
            <h2 id="devices">Devices</h2>
            {chart.devices.length === 0 && <p className="muted">No device is assigned.</p>}
            <ul className="device-list">
              {chart.devices.map((device) => (
                <li key={device.id}>
                  <Link to={`/devices/${device.id}`}>{device.name}</Link> <LinkBadge device={device} />
                  <span className="muted">
                    {device.kind}
                    {device.last_heard_at && `, heard ${agoText(ageSeconds(device.last_heard_at, now))}`}
                    {device.battery_percent !== null && `, battery ${device.battery_percent} %`}
                  </span>
                </li>
              ))}
            </ul>
          </section>
          {mayReadAudit(rights) && (
            <p>
              <Link to={`/audit?patient=${encodeURIComponent(chart.patient.id)}`}>Who looked at this patient</Link>
            </p>
          )}
          <SeenBy>clinicians of the patient's ward, those whom the patient's rules let in, and whoever broke the glass. Every look is logged.</SeenBy>
        </div>
      </div>
      {origin !== null && <ProvenanceDrawer observationId={origin} onClose={() => setOrigin(null)} />}
    </div>
  );
}
