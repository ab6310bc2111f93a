//! The ward board: every bed on one screen, in places that never change.

import { type CSSProperties, type KeyboardEvent, type RefObject, useDeferredValue, useEffect, useLayoutEffect, useRef, useState } from "react";

import type { Board } from "../api/types.ts";
import { columnsFor } from "../board/columns.ts";
import { BoardTable } from "../board/table.tsx";
import { BoardTile } from "../board/tile.tsx";
import { applyToBoard } from "../live/apply.ts";
import { useFollowed, useLinkLost, useNow } from "../live/context.tsx";
import { useStage } from "../strips/useStage.ts";
import { Empty, Failure, PageTitle, SeenBy, useDocumentTitle, Waiting } from "../ui/basics.tsx";
import { Icon } from "../ui/icons.tsx";
import { prefer, usePreferences } from "../ui/theme.ts";
import { useMedia } from "../ui/useMedia.ts";
import { openAlerts } from "../format/alerts.ts";

type View = "tiles" | "table";

export function BoardPage({ wardId }: { wardId: string }) {
  useDocumentTitle("Ward board");
  const { data, error, refetch } = useFollowed<Board>(`/wards/${encodeURIComponent(wardId)}/board`, applyToBoard);
  const [view, setView] = useState<View>("tiles");
  const { privacy } = usePreferences();
  if (data === null) return <div className="page">{error ? <Failure error={error} retry={refetch} /> : <Waiting what="the ward" />}</div>;
  const raised = data.tiles.flatMap((tile) => openAlerts(tile.alerts)).filter((alert) => alert.state === "raised").length;
  return (
    <div className="board-page">
      <PageTitle
        actions={
          <>
            <span className="muted">
              {data.tiles.filter((tile) => tile.patient !== null).length} of {data.tiles.length} places taken, {raised} unanswered {raised === 1 ? "alert" : "alerts"}
            </span>
            <button type="button" aria-pressed={privacy} onClick={() => prefer({ privacy: !privacy })}>
              <Icon name="eye" /> Initials only
            </button>
            <button type="button" aria-pressed={view === "table"} onClick={() => setView(view === "tiles" ? "table" : "tiles")}>
              Table
            </button>
          </>
        }
      >
        {data.ward.name}
      </PageTitle>
      {error ? <Failure error={error} retry={refetch} /> : null}
      {data.tiles.length === 0 && <Empty>This ward has no beds yet.</Empty>}
      {view === "tiles" ? <Tiles board={data} privacy={privacy} /> : <BoardTable board={data} privacy={privacy} visible />}
      <footer className="board-foot">
        <span>Information system: the bedside monitor stays the primary alarm. This page makes no sound.</span>
        <span>† has a finding: open the patient to see it.</span>
        <SeenBy>clinicians of this ward and administrators.</SeenBy>
      </footer>
    </div>
  );
}

function Tiles({ board, privacy }: { board: Board; privacy: boolean }) {
  const now = useNow();
  const linkLost = useLinkLost();
  const grid = useRef<HTMLDivElement>(null);
  const [focused, setFocused] = useState(0);
  const roomForStrips = !useMedia("(max-width: 700px)");
  const showStrips = roomForStrips && board.tiles.some((tile) => tile.strips.length > 0);
  const strips = useStage(grid, showStrips);
  const slow = useDeferredValue(board);
  const columns = useColumns(grid, board.tiles.length, roomForStrips);
  useEffect(() => setFocused((at) => Math.min(at, Math.max(0, board.tiles.length - 1))), [board.tiles.length]);

  const onKey = (event: KeyboardEvent<HTMLDivElement>) => {
    const tiles = [...(grid.current?.querySelectorAll<HTMLElement>("[data-tile]") ?? [])];
    const next = neighbour(event.key, tiles, focused);
    if (next === null) return;
    event.preventDefault();
    tiles[next]?.focus();
  };
  return (
    <>
      <div className={showStrips ? "board" : "board board-plain"} ref={grid} onKeyDown={onKey} role="group" aria-label={`Beds of ${board.ward.name}`} style={{ "--columns": columns } as CSSProperties}>
        {board.tiles.map((tile, index) => (
          <BoardTile
            key={`${tile.place.id} ${tile.patient?.id ?? ""}`}
            tile={tile}
            now={now}
            linkLost={linkLost}
            privacy={privacy}
            strips={strips}
            showStrips={showStrips}
            tabIndex={index === focused ? 0 : -1}
            onFocus={() => setFocused(index)}
          />
        ))}
      </div>
      <BoardTable board={slow} privacy={privacy} visible={false} />
    </>
  );
}

/** What the page's heading and foot need, in CSS pixels. */
const AROUND_PX = 84;

/** The columns for the room there is, which does not depend on the tiles in it. */
function useColumns(grid: RefObject<HTMLElement | null>, count: number, enabled: boolean): number {
  const [columns, setColumns] = useState(1);
  useLayoutEffect(() => {
    const main = grid.current?.closest("main");
    if (!main || !enabled) return;
    const measure = () => {
      const top = main.getBoundingClientRect().top + window.scrollY;
      setColumns(columnsFor(count, main.clientWidth - 20, window.innerHeight - top - AROUND_PX));
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(main);
    window.addEventListener("resize", measure);
    return () => {
      observer.disconnect();
      window.removeEventListener("resize", measure);
    };
  }, [grid, count, enabled]);
  return columns;
}

/** Which tile an arrow leads to, by where the tiles stand on the screen; `null` for other keys and at the edge. */
function neighbour(key: string, tiles: HTMLElement[], at: number): number | null {
  const here = tiles[at]?.getBoundingClientRect();
  if (here === undefined) return null;
  if (key === "Home") return 0;
  if (key === "End") return tiles.length - 1;
  if (key === "ArrowRight") return at + 1 < tiles.length ? at + 1 : null;
  if (key === "ArrowLeft") return at > 0 ? at - 1 : null;
  if (key !== "ArrowDown" && key !== "ArrowUp") return null;
  const step = key === "ArrowDown" ? 1 : -1;
  for (let i = at + step; i >= 0 && i < tiles.length; i += step) {
    const box = tiles[i]?.getBoundingClientRect();
    if (box && Math.abs(box.left - here.left) < 4 && Math.abs(box.top - here.top) > 4) return i;
  }
  return null;
}
