// The boards of seats: nine places each, rows of three, each where the game puts it; one board fills the window, further
// boards are below. Leaning changes the shares of rows and columns only. The drawer pushes the wall.
import { useEffect, useRef, useState, type ReactNode } from "react";
import { BOARD, type Board } from "../domain/boards";
import { COLUMNS, shares } from "../domain/layout";
import { Drawer } from "./drawer";
import { PHONE, usePage } from "./hooks";
import { Tile } from "./tile";

function Seats({ board, named, seat, leans }: { board: Board; named: boolean; seat: number | undefined; leans: boolean }): ReactNode {
  const wanted = seat !== undefined && seat >= board.firstPlace && seat < board.firstPlace + BOARD;
  const { columns, rows } = shares(wanted && leans ? seat : undefined);
  const box = useRef<HTMLElement>(null);
  const [near, setNear] = useState(board.index === 0);
  // Tiles of a board come when it is a window away, and stay: a wall of a thousand seats does not make them all at once.
  useEffect(() => {
    const element = box.current;
    if (near || !element) return undefined;
    const observer = new IntersectionObserver(([entry]) => entry?.isIntersecting && setNear(true), { root: element.closest(matchMedia(PHONE).matches ? ".wallview" : ".boards"), rootMargin: "100% 0px" });
    observer.observe(element);
    return () => observer.disconnect();
  }, [near]);
  const places = Array.from({ length: near || wanted ? BOARD / COLUMNS : 0 }, (_, row) => Array.from({ length: COLUMNS }, (__, column) => board.firstPlace + row * COLUMNS + column));
  return (
    <section ref={box} className="boardview" data-board={board.index + 1} data-board-lan={board.lan}>
      {named ? <h2>{board.title}</h2> : null}
      <div
        className="wall"
        id={board.index === 0 ? "wall" : undefined}
        role="grid"
        aria-label={named ? `${board.title}, ${BOARD} seats` : `${BOARD} seats`}
        style={{ gridTemplateColumns: columns, gridTemplateRows: rows }}
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
  // A linked seat on a lower board comes into the window.
  const linked = route.view === "wall" && route.mode === "lean" && boards.length > 1 ? route.seat : undefined;
  useEffect(() => {
    if (linked !== undefined) document.querySelector(`[data-place="${linked}"]`)?.scrollIntoView({ block: "nearest" });
  }, [linked]);
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
            <Seats key={board.firstPlace} board={board} named={boards.length > 1} seat={route.seat} leans={route.mode === "lean"} />
          ))}
        </div>
      </div>
      {details && route.seat !== undefined ? <Drawer key={route.seat} place={route.seat} /> : null}
    </div>
  );
}
