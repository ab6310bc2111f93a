//! The identity banner: who this is, always in sight on every page of a patient.

import type { PatientChart } from "../api/types.ts";
import { bornText, fullName, genderText } from "../format/people.ts";
import { Link } from "../router.tsx";

export function PatientBanner({ chart, now }: { chart: PatientChart; now: number }) {
  const { patient, place, ward } = chart;
  return (
    <section className="banner" aria-label="Patient">
      <h1 className="banner-name" tabIndex={-1}>
        {fullName(patient)}
      </h1>
      <dl>
        <div>
          <dt>Born</dt>
          <dd>{bornText(patient.birth_date, new Date(now))}</dd>
        </div>
        <div>
          <dt>Gender</dt>
          <dd>{genderText(patient.gender)}</dd>
        </div>
        <div>
          <dt>Record No.</dt>
          <dd>{patient.record_number}</dd>
        </div>
        <div>
          <dt>Place</dt>
          <dd>
            {place?.name ?? "Not Known"}
            {ward && (
              <>
                , <Link to={`/wards/${ward.id}`}>{ward.name}</Link>
              </>
            )}
          </dd>
        </div>
      </dl>
      <p className="banner-allergies">Allergies not recorded</p>
      {patient.active === false && <p className="banner-inactive">Not in care here now</p>}
    </section>
  );
}
