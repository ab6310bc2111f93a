//! How many tiles stand beside each other, so that all beds fit one screen and none is larger than it need be.

/** Narrowest tile that shows everything, in CSS pixels. */
export const TILE_MIN_WIDTH_PX = 284;
/** Lowest tile that shows everything, in CSS pixels. */
export const TILE_MIN_HEIGHT_PX = 200;
export const GAP_PX = 6;
/** Width over height of a tile that is read most easily. */
const SHAPE = 1.5;

/** The number of columns; with few beds the tiles grow, with many the page scrolls. */
export function columnsFor(count: number, widthPx: number, heightPx: number): number {
  const most = Math.max(1, Math.floor((widthPx + GAP_PX) / (TILE_MIN_WIDTH_PX + GAP_PX)));
  let best = most;
  let off = Infinity;
  for (let columns = 1; columns <= most; columns += 1) {
    const rows = Math.ceil(count / columns);
    const height = (heightPx - (rows - 1) * GAP_PX) / rows;
    if (height < TILE_MIN_HEIGHT_PX) continue;
    const width = (widthPx - (columns - 1) * GAP_PX) / columns;
    const away = Math.abs(Math.log(width / height / SHAPE));
    if (away < off) [best, off] = [columns, away];
  }
  return best;
}
