//! The places of the site, and the choice of one: under its ward, for many wards have a "Bed 1".

import { useQuery } from "@tanstack/react-query";

import { get } from "../api/client.ts";
import type { Place } from "../api/types.ts";

export function usePlaces() {
  return useQuery({ queryKey: ["places"], queryFn: ({ signal }) => get<{ places: Place[] }>("/places", signal), staleTime: 60_000 });
}

const byName = (a: Place, b: Place) => a.name.localeCompare(b.name, undefined, { numeric: true });

export interface PlaceGroup {
  /** `null` for places in no ward. */
  ward: Place | null;
  inside: Place[];
}

/** Each ward with what is in it, by name; at the end what is in no ward, where there is any. */
export function placeGroups(places: Place[]): PlaceGroup[] {
  const all = [...places].sort(byName);
  const wards = all.filter(({ kind }) => kind === "ward");
  const known = new Set(wards.map(({ id }) => id));
  const loose = all.filter(({ kind, ward_id: ward }) => kind !== "ward" && (ward === null || !known.has(ward)));
  const groups: PlaceGroup[] = wards.map((ward) => ({ ward, inside: all.filter((place) => place.ward_id === ward.id) }));
  return loose.length === 0 ? groups : [...groups, { ward: null, inside: loose }];
}

/** The options of a choice of a place; wards themselves only where they can be chosen. */
export function PlaceOptions({ places, withWards = false }: { places: Place[]; withWards?: boolean }) {
  const groups = placeGroups(places).filter(({ inside }) => withWards || inside.length > 0);
  return groups.map(({ ward, inside }) => (
    <optgroup key={ward?.id ?? "none"} label={ward?.name ?? "In no ward"}>
      {withWards && ward && <option value={ward.id}>{ward.name} (the ward)</option>}
      {inside.map((place) => (
        <option key={place.id} value={place.id}>
          {place.name}
        </option>
      ))}
    </optgroup>
  ));
}
