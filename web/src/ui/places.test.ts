//! Places under their wards.

import { describe, expect, it } from "vitest";

import type { Place } from "../api/types.ts";
import { placeGroups, placeText } from "./places.tsx";

const place = (id: string, name: string, kind: Place["kind"], ward: string | null = null): Place => ({ id, name, kind, ward_id: ward });

describe("places", () => {
  it("stand under their wards in the order of their numbers, what is in no ward at the end", () => {
    const groups = placeGroups([
      place("b", "Ward 10", "ward"),
      place("a", "Ward 2", "ward"),
      place("h", "Home 1", "home"),
      place("b1", "Bed 10", "bed", "b"),
      place("b2", "Bed 9", "bed", "b"),
      place("a1", "Bed 10", "bed", "a"),
    ]);
    expect(groups.map(({ ward, inside }) => [ward?.id ?? null, inside.map(({ id }) => id)])).toEqual([
      ["a", ["a1"]],
      ["b", ["b2", "b1"]],
      [null, ["h"]],
    ]);
  });

  it("name their ward where there are several", () => {
    const wards = [place("a", "Ward 2", "ward"), place("b", "Ward 10", "ward")];
    expect(placeText(place("b1", "Bed 1", "bed", "b"), wards)).toBe("Bed 1, Ward 10");
    expect(placeText(place("b1", "Bed 1", "bed", "b"), wards.slice(1))).toBe("Bed 1");
    expect(placeText(place("h", "Home 1", "home"), wards)).toBe("Home 1");
  });

  it("of a ward that is not open to somebody are not lost", () => {
    expect(placeGroups([place("b1", "Bed 1", "bed", "elsewhere")])).toEqual([{ ward: null, inside: [place("b1", "Bed 1", "bed", "elsewhere")] }]);
  });
});
