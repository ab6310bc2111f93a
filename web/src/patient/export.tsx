//! Everything about one patient, to take away: readable pages, or FHIR for another system.

import { useMutation } from "@tanstack/react-query";

import { get } from "../api/client.ts";
import { Failure } from "../ui/basics.tsx";

/** Asks for the fresh proof first: a download cannot open a dialog. */
export function ExportButtons({ patientId }: { patientId: string }) {
  const base = `/patients/${encodeURIComponent(patientId)}/export`;
  const take = useMutation({
    mutationFn: async (file: string) => {
      await get<unknown>(base);
      const link = document.createElement("a");
      link.href = `/api/v1${base}/${file}`;
      link.download = "";
      link.click();
    },
  });
  return (
    <>
      <div className="export">
        <button type="button" disabled={take.isPending} onClick={() => take.mutate("record.html")}>
          Readable pages (HTML)
        </button>
        <button type="button" disabled={take.isPending} onClick={() => take.mutate("record.ndjson")}>
          For another system (FHIR)
        </button>
      </div>
      <p className="hint">The file is not encrypted: keep it where only those look whom it concerns.</p>
      {take.isError && <Failure error={take.error} />}
    </>
  );
}
