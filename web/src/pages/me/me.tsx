//! The patient's own page: my readings, what I allow, who looked, and everything to take away.

import { useState } from "react";

import type { PatientChart } from "../../api/types.ts";
import { bornText, fullName } from "../../format/people.ts";
import { applyToChart } from "../../live/apply.ts";
import { useFollowed, useFollowing, useLinkLost, useNow } from "../../live/context.tsx";
import { Consents } from "../../patient/consents.tsx";
import { ExportButtons } from "../../patient/export.tsx";
import { LatestVitals } from "../../patient/latest.tsx";
import { Trends } from "../../patient/trends.tsx";
import { useUser } from "../../session.tsx";
import { Empty, Failure, PageTitle, useDocumentTitle, Waiting } from "../../ui/basics.tsx";
import { ProvenanceDrawer } from "../../ui/provenance.tsx";
import { WhoLooked } from "./who-looked.tsx";

export function MePage() {
  useDocumentTitle("My data");
  const { patient } = useUser();
  return (
    <div className="page">
      <PageTitle seenBy="you, and those your rules and the site's let see it. Nobody else opens this page.">My data</PageTitle>
      {patient === null ? (
        <Empty>Your account is not tied to a record yet. Ask whoever invited you.</Empty>
      ) : (
        <>
          <Readings patientId={patient} />
          <Consents patientId={patient} mayChange own />
          <WhoLooked />
          <section className="card" aria-labelledby="take-away">
            <h2 id="take-away">Everything about me, to take away</h2>
            <p>All readings, curves, alerts and limits, your devices, what you allow, and who looked, as pages to read or for another system.</p>
            <ExportButtons patientId={patient} />
          </section>
        </>
      )}
    </div>
  );
}

/** The latest values and the curves of one patient, for the patient and those they named. */
export function Readings({ patientId }: { patientId: string }) {
  const now = useNow();
  const linkLost = useLinkLost();
  const [origin, setOrigin] = useState<string | null>(null);
  useFollowing(patientId);
  const { data, error, refetch } = useFollowed<PatientChart>(`/patients/${encodeURIComponent(patientId)}`, applyToChart);
  if (data === null) return error ? <Failure error={error} retry={refetch} /> : <Waiting what="readings" />;
  return (
    <section aria-labelledby="readings">
      <h2 id="readings" className="own-name">
        {fullName(data.patient)} <span className="muted">born {bornText(data.patient.birth_date, new Date(now))}</span>
      </h2>
      {error ? <Failure error={error} retry={refetch} /> : null}
      {data.latest.length === 0 && <Empty>No reading so far.</Empty>}
      <LatestVitals vitals={data.latest} devices={data.devices} now={now} linkLost={linkLost} inWords onOrigin={setOrigin} />
      {data.series.length > 0 && <Trends chart={data} onOrigin={setOrigin} />}
      {origin !== null && <ProvenanceDrawer observationId={origin} onClose={() => setOrigin(null)} />}
    </section>
  );
}
