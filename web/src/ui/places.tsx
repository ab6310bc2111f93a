//! The places of the site, and the choice of one: under its ward, for many wards have a "Bed 1".

import { useQuery } from "@tanstack/react-query";

import { get } from "../api/client.ts";
import type { Place, WardLine } from "../api/types.ts";

export function usePlaces() {
  return useQuery({ queryKey: ["places"], queryFn: ({ signal }) => get<{ places: Place[] }>("/places", signal), staleTime: 60_000 });
}

/** What a place is called where places of several wards may stand beside each other: `Bed 4, Ward 3`. */
export function placeText(place: Place, wards: { id: string; name: string }[]): string {
  const ward = wards.length > 1 && wards.find(({ id }) => id === place.ward_id);
  return ward ? `${place.name}, ${ward.name}` : place.name;
}

/** The same, with the wards that the rail asks for and keeps current. */
export function usePlaceText(): (place: Place) => string {
  const wards = useQuery({ queryKey: ["wards"], queryFn: ({ signal }) => get<{ wards: WardLine[] }>("/wards", signal), enabled: false });
  return (place) => placeText(place, wards.data?.wards ?? []);
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
