//! What could not be read or placed: why, the very bytes, how to mend it, and another run.

import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { explain, get, post, put, query } from "../api/client.ts";
import type { Device, QuarantineDetail, QuarantineItem, QuarantineList } from "../api/types.ts";
import { ageSeconds, agoText, instantText, withReadableTimes } from "../format/time.ts";
import { useLiveEvent, useNow } from "../live/context.tsx";
import { Link, navigate, useLocation } from "../router.tsx";
import { useRights } from "../session.tsx";
import { AssignDialog } from "../ui/assign.tsx";
import { ActForm } from "../ui/act-form.tsx";
import { Dialog, Empty, Fact, Failure, Field, Older, PageTitle, useDocumentTitle, Waiting } from "../ui/basics.tsx";
import { HexView } from "../ui/hex.tsx";
import { mayManageDevices } from "../ui/roles.ts";
import { Table } from "../ui/table.tsx";

/** Items fetched at once. */
const LISTED_MAX = 200;

interface Reason {
  title: string;
  mend: string;
  assign?: boolean;
  clock?: boolean;
}

const REASONS: Record<string, Reason> = {
  undecodable: { title: "Could not be read", mend: "The bytes do not follow their format. Check the device's firmware and the kind it is registered as, then run it again; discard it where the device sent rubbish." },
  "unknown-device": { title: "Device not registered", mend: "Register the device, assign it, and run this again." },
  unassigned: { title: "Assigned to nobody", mend: "Nobody can be named whose reading this is. Assign the device from a time before the reading, then run it again.", assign: true },
  clock: { title: "Impossible time", mend: "The device's clock is wrong. Set a clock rule for the device, then run this again.", clock: true },
  unit: { title: "Unit does not fit", mend: "The unit sent is none of this measure's. Mend the device's configuration; what is here can be run again after the mapping was mended." },
  impossible: { title: "Impossible value", mend: "The value cannot be a measurement of its kind. Check the sensor; discard it with a reason." },
  demonstration: { title: "Demonstration data", mend: "The device says that this is a test or demonstration. It is never charted; discard it." },
  "wrong-subject": { title: "Names another patient", mend: "The sender named a patient the device is not assigned to. Find out whose it is, mend the assignment, and run this again.", assign: true },
};

function reasonOf(word: string): Reason {
  return REASONS[word] ?? { title: word.replaceAll("-", " "), mend: "Find the cause, mend it, and run this again." };
}

export function QuarantinePage({ itemId }: { itemId: string | null }) {
  useDocumentTitle("Quarantine");
  const client = useQueryClient();
  const { searchParams } = useLocation();
  const deviceId = searchParams.get("device");
  const [state, setState] = useState<"waiting" | "all">("waiting");
  const [reason, setReason] = useState("");
  const list = useInfiniteQuery({
    queryKey: ["quarantine", state],
    queryFn: ({ pageParam, signal }) => get<QuarantineList>(`/quarantine${query({ state, limit: LISTED_MAX, before: pageParam })}`, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next_before ?? undefined,
  });
  const reload = () => {
    void client.invalidateQueries({ queryKey: ["quarantine"] });
    void client.invalidateQueries({ queryKey: ["devices"] });
  };
  useLiveEvent((event) => {
    if (event.type === "quarantine" || event.type === "reset") void client.invalidateQueries({ queryKey: ["quarantine"] });
  });
  const listed = list.data?.pages.flatMap((page) => page.items) ?? [];
  const items = listed.filter((item) => (reason === "" || item.reason === reason) && (deviceId === null || item.device.id === deviceId));
  const reasons = [...new Set(listed.map((item) => item.reason))];
  const count = list.data?.pages[0]?.count;
  return (
    <div className="page">
      <PageTitle seenBy="nurses, biomedical engineers and administrators." actions={<RerunAll deviceId={deviceId} reason={reason || null} disabled={items.every((item) => item.state !== "waiting")} onDone={reload} />}>Quarantine</PageTitle>
      <p className="muted">
        What could not be read or placed is kept whole until someone mends the cause.
        {count && ` ${count.items} of at most ${count.limit_items.toLocaleString("en")} items wait, ${(count.bytes / 1024).toFixed(1)} KiB.`}
      </p>
      {count && count.items > count.limit_items * 0.8 && <p className="message message-bad">The quarantine is nearly full. Beyond its bound, devices get no acknowledgement and must keep their data.</p>}
      <div className="filters">
        <div className="segmented" role="group" aria-label="Which items">
          <button type="button" aria-pressed={state === "waiting"} onClick={() => setState("waiting")}>
            Waiting
          </button>
          <button type="button" aria-pressed={state === "all"} onClick={() => setState("all")}>
            All
          </button>
        </div>
        <label>
          Reason{" "}
          <select value={reason} onChange={(event) => setReason(event.target.value)}>
            <option value="">Any</option>
            {reasons.map((word) => (
              <option key={word} value={word}>
                {reasonOf(word).title}
              </option>
            ))}
          </select>
        </label>
        {deviceId !== null && (
          <span className="tag">
            One device only{" "}
            <button type="button" className="link" onClick={() => navigate("/quarantine")}>
              show all
            </button>
          </span>
        )}
      </div>
      {list.isPending && <Waiting what="the quarantine" />}
      {list.isError && <Failure error={list.error} retry={() => void list.refetch()} />}
      {list.data && items.length === 0 && <Empty>Nothing {state === "waiting" ? "waits" : "is"} here.</Empty>}
      {items.length > 0 && <Items items={items} />}
      <Older list={list} />
      {itemId !== null && <ItemDrawer key={itemId} itemId={itemId} onClose={() => navigate(`/quarantine${query({ device: deviceId })}`)} onChanged={reload} />}
    </div>
  );
}

function Items({ items }: { items: QuarantineItem[] }) {
  const now = useNow();
  return (
    <Table heads={["Reason", "What", "Device", "Received", "Kind", "State"]}>
      {items.map((item) => (
        <tr key={item.id}>
          <th scope="row">
            <Link to={`/quarantine/${item.id}`}>{reasonOf(item.reason).title}</Link>
          </th>
          <td data-label="What">{withReadableTimes(item.what)}</td>
          <td className="nowrap" data-label="Device">
            <Link to={`/devices/${item.device.id}`}>{item.device.name}</Link>
          </td>
          <td className="nowrap" data-label="Received">
            {instantText(item.received_at)} <span className="age">{agoText(ageSeconds(item.received_at, now))}</span>
          </td>
          <td className="nowrap" data-label="Kind">
            <span className="mono">{item.kind}</span> <span className="age">{item.size_bytes} bytes</span>
          </td>
          <td data-label="State">{item.state}</td>
        </tr>
      ))}
    </Table>
  );
}

function RerunAll({ deviceId, reason, disabled, onDone }: { deviceId: string | null; reason: string | null; disabled: boolean; onDone: () => void }) {
  const run = useMutation({
    mutationFn: () => post<{ released: number; still_waiting: number }>("/quarantine/rerun", { device_id: deviceId, reason }),
    onSuccess: onDone,
  });
  const what = deviceId !== null || reason !== null ? "Run those shown again" : "Run all again";
  return (
    <>
      <span role="status" className={run.isError ? "bad" : "muted"}>
        {run.isError && explain(run.error)}
        {run.data && `${run.data.released} charted, ${run.data.still_waiting} still waiting.`}
      </span>
      <button type="button" disabled={disabled || run.isPending} onClick={() => run.mutate()}>
        {run.isPending ? "Running …" : what}
      </button>
    </>
  );
}

interface DrawerProps {
  itemId: string;
  onClose: () => void;
  onChanged: () => void;
}

function ItemDrawer({ itemId, onClose, onChanged }: DrawerProps) {
  const client = useQueryClient();
  const key = ["quarantine", "item", itemId];
  const found = useQuery({ queryKey: key, queryFn: ({ signal }) => get<QuarantineDetail>(`/quarantine/${encodeURIComponent(itemId)}`, signal) });
  const changed = () => {
    void client.invalidateQueries({ queryKey: key });
    onChanged();
  };
  return (
    <Dialog title="Quarantined" onClose={onClose} drawer>
      {found.isPending && <Waiting what="the item" />}
      {found.isError && <Failure error={found.error} retry={() => void found.refetch()} />}
      {found.data && <Item detail={found.data} onChanged={changed} />}
    </Dialog>
  );
}

interface Outcome {
  outcome: "committed" | "quarantined";
  what: string;
  observation_ids: string[];
}

function Item({ detail, onChanged }: { detail: QuarantineDetail; onChanged: () => void }) {
  const { item } = detail;
  const reason = reasonOf(item.reason);
  const rights = useRights();
  const [open, setOpen] = useState<"assign" | "discard" | null>(null);
  const rerun = useMutation({ mutationFn: () => post<Outcome>(`/quarantine/${item.id}/rerun`), onSuccess: onChanged });
  const waiting = item.state === "waiting";
  return (
    <>
      <p className="quarantine-what">
        <strong>{reason.title}</strong>: {withReadableTimes(item.what)}
      </p>
      <dl className="facts">
        <Fact label="Device">
          <Link to={`/devices/${item.device.id}`}>{item.device.name}</Link>
        </Fact>
        <Fact label="Received">{instantText(item.received_at)}</Fact>
        <Fact label="Kind">
          <span className="mono">{item.kind}</span>, {item.size_bytes} bytes
        </Fact>
        <Fact label="State">{item.state}</Fact>
      </dl>
      {waiting && (
        <section className="mend">
          <h3>How to mend it</h3>
          <p>
            {reason.mend}
            {reason.clock && !mayManageDevices(rights) && " A biomedical engineer or an administrator can set the rule."}
          </p>
          <div className="mend-actions">
            {reason.assign && (
              <button type="button" onClick={() => setOpen("assign")}>
                Assign {item.device.name}
              </button>
            )}
            {reason.clock && mayManageDevices(rights) && <ClockRuleButtons deviceId={item.device.id} onDone={onChanged} />}
            <button type="button" className="primary" disabled={rerun.isPending} onClick={() => rerun.mutate()}>
              {rerun.isPending ? "Running …" : "Run again"}
            </button>
            <button type="button" className="danger" onClick={() => setOpen("discard")}>
              Discard
            </button>
          </div>
        </section>
      )}
      {rerun.isError && <Failure error={rerun.error} />}
      {rerun.data && (
        <p className={`message ${rerun.data.outcome === "committed" ? "message-good" : "message-bad"}`} role="status">
          <strong>{rerun.data.outcome === "committed" ? "Charted" : "Still in quarantine"}</strong>: {withReadableTimes(rerun.data.what)}
        </p>
      )}
      <h3>The bytes that arrived</h3>
      <HexView hex={detail.hex} explained={detail.explained} fault={item.reason === "undecodable" || item.offset > 0 ? item.offset : null} />
      {open === "assign" && <AssignDialog device={item.device} suggestedStart={hourBefore(item.received_at)} onClose={() => setOpen(null)} onDone={onChanged} />}
      {open === "discard" && <DiscardDialog item={item} onClose={() => setOpen(null)} onDone={onChanged} />}
    </>
  );
}

/** A reading is measured before it is received: an assignment for it must begin earlier. One hour covers what a cuff stores. */
function hourBefore(receivedAt: string): string {
  return new Date(Date.parse(receivedAt) - 3_600_000).toISOString();
}

/** Sets the rule that needs no number at once; a known shift is set on the device's own page. */
function ClockRuleButtons({ deviceId, onDone }: { deviceId: string; onDone: () => void }) {
  const set = useMutation({
    mutationFn: async () => {
      const device = await get<Device>(`/devices/${deviceId}`);
      const { version, name, utc_offset_min, expected_interval_s, retired } = device;
      return put(`/devices/${deviceId}`, { version, name, clock: { rule: "use-received" }, utc_offset_min, expected_interval_s, retired });
    },
    onSuccess: onDone,
  });
  return (
    <>
      <button type="button" disabled={set.isPending || set.isSuccess} onClick={() => set.mutate()}>
        {set.isSuccess ? "Clock rule set" : "Ignore its clock, use the time of receipt"}
      </button>
      <Link className="button" to={`/devices/${deviceId}`}>
        Other clock rule …
      </Link>
      {set.isError && <Failure error={set.error} />}
    </>
  );
}

function DiscardDialog({ item, onClose, onDone }: { item: QuarantineItem; onClose: () => void; onDone: () => void }) {
  const [reason, setReason] = useState("");
  const send = useMutation({
    mutationFn: () => post<QuarantineItem>(`/quarantine/${item.id}/discard`, { reason: reason.trim() }),
    onSuccess: () => {
      onDone();
      onClose();
    },
  });
  return (
    <Dialog title="Discard for good" onClose={onClose}>
      <p>The data will not be charted. Your reason is kept in the audit log.</p>
      <ActForm action={send} verb="Discard" blocked={reason.trim() === ""} dangerous onClose={onClose}>
        <Field label="Reason">
          <textarea required rows={3} autoFocus value={reason} onChange={(event) => setReason(event.target.value)} />
        </Field>
      </ActForm>
    </Dialog>
  );
}
