//! The proof of one audit row, checked anew in this browser and told step by step: row, leaf, root, signature, witnesses.

import { useQuery } from "@tanstack/react-query";
import { type ReactNode } from "react";

import type { AuditRow, RowProof } from "../../api/audit.ts";
import { ApiError, get } from "../../api/client.ts";
import { type Check, checkProof } from "../../audit/check.ts";
import { instantText, preciseText } from "../../format/time.ts";
import { Dialog, Failure, Waiting } from "../../ui/basics.tsx";
import { Icon } from "../../ui/icons.tsx";
import { CopyButton, saveText } from "../../ui/once.tsx";

/** How often a proof that is not ready is asked for again, in ms. */
const NOT_YET_MS = 2_000;

export function ProofDrawer({ row, onClose }: { row: AuditRow; onClose: () => void }) {
  const proof = useQuery({
    queryKey: ["proof", row.sequence],
    queryFn: async ({ signal }) => {
      const given = await get<RowProof>(`/audit/${row.sequence}/proof`, signal);
      return { given, check: await checkProof(given) };
    },
    refetchInterval: ({ state }) => (state.error instanceof ApiError && state.error.code === "not-yet-provable" ? NOT_YET_MS : false),
  });
  const early = proof.error instanceof ApiError && proof.error.code === "not-yet-provable";
  return (
    <Dialog title={`Proof of row ${row.sequence}`} onClose={onClose} drawer>
      <p>
        {preciseText(row.at)}: {row.actor.label} did <strong>{row.action}</strong> {row.object}
      </p>
      {proof.isPending && <Waiting what="the proof" />}
      {early && (
        <p className="message message-note" role="status">
          The next checkpoint, in a few seconds, covers this row.
        </p>
      )}
      {proof.isError && !early && <Failure error={proof.error} retry={() => void proof.refetch()} />}
      {proof.data && <Told proof={proof.data.given} check={proof.data.check} />}
    </Dialog>
  );
}

function Told({ proof, check }: { proof: RowProof; check: Check }) {
  return (
    <>
      <p className={check.holds ? "message message-good" : "message message-bad"} role="status">
        <Icon name={check.holds ? "check" : "quarantine"} />{" "}
        <strong>{check.holds ? "Proven." : "NOT PROVEN."}</strong>{" "}
        {check.holds
          ? "This browser computed it again: the row stands in the log, at this place, as it was signed."
          : "The parts do not fit together. Tell the privacy officer, and run “auscult verify” on the server."}
      </p>
      <ol className="proof">
        <ProofStep holds={check.content} title="The row">
          {proof.content === null ? (
            <p>Its content was erased. What was committed to then still stands, and proves that a row was here.</p>
          ) : (
            <>
              <p>The content and its salt give the commitment that the leaf holds.</p>
              <details>
                <summary>Content as it was committed</summary>
                <pre className="source" tabIndex={0}>
                  {readable(proof.content.payload)}
                </pre>
              </details>
            </>
          )}
        </ProofStep>
        <ProofStep holds={check.leaf} title="Its leaf">
          <Hash>{check.leafHex}</Hash>
          <p className="hint">
            Leaf {proof.index + 1} of {proof.size}
          </p>
        </ProofStep>
        <ProofStep holds={check.root} title={`${check.steps.length} steps to the root`}>
          <details>
            <summary>Each step: its neighbour, and what the two make</summary>
            <ol className="climb">
              {check.steps.map((step, index) => (
                <li key={index}>
                  <span className="muted">neighbour on the {step.side}</span> <Hash>{step.siblingHex}</Hash>
                  <span className="muted">makes</span> <Hash>{step.resultHex}</Hash>
                </li>
              ))}
            </ol>
          </details>
          <p>Root:</p>
          <Hash>{check.rootHex}</Hash>
        </ProofStep>
        <ProofStep holds={check.signature} title="Signed by the log">
          <p>
            The checkpoint of {check.origin} with {proof.size} rows carries this root{check.signedBy ? ` and the signature of ${check.signedBy}` : ""}.
          </p>
          <details>
            <summary>The checkpoint</summary>
            <pre className="source" tabIndex={0}>
              {proof.checkpoint}
            </pre>
          </details>
        </ProofStep>
        <ProofStep holds={check.witnesses.length === 0 ? null : check.witnesses.every(({ holds }) => holds)} title="Seen by witnesses outside">
          {check.witnesses.length === 0 && <p>None has signed this checkpoint yet. Without a witness the log vouches for itself alone.</p>}
          <ul className="plain">
            {check.witnesses.map((witness) => (
              <li key={witness.name}>
                {witness.name}: {witness.holds ? `signed ${witness.at === null ? "" : instantText(witness.at.toISOString())}` : "its signature does NOT hold"}
              </li>
            ))}
          </ul>
        </ProofStep>
      </ol>
      <div className="form-actions">
        <CopyButton text={proof.tlog_proof} label="Copy proof" />
        <button type="button" onClick={() => saveText(`row-${proof.sequence}.tlog-proof`, proof.tlog_proof)}>
          Download proof
        </button>
      </div>
      <p className="hint">The keys came with the answer. To be independent of this server, compare them with the ones you keep:</p>
      {proof.log_keys.map((key) => (
        <Hash key={key}>{key}</Hash>
      ))}
    </>
  );
}

function readable(payload: string): string {
  try {
    return JSON.stringify(JSON.parse(payload), null, 2);
  } catch {
    return payload;
  }
}

function ProofStep({ holds, title, children }: { holds: boolean | null; title: string; children: ReactNode }) {
  return (
    <li className={holds === null ? "step-none" : holds ? "step-good" : "step-bad"}>
      <h3>
        {title} <span className={`tag ${holds === null ? "" : holds ? "tag-good" : "tag-bad"}`}>{holds === null ? "Not there" : holds ? "Holds" : "Does not hold"}</span>
      </h3>
      {children}
    </li>
  );
}

function Hash({ children }: { children: string }) {
  return <code className="hash">{children}</code>;
}
