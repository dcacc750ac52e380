// The boards of seats: nine places each, rows of three, each where the game puts it; one board fills the window, further
// boards are below. Leaning changes the shares of rows and columns only. The drawer pushes the wall.
import { useEffect, useRef, type ReactNode } from "react";
import { BOARD, type Board } from "../domain/boards";
import { COLUMNS, shares } from "../domain/layout";
import { Drawer } from "./drawer";
import { usePage } from "./hooks";
import { Tile } from "./tile";

function Seats({ board, named, lean }: { board: Board; named: boolean; lean: number | undefined }): ReactNode {
  const { columns, rows } = shares(lean);
  const here = lean !== undefined && lean >= board.firstPlace && lean < board.firstPlace + BOARD;
  const even = here ? { columns, rows } : shares(undefined);
  const places = Array.from({ length: BOARD / COLUMNS }, (_, row) => Array.from({ length: COLUMNS }, (__, column) => board.firstPlace + row * COLUMNS + column));
  return (
    <section className="boardview" data-board={board.index + 1} data-board-lan={board.lan}>
      {named ? <h2>{board.title}</h2> : null}
      <div
        className="wall"
        id={board.index === 0 ? "wall" : undefined}
        role="grid"
        aria-label={named ? `${board.title}, ${BOARD} seats` : `${BOARD} seats`}
        style={{ gridTemplateColumns: even.columns, gridTemplateRows: even.rows }}
      >
        {places.map((row) => (
          <div key={row[0]} role="row" className="seatrow">
            {row.map((place) => (
              <Tile key={place} place={place} />
            ))}
          </div>
        ))}
      </div>
    </section>
  );
}

export function Wall(): ReactNode {
  const { boards, route } = usePage();
  const focused = route.view === "wall" && route.mode === "focus" ? route.seat : undefined;
  const last = useRef(focused);
  useEffect(() => {
    const before = last.current;
    last.current = focused;
    const place = focused ?? before;
    // Into focus: the tile holds the keyboard. Out of it: the keyboard returns to the tile that had it.
    if (place !== undefined && before !== focused) document.querySelector<HTMLElement>(`[data-place="${place}"]`)?.focus({ preventScroll: true });
  }, [focused]);
  const details = route.details && route.seat !== undefined;
  return (
    <div className={`view wallview${details ? " withdrawer" : ""}`} hidden={route.view !== "wall"}>
      <div className="boardcolumn">
        {boards.length > 1 ? (
          <nav className="seg boardtabs" aria-label="Boards">
            {boards.map((board) => (
              <button key={board.index} onClick={() => document.querySelector(`[data-board="${board.index + 1}"]`)?.scrollIntoView({ block: "start" })}>
                {board.title}
              </button>
            ))}
          </nav>
        ) : null}
        <div className={`boards${boards.length > 1 ? " several" : ""}`}>
          {boards.map((board) => (
            <Seats key={board.firstPlace} board={board} named={boards.length > 1} lean={route.mode === "lean" ? route.seat : undefined} />
          ))}
        </div>
      </div>
      {details && route.seat !== undefined ? <Drawer key={route.seat} place={route.seat} /> : null}
    </div>
  );
}
