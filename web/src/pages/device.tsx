//! One device: whose data it measures and when, how far its clock is believed, and whether it is in service.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get, post, put } from "../api/client.ts";
import type { Assignment, ClockRule, Device, DeviceState } from "../api/types.ts";
import { ageSeconds, agoText, fromLocalField, instantText, toLocalField } from "../format/time.ts";
import { useLiveEvent, useNow } from "../live/context.tsx";
import { Link } from "../router.tsx";
import { useRights } from "../session.tsx";
import { AssignDialog } from "../ui/assign.tsx";
import { ActForm } from "../ui/act-form.tsx";
import { Dialog, Empty, Fact, Failure, Field, PageTitle, useDocumentTitle, Waiting } from "../ui/basics.tsx";
import { LinkBadge } from "../ui/device-state.tsx";
import { EnrolmentCard } from "../ui/enrolment.tsx";
import { mayAssignDevices, mayEnrolDevices, mayManageDevices, maySeePatients } from "../ui/roles.ts";
import { Table } from "../ui/table.tsx";
import { TimeField } from "../ui/time-field.tsx";

/** The page is read again this often, in ms: engineers have no live stream, which is for those who see patients. */
const RENEW_MS = 10_000;

export function clockText(clock: ClockRule): string {
  switch (clock.rule) {
    case "trust":
      return "Believed as sent";
    case "use-received":
      return "Ignored; the time of receipt stands in";
    case "shift":
      return `Off by a known amount: ${clock.seconds >= 0 ? "+" : "−"}${Math.abs(clock.seconds)} s are added`;
  }
}

export function DevicePage({ deviceId }: { deviceId: string }) {
  useDocumentTitle("Device");
  const client = useQueryClient();
  const key = ["device", deviceId];
  const found = useQuery({ queryKey: key, queryFn: ({ signal }) => get<Device>(`/devices/${encodeURIComponent(deviceId)}`, signal), refetchInterval: RENEW_MS });
  const reload = () => {
    void client.invalidateQueries({ queryKey: key });
    void client.invalidateQueries({ queryKey: ["devices"] });
  };
  useLiveEvent((event) => {
    if (event.type === "device" && (event.data as DeviceState).id === deviceId) {
      client.setQueryData<Device>(key, (known) => known && { ...known, ...(event.data as DeviceState) });
    } else if (event.type === "assignment" || event.type === "reset") reload();
  });
  if (found.isPending) return <div className="page"><Waiting what="the device" /></div>;
  if (found.isError) return <div className="page"><Failure error={found.error} retry={() => void found.refetch()} /></div>;
  return <Detail device={found.data} reload={reload} />;
}

function Detail({ device, reload }: { device: Device; reload: () => void }) {
  const now = useNow();
  const rights = useRights();
  const [open, setOpen] = useState<"assign" | "edit" | null>(null);
  const [ending, setEnding] = useState<Assignment | null>(null);
  const mayAssign = mayAssignDevices(rights);
  const assignments = device.assignments ?? (device.assignment ? [device.assignment] : []);
  return (
    <div className="page">
      <PageTitle
        seenBy="clinicians of the wards it serves, biomedical engineers, integrators and administrators."
        actions={
          <>
            {mayManageDevices(rights) && (
              <button type="button" onClick={() => setOpen("edit")}>
                Change
              </button>
            )}
            {mayAssign && (
              <button type="button" className="primary" onClick={() => setOpen("assign")} disabled={device.retired}>
                Assign
              </button>
            )}
          </>
        }
      >
        {device.name} <LinkBadge device={device} />
      </PageTitle>
      {device.retired && <p className="message message-note">Retired: nothing it sends is accepted.</p>}
      {device.at_most_once && <p className="message message-note">Sends without a promise of delivery (MQTT QoS 0): readings may be lost on the way.</p>}
      <section className="card">
        <dl className="facts">
          <Fact label="Kind">{device.kind}</Fact>
          <Fact label="Manufacturer and model">{[device.manufacturer, device.model].filter(Boolean).join(" ") || "Not known"}</Fact>
          <Fact label="Serial number">{device.serial || "Not known"}</Fact>
          <Fact label="Last heard">
            {device.last_heard_at === null ? "Never" : `${agoText(ageSeconds(device.last_heard_at, now))} (${instantText(device.last_heard_at)})`}
          </Fact>
          <Fact label="Battery">{device.battery_percent === null ? "Not known" : `${device.battery_percent} %`}</Fact>
          <Fact label="Longest usual silence">{device.expected_interval_s === null ? "None: sends when it is used" : `${device.expected_interval_s} s`}</Fact>
          <Fact label="Its clock">{clockText(device.clock)}</Fact>
          <Fact label="Zone of its clock">{offsetText(device.utc_offset_min)}</Fact>
          <Fact label="In quarantine">
            {device.waiting_in_quarantine > 0 ? <Link to={`/quarantine?device=${device.id}`}>{device.waiting_in_quarantine} waiting</Link> : "Nothing"}
          </Fact>
          <Fact label="Id, for its certificate and topics">
            <span className="mono">{device.id}</span>
          </Fact>
        </dl>
      </section>
      {mayEnrolDevices(rights) && <EnrolmentCard deviceId={device.id} />}
      <h2 className="above-table">Assignments</h2>
      {assignments.length === 0 && <Empty>Assigned to nobody so far: what it sends waits in quarantine.</Empty>}
      {assignments.length > 0 && (
        <Table heads={["To", "From", "Until", { acts: "Act" }]}>
          {assignments.map((one) => (
            <tr key={one.id}>
              <th scope="row">
                {one.subject.kind === "patient" && maySeePatients(rights) ? <Link to={`/patients/${one.subject.id}`}>{one.subject.label}</Link> : one.subject.label}
              </th>
              <td data-label="From">{instantText(one.start)}</td>
              <td data-label="Until">{one.end === null ? "Now (open)" : instantText(one.end)}</td>
              <td>
                {mayAssign && one.end === null && (
                  <button type="button" onClick={() => setEnding(one)}>
                    End
                  </button>
                )}
              </td>
            </tr>
          ))}
        </Table>
      )}
      {open === "assign" && <AssignDialog device={device} onClose={() => setOpen(null)} onDone={reload} />}
      {open === "edit" && <EditDialog device={device} onClose={() => setOpen(null)} onDone={reload} />}
      {ending && <EndDialog assignment={ending} onClose={() => setEnding(null)} onDone={reload} />}
    </div>
  );
}

function offsetText(minutes: number): string {
  const size = Math.abs(minutes);
  return minutes === 0 ? "UTC" : `UTC${minutes < 0 ? "−" : "+"}${String(Math.floor(size / 60)).padStart(2, "0")}:${String(size % 60).padStart(2, "0")}`;
}

interface DialogProps {
  onClose: () => void;
  onDone: () => void;
}

function EndDialog({ assignment, onClose, onDone }: DialogProps & { assignment: Assignment }) {
  const [end, setEnd] = useState(() => toLocalField(new Date()));
  const at = fromLocalField(end);
  const send = useMutation({
    mutationFn: () => post<Assignment>(`/assignments/${assignment.id}/end`, { end: at }),
    onSuccess: () => {
      onDone();
      onClose();
    },
  });
  return (
    <Dialog title="End this assignment" onClose={onClose}>
      <p>
        What the device measures after this time no longer belongs to <strong>{assignment.subject.label}</strong>, and waits in quarantine until the device is assigned again.
      </p>
      <ActForm action={send} verb="End assignment" blocked={at === null} onClose={onClose}>
        <TimeField label="End" required value={end} onChange={setEnd} />
      </ActForm>
    </Dialog>
  );
}

function EditDialog({ device, onClose, onDone }: DialogProps & { device: Device }) {
  const [form, setForm] = useState({
    name: device.name,
    rule: device.clock.rule,
    seconds: device.clock.rule === "shift" ? String(device.clock.seconds) : "0",
    utc_offset_min: String(device.utc_offset_min),
    expected_interval_s: device.expected_interval_s === null ? "" : String(device.expected_interval_s),
    retired: device.retired,
  });
  const set = (key: keyof typeof form) => (event: { target: { value: string } }) => setForm({ ...form, [key]: event.target.value });
  const clock: ClockRule = form.rule === "shift" ? { rule: "shift", seconds: Number(form.seconds) } : { rule: form.rule };
  const save = useMutation({
    mutationFn: () =>
      put<Device>(`/devices/${device.id}`, {
        version: device.version,
        name: form.name,
        clock,
        utc_offset_min: Number(form.utc_offset_min),
        expected_interval_s: form.expected_interval_s === "" ? null : Number(form.expected_interval_s),
        retired: form.retired,
      }),
    onSuccess: () => {
      onDone();
      onClose();
    },
  });
  return (
    <Dialog title={`Change ${device.name}`} onClose={onClose}>
      <ActForm action={save} verb="Save" onClose={onClose}>
        <Field label="Name">
          <input required value={form.name} onChange={set("name")} />
        </Field>
        <fieldset className="radio-group">
          <legend>Its clock</legend>
          {(
            [
              ["trust", "Believe it as sent"],
              ["use-received", "Ignore it; use the time of receipt"],
              ["shift", "It is off by a known amount"],
            ] as const
          ).map(([rule, label]) => (
            <label key={rule} className="check">
              <input type="radio" name="clock" checked={form.rule === rule} onChange={() => setForm({ ...form, rule })} />
              {label}
            </label>
          ))}
        </fieldset>
        {form.rule === "shift" && (
          <Field label="Seconds to add" hint="Negative where its clock runs ahead">
            <input type="number" required step={1} value={form.seconds} onChange={set("seconds")} />
          </Field>
        )}
        <Field label="Zone of its clock, minutes east of UTC">
          <input type="number" required min={-720} max={840} value={form.utc_offset_min} onChange={set("utc_offset_min")} />
        </Field>
        <Field label="Longest usual silence, s" hint="Empty for a device that sends only when it is used">
          <input type="number" min={1} value={form.expected_interval_s} onChange={set("expected_interval_s")} />
        </Field>
        <label className="check">
          <input type="checkbox" checked={form.retired} onChange={(event) => setForm({ ...form, retired: event.target.checked })} />
          Retired: nothing it sends is accepted
        </label>
      </ActForm>
    </Dialog>
  );
}
