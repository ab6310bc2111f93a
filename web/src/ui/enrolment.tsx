//! A device's certificate: its state in words, the claim code for an installer, revoking, and ending a device's life here.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get, post, remove } from "../api/client.ts";
import type { Certificate, Claim, Decommissioned, Enrolment, EnrolmentState } from "../api/enrolment.ts";
import { instantText } from "../format/time.ts";
import { ActForm, ReasonForm } from "./act-form.tsx";
import { Dialog, Fact, Failure, Field, Waiting } from "./basics.tsx";
import { CopyButton, OneTimeText, saveText } from "./once.tsx";
import { QrCode } from "./qr.tsx";

const STATES: Record<EnrolmentState, { text: string; tone: "good" | "warn" | "bad" | "" }> = {
  none: { text: "No certificate", tone: "" },
  claimable: { text: "Waits to be claimed", tone: "warn" },
  enrolled: { text: "Enrolled", tone: "good" },
  "renewal-due": { text: "Renewal due", tone: "good" },
  expired: { text: "Certificate expired", tone: "bad" },
  "renewal-to-review": { text: "Asks to come back", tone: "warn" },
  revoked: { text: "Revoked", tone: "bad" },
  decommissioned: { text: "Decommissioned", tone: "" },
};

export function EnrolmentBadge({ state }: { state: EnrolmentState }) {
  const known = STATES[state] ?? { text: state, tone: "" };
  return <span className={`tag ${known.tone === "" ? "" : `tag-${known.tone}`}`}>{known.text}</span>;
}

const VIA: Record<Certificate["via"], string> = { claim: "claim code", est: "EST", renewal: "renewal", operator: "an operator on the server" };

type Act = "claim" | "revoke" | "decommission" | "review" | null;

/** On a device's page. */
export function EnrolmentCard({ deviceId }: { deviceId: string }) {
  const client = useQueryClient();
  const [act, setAct] = useState<Act>(null);
  const key = ["enrolment", deviceId];
  const found = useQuery({ queryKey: key, queryFn: ({ signal }) => get<Enrolment>(`/devices/${encodeURIComponent(deviceId)}/enrolment`, signal) });
  const changed = () => {
    void client.invalidateQueries({ queryKey: ["enrolment"] });
    void client.invalidateQueries({ queryKey: ["device", deviceId] });
    void client.invalidateQueries({ queryKey: ["devices"] });
  };
  const withdraw = useMutation({ mutationFn: () => remove<Enrolment>(`/devices/${encodeURIComponent(deviceId)}/claim`), onSettled: changed });
  const close = () => {
    changed();
    setAct(null);
  };
  const one = found.data;
  return (
    <section className="card" aria-labelledby="certificate">
      <header className="card-head">
        <h2 id="certificate">Certificate {one && <EnrolmentBadge state={one.state} />}</h2>
        {one && one.state !== "decommissioned" && (
          <span className="line-acts">
            {one.state === "renewal-to-review" && (
              <button type="button" className="primary" onClick={() => setAct("review")}>
                Decide
              </button>
            )}
            <button type="button" onClick={() => setAct("claim")}>
              {one.certificate === null ? "Claim code" : "Enrol anew"}
            </button>
            {one.certificate !== null && one.state !== "revoked" && (
              <button type="button" className="danger" onClick={() => setAct("revoke")}>
                Revoke
              </button>
            )}
            <button type="button" className="danger" onClick={() => setAct("decommission")}>
              Decommission
            </button>
          </span>
        )}
      </header>
      {found.isPending && <Waiting what="the certificate" />}
      {found.isError && <Failure error={found.error} retry={() => void found.refetch()} />}
      {withdraw.isError && <Failure error={withdraw.error} />}
      {one?.claim?.state === "open" && (
        <p className="message message-note">
          A claim code waits until {instantText(one.claim.expires_at)}.{" "}
          <button type="button" className="link" disabled={withdraw.isPending} onClick={() => withdraw.mutate()}>
            Withdraw it
          </button>
        </p>
      )}
      {one && one.certificate === null && <p className="muted">This device cannot send anything yet: it has no certificate.</p>}
      {one?.certificate && (
        <dl className="facts">
          <Fact label="Valid until">{instantText(one.certificate.not_after)}</Fact>
          <Fact label="Issued">
            {one.certificate.issued_at === null ? "Time not known" : instantText(one.certificate.issued_at)}, by {VIA[one.certificate.via] ?? one.certificate.via}
          </Fact>
          <Fact label="Last renewed">{one.last_renewed_at === null ? "Never" : instantText(one.last_renewed_at)}</Fact>
          <Fact label="Serial number of the certificate">
            <span className="mono">{one.certificate.serial_hex}</span>
          </Fact>
          {one.certificate.revoked_at && (
            <Fact label="Revoked">
              {instantText(one.certificate.revoked_at)}: {one.certificate.revoked_because}
            </Fact>
          )}
        </dl>
      )}
      {(one?.history?.length ?? 0) > 1 && (
        <details>
          <summary>All {one?.certificates} certificates</summary>
          <ul className="lines">
            {one?.history?.map((certificate) => (
              <li key={certificate.serial_hex}>
                <span className="line-main">
                  <span className="mono">{certificate.serial_hex}</span>
                  <span className="muted">
                    {instantText(certificate.not_before)} to {instantText(certificate.not_after)}, by {VIA[certificate.via] ?? certificate.via}
                    {certificate.revoked_at && `, revoked ${instantText(certificate.revoked_at)}: ${certificate.revoked_because ?? ""}`}
                  </span>
                </span>
              </li>
            ))}
          </ul>
        </details>
      )}
      {act === "claim" && one && <ClaimDialog enrolment={one} onClose={close} />}
      {act === "revoke" && one && <RevokeDialog enrolment={one} onClose={() => setAct(null)} onDone={close} />}
      {act === "decommission" && one && <DecommissionDialog enrolment={one} onClose={close} />}
      {act === "review" && one && <LateDialog enrolment={one} onClose={() => setAct(null)} onDone={close} />}
    </section>
  );
}

/** `sha256:…` of the authority's root: whoever types by hand compares it, and no device believes a server untold. */
const pinOf = (claim: Claim): string => new URLSearchParams(new URL(claim.qr_text).hash.slice(1)).get("pin") ?? "";

export function ClaimDialog({ enrolment, onClose }: { enrolment: Pick<Enrolment, "device_id" | "name" | "serial" | "certificate">; onClose: () => void }) {
  const make = useMutation({ mutationFn: () => post<Claim>(`/devices/${encodeURIComponent(enrolment.device_id)}/claim`) });
  return (
    <Dialog title={`Enrol ${enrolment.name}`} onClose={onClose} wide>
      {make.data === undefined ? (
        <ActForm action={make} verb="Make a claim code" onClose={onClose}>
          <p>
            A claim code lets the device with the serial number <strong className="mono">{enrolment.serial}</strong>, and no other, fetch its certificate once. The key is made on the device and never leaves it.
          </p>
          {enrolment.certificate !== null && <p className="message message-note">When the code is used, the device's certificates from before are revoked.</p>}
        </ActForm>
      ) : (
        <>
          <p>
            Scan this with the installer's phone, or type the code into the device. Shown <strong>once, now</strong>; good until {instantText(make.data.expires_at)}.
          </p>
          <div className="qr-beside claim">
            <QrCode text={make.data.qr_text} label={`QR code to enrol ${enrolment.name}`} />
            <div>
              <OneTimeText label="Claim code" text={make.data.code} />
              <dl className="facts">
                <Fact label="Serial number">
                  <span className="mono">{enrolment.serial}</span>
                </Fact>
                <Fact label="Address">
                  <span className="mono">{make.data.claim_url}</span>
                </Fact>
              </dl>
              <OneTimeText label="Pin: by it the device knows this server" text={pinOf(make.data)} />
              <p>
                <CopyButton text={make.data.qr_text} label="Copy all of it as a link" />
              </p>
            </div>
          </div>
          <div className="form-actions">
            <button type="button" onClick={() => window.print()}>
              Print
            </button>
            <button type="button" className="primary" onClick={onClose}>
              Done
            </button>
          </div>
        </>
      )}
    </Dialog>
  );
}

interface ActProps {
  enrolment: Enrolment;
  onClose: () => void;
}

function RevokeDialog({ enrolment, onClose, onDone }: ActProps & { onDone: () => void }) {
  return (
    <Dialog title={`Revoke the certificate of ${enrolment.name}`} onClose={onClose}>
      <ReasonForm act={(reason) => post<Enrolment>(`/devices/${encodeURIComponent(enrolment.device_id)}/certificate/revoke`, { reason })} onDone={onDone} verb="Revoke" hint="E.g. lost, stolen, key known to others" dangerous onClose={onClose}>
        <p className="message message-bad">
          <strong>Its connections end within a second, and nothing it sends is taken any more.</strong> If it watches over a patient, put another device there first. To come back it must be enrolled anew.
        </p>
      </ReasonForm>
    </Dialog>
  );
}

function DecommissionDialog({ enrolment, onClose }: ActProps) {
  const [done, setDone] = useState<Decommissioned | null>(null);
  if (done !== null) {
    const { proof } = done;
    return (
      <Dialog title={`${enrolment.name} is decommissioned`} onClose={onClose}>
        <p>
          {proof.revoked.length === 1 ? "Its certificate is" : `Its ${proof.revoked.length} certificates are`} revoked and on the published list
          {proof.assignment_ended ? "; its assignment has ended" : ""}.
        </p>
        <dl className="facts">
          <Fact label="When">{instantText(proof.at)}</Fact>
          <Fact label="By">{proof.by.label}</Fact>
          <Fact label="Serial number">
            <span className="mono">{proof.serial}</span>
          </Fact>
        </dl>
        <div className="form-actions">
          <button type="button" onClick={() => saveText(`decommissioned-${proof.serial}.json`, JSON.stringify(proof, null, 2), "application/json")}>
            Download the proof
          </button>
          <button type="button" className="primary" onClick={onClose}>
            Done
          </button>
        </div>
      </Dialog>
    );
  }
  return (
    <Dialog title={`Decommission ${enrolment.name}`} onClose={onClose}>
      <ReasonForm act={(reason) => post<Decommissioned>(`/devices/${encodeURIComponent(enrolment.device_id)}/decommission`, { reason })} onDone={setDone} verb="Decommission" dangerous onClose={onClose}>
        <p>For a device that leaves for good: it is retired, its assignment ends, its certificates are revoked, an open claim code is withdrawn. What it measured stays.</p>
        <p className="message message-note">Clear the device itself as its maker says: it may still hold network keys and patients' data.</p>
      </ReasonForm>
    </Dialog>
  );
}

function LateDialog({ enrolment, onClose, onDone }: ActProps & { onDone: () => void }) {
  const [note, setNote] = useState("");
  const decide = useMutation({
    mutationFn: (approve: boolean) => post<Enrolment>(`/devices/${encodeURIComponent(enrolment.device_id)}/late-renewal`, { approve, note: note.trim() }),
    onSuccess: onDone,
  });
  return (
    <Dialog title={`${enrolment.name} asks to come back`} onClose={onClose}>
      <p>
        Its certificate ended {instantText(enrolment.review?.expired_at)}; it asked for a new one {instantText(enrolment.review?.asked_at)}. It may have been in a cupboard, or its clock may have lost its battery. Look at
        the device before you decide.
      </p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          decide.mutate(true);
        }}
      >
        <Field label="Note">
          <input required autoFocus autoComplete="off" value={note} onChange={(event) => setNote(event.target.value)} />
        </Field>
        {decide.isError && <Failure error={decide.error} />}
        <div className="form-actions">
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="button" className="danger" disabled={decide.isPending || note.trim() === ""} onClick={() => decide.mutate(false)}>
            Refuse and revoke
          </button>
          <button type="submit" className="primary" disabled={decide.isPending}>
            Let it renew
          </button>
        </div>
      </form>
    </Dialog>
  );
}
