//! Wards, and the beds, rooms and homes in them; adding one.

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { post } from "../../api/client.ts";
import type { Place } from "../../api/types.ts";
import { ActForm } from "../../ui/act-form.tsx";
import { Dialog, Failure, Field, PageTitle, useDocumentTitle, Waiting } from "../../ui/basics.tsx";
import { CopyButton } from "../../ui/once.tsx";
import { placeGroups, usePlaces } from "../../ui/places.tsx";
import { Table } from "../../ui/table.tsx";

const KINDS: Record<Place["kind"], string> = { ward: "Ward", bed: "Bed", room: "Room", home: "Home" };

export function PlacesPage() {
  useDocumentTitle("Places");
  const [adding, setAdding] = useState(false);
  const places = usePlaces();
  const groups = placeGroups(places.data?.places ?? []);
  const wards = groups.flatMap(({ ward }) => ward ?? []);
  return (
    <div className="page">
      <PageTitle
        seenBy="administrators; clinicians see the places of their wards elsewhere."
        actions={
          <button type="button" className="primary" onClick={() => setAdding(true)}>
            Add a place
          </button>
        }
      >
        Places
      </PageTitle>
      {places.isPending && <Waiting what="places" />}
      {places.isError && <Failure error={places.error} retry={() => void places.refetch()} />}
      {places.data && (
        <Table heads={["Ward", { figures: "Places" }, "Which", "Id, for policies"]}>
          {groups.map(({ ward, inside }) => (
            <tr key={ward?.id ?? "none"}>
              <th scope="row">{ward?.name ?? "In no ward"}</th>
              <td className="number" data-label="Places">
                {inside.length}
              </td>
              <td data-label="Which">{inside.map((place) => place.name).join(", ") || <span className="muted">None yet</span>}</td>
              <td data-label="Id, for policies">
                {ward && (
                  <>
                    <span className="mono">{ward.id}</span> <CopyButton text={ward.id} />
                  </>
                )}
              </td>
            </tr>
          ))}
        </Table>
      )}
      {adding && <NewPlace wards={wards} onClose={() => setAdding(false)} />}
    </div>
  );
}

function NewPlace({ wards, onClose }: { wards: Place[]; onClose: () => void }) {
  const client = useQueryClient();
  const [form, setForm] = useState({ name: "", kind: "bed" as Place["kind"], ward_id: wards[0]?.id ?? "" });
  const set = (key: keyof typeof form) => (event: { target: { value: string } }) => setForm({ ...form, [key]: event.target.value });
  const save = useMutation({
    mutationFn: () => post<Place>("/places", { name: form.name, kind: form.kind, ward_id: form.kind === "ward" ? null : form.ward_id || null }),
    onSuccess: () => {
      void client.invalidateQueries({ queryKey: ["places"] });
      void client.invalidateQueries({ queryKey: ["wards"] });
      onClose();
    },
  });
  return (
    <Dialog title="Add a place" onClose={onClose}>
      <ActForm action={save} verb="Add" onClose={onClose}>
        <Field label="Name">
          <input required autoFocus maxLength={100} autoComplete="off" value={form.name} onChange={set("name")} />
        </Field>
        <Field label="Kind">
          <select value={form.kind} onChange={set("kind")}>
            {(Object.keys(KINDS) as Place["kind"][]).map((kind) => (
              <option key={kind} value={kind}>
                {KINDS[kind]}
              </option>
            ))}
          </select>
        </Field>
        {form.kind !== "ward" && (
          <Field label="In the ward">
            <select value={form.ward_id} onChange={set("ward_id")}>
              <option value="">None</option>
              {wards.map((ward) => (
                <option key={ward.id} value={ward.id}>
                  {ward.name}
                </option>
              ))}
            </select>
          </Field>
        )}
      </ActForm>
    </Dialog>
  );
}
