//! The fleet: every device with its link, battery, assignment and what of it waits in quarantine.

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { get, post } from "../api/client.ts";
import type { Device, DeviceState } from "../api/types.ts";
import { ageSeconds, agoText } from "../format/time.ts";
import { useLiveEvent, useNow } from "../live/context.tsx";
import { Link, navigate } from "../router.tsx";
import { useRights } from "../session.tsx";
import { ActForm } from "../ui/act-form.tsx";
import { Dialog, Empty, Failure, Field, PageTitle, useDocumentTitle, Waiting } from "../ui/basics.tsx";
import { LinkBadge } from "../ui/device-state.tsx";
import { mayEnrolDevices, mayManageDevices, maySeePatients } from "../ui/roles.ts";
import { Table } from "../ui/table.tsx";

/** The fleet is read again this often, in ms: engineers have no live stream, which is for those who see patients. */
const RENEW_MS = 15_000;

type Filter = "all" | "silent" | "unassigned" | "retired";

const FILTERS: [Filter, string][] = [
  ["all", "In service"],
  ["silent", "Not live"],
  ["unassigned", "Not assigned"],
  ["retired", "Retired"],
];

const fits: Record<Filter, (device: Device) => boolean> = {
  all: (device) => !device.retired,
  silent: (device) => !device.retired && device.link !== "live",
  unassigned: (device) => !device.retired && device.assignment === null,
  retired: (device) => device.retired,
};

export function DevicesPage() {
  useDocumentTitle("Devices");
  const client = useQueryClient();
  const rights = useRights();
  const now = useNow();
  const [filter, setFilter] = useState<Filter>("all");
  const [text, setText] = useState("");
  const [adding, setAdding] = useState(false);
  const devices = useQuery({ queryKey: ["devices"], queryFn: ({ signal }) => get<{ devices: Device[] }>("/devices", signal), refetchInterval: RENEW_MS });
  useLiveEvent((event) => {
    if (event.type === "device") {
      const incoming = event.data as DeviceState;
      client.setQueryData<{ devices: Device[] }>(["devices"], (known) =>
        known && { devices: known.devices.map((device) => (device.id === incoming.id ? { ...device, ...incoming } : device)) },
      );
    } else if (event.type === "reset" || event.type === "assignment") void client.invalidateQueries({ queryKey: ["devices"] });
  });
  const wanted = text.trim().toLocaleLowerCase();
  const shown = (devices.data?.devices ?? []).filter(
    (device) => fits[filter](device) && [device.name, device.serial, device.model, device.kind, device.assignment?.subject.label ?? ""].some((word) => word.toLocaleLowerCase().includes(wanted)),
  );
  return (
    <div className="page">
      <PageTitle
        seenBy="clinicians, biomedical engineers, integrators and administrators."
        actions={
          <>
            {mayEnrolDevices(rights) && (
              <Link className="button" to="/devices/enrolment">
                Certificates
              </Link>
            )}
            {mayManageDevices(rights) && (
              <button type="button" onClick={() => setAdding(true)}>
                New device
              </button>
            )}
          </>
        }
      >
        Devices
      </PageTitle>
      <div className="filters">
        <div className="segmented" role="group" aria-label="Which devices">
          {FILTERS.map(([key, label]) => (
            <button key={key} type="button" aria-pressed={filter === key} onClick={() => setFilter(key)}>
              {label} <span className="muted">{devices.data?.devices.filter(fits[key]).length ?? ""}</span>
            </button>
          ))}
        </div>
        <input type="search" aria-label="Filter by name, serial, model or assignment" placeholder="Filter" value={text} onChange={(event) => setText(event.target.value)} />
      </div>
      {devices.isPending && <Waiting what="devices" />}
      {devices.isError && <Failure error={devices.error} retry={() => void devices.refetch()} />}
      {devices.data && shown.length === 0 && <Empty>No device fits.</Empty>}
      {shown.length > 0 && <Fleet devices={shown} now={now} />}
      {adding && <NewDevice onClose={() => setAdding(false)} />}
    </div>
  );
}

function Fleet({ devices, now }: { devices: Device[]; now: number }) {
  const rights = useRights();
  return (
    <Table heads={["Device", "Kind", "Link", "Last heard", "Battery", "Assigned to", "Quarantine"]}>
      {devices.map((device) => (
        <tr key={device.id}>
          <th scope="row">
            <Link to={`/devices/${device.id}`}>{device.name}</Link>
          </th>
          <td data-label="Kind">
            {device.kind} <span className="muted">{[device.manufacturer, device.model].filter(Boolean).join(" ")}</span>
          </td>
          <td data-label="Link">
            <LinkBadge device={device} />
          </td>
          <td data-label="Last heard">{device.last_heard_at === null ? "Never" : agoText(ageSeconds(device.last_heard_at, now))}</td>
          <td data-label="Battery">{device.battery_percent === null ? <span className="muted">Not known</span> : `${device.battery_percent} %`}</td>
          <td data-label="Assigned to">
            {device.assignment === null ? (
              <span className="muted">Nobody</span>
            ) : device.assignment.subject.kind === "patient" && maySeePatients(rights) ? (
              <Link to={`/patients/${device.assignment.subject.id}`}>{device.assignment.subject.label}</Link>
            ) : (
              device.assignment.subject.label
            )}
          </td>
          <td data-label="Quarantine">
            {device.waiting_in_quarantine > 0 ? <Link to={`/quarantine?device=${device.id}`}>{device.waiting_in_quarantine} waiting</Link> : <span className="muted">None</span>}
          </td>
        </tr>
      ))}
    </Table>
  );
}

function NewDevice({ onClose }: { onClose: () => void }) {
  const client = useQueryClient();
  const [form, setForm] = useState({ name: "", kind: "bedside monitor", manufacturer: "", model: "", serial: "", utc_offset_min: "0", expected_interval_s: "" });
  const set = (key: keyof typeof form) => (event: { target: { value: string } }) => setForm({ ...form, [key]: event.target.value });
  const save = useMutation({
    mutationFn: () =>
      post<Device>("/devices", {
        ...form,
        utc_offset_min: Number(form.utc_offset_min),
        expected_interval_s: form.expected_interval_s === "" ? null : Number(form.expected_interval_s),
      }),
    onSuccess: (device) => {
      void client.invalidateQueries({ queryKey: ["devices"] });
      onClose();
      navigate(`/devices/${device.id}`);
    },
  });
  return (
    <Dialog title="New device" onClose={onClose}>
      <ActForm action={save} verb="Register" onClose={onClose}>
        <Field label="Name" hint="As it is labelled: Monitor 07">
          <input required autoFocus value={form.name} onChange={set("name")} />
        </Field>
        <Field label="Kind" hint="bedside monitor, blood pressure cuff, pulse oximeter, …">
          <input required value={form.kind} onChange={set("kind")} />
        </Field>
        <Field label="Manufacturer">
          <input required value={form.manufacturer} onChange={set("manufacturer")} />
        </Field>
        <Field label="Model">
          <input required value={form.model} onChange={set("model")} />
        </Field>
        <Field label="Serial number">
          <input required value={form.serial} onChange={set("serial")} />
        </Field>
        <Field label="Zone of its clock, minutes east of UTC" hint="For devices that send local time">
          <input type="number" required min={-720} max={840} value={form.utc_offset_min} onChange={set("utc_offset_min")} />
        </Field>
        <Field label="Longest usual silence, s" hint="Longer raises an alert; leave empty for a device that sends only when it is used">
          <input type="number" min={1} value={form.expected_interval_s} onChange={set("expected_interval_s")} />
        </Field>
      </ActForm>
    </Dialog>
  );
}
