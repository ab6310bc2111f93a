//! The beds fit one screen wherever they can.

import { describe, expect, it } from "vitest";

import { columnsFor, GAP_PX, TILE_MIN_HEIGHT_PX, TILE_MIN_WIDTH_PX } from "./columns.ts";

const heightOf = (count: number, columns: number, height: number) => {
  const rows = Math.ceil(count / columns);
  return (height - (rows - 1) * GAP_PX) / rows;
};

describe("the columns of a board", () => {
  it("put 24 beds on a screen of 1920 by 1080, and by 950 in a browser's window", () => {
    for (const height of [948, 818]) {
      const columns = columnsFor(24, 1_824, height);
      expect(columns).toBe(6);
      expect(heightOf(24, columns, height)).toBeGreaterThanOrEqual(TILE_MIN_HEIGHT_PX);
    }
  });

  it("let few beds grow without stretching them", () => {
    expect(columnsFor(12, 1_824, 948)).toBe(4);
    expect(columnsFor(1, 1_824, 948)).toBeLessThanOrEqual(2);
  });

  it("never make a tile narrower than it can be read", () => {
    for (let width = 320; width < 4_000; width += 97) {
      const columns = columnsFor(40, width, 700);
      expect(columns === 1 || (width - (columns - 1) * GAP_PX) / columns >= TILE_MIN_WIDTH_PX).toBe(true);
    }
  });
});
