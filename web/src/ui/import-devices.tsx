//! Taking in a list of expected devices from a spreadsheet's CSV.

import { useMutation } from "@tanstack/react-query";
import { useState } from "react";

import { postText } from "../api/client.ts";
import { ActForm } from "./act-form.tsx";
import { Dialog, Field } from "./basics.tsx";

/** Largest list that the server takes, in bytes. */
const MAX_BYTES = 1_048_576;

interface Imported {
  added: { line: number; device_id: string; serial: string }[];
  known: { line: number; device_id: string; serial: string }[];
  refused: { line: number; why: string }[];
}

export function ImportDialog({ onClose, onDone }: { onClose: () => void; onDone: () => void }) {
  const [text, setText] = useState("");
  const send = useMutation({ mutationFn: () => postText<Imported>("/enrolment/import", text, "text/csv"), onSuccess: onDone });
  const tooLarge = new Blob([text]).size > MAX_BYTES;
  return (
    <Dialog title="Import a list of devices" onClose={onClose} wide>
      {send.data === undefined ? (
        <ActForm action={send} verb="Import" blocked={tooLarge} onClose={onClose}>
          <p>
            The first line names the columns: <span className="mono">serial,model</span>, and if you like <span className="mono">name,manufacturer,kind</span>. Nothing is taken in when any line is wrong.
          </p>
          <Field label="File">
            <input type="file" accept=".csv,text/csv" onChange={(event) => void event.target.files?.[0]?.text().then(setText)} />
          </Field>
          <Field label="Or paste it here" hint={tooLarge ? "Too large: at most 1 MiB" : "At most 2,000 lines"}>
            <textarea rows={8} required className="mono" spellCheck={false} aria-invalid={tooLarge} value={text} onChange={(event) => setText(event.target.value)} />
          </Field>
        </ActForm>
      ) : (
        <>
          <p className="message message-good" role="status">
            {send.data.added.length} added, {send.data.known.length} known already.
          </p>
          <div className="form-actions">
            <button type="button" className="primary" onClick={onClose}>
              Done
            </button>
          </div>
        </>
      )}
    </Dialog>
  );
}
