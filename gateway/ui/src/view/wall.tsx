// The board of seats: nine places, rows of three, each where the game puts it. Leaning changes the shares of rows and
// columns only. The drawer pushes the wall.
import { useEffect, useMemo, useRef, type ReactNode } from "react";
import { COLUMNS, shares } from "../domain/layout";
import { Drawer } from "./drawer";
import { usePage } from "./hooks";
import { Tile } from "./tile";

export function Wall(): ReactNode {
  const { places, route } = usePage();
  const focused = route.view === "wall" && route.mode === "focus" ? route.seat : undefined;
  const last = useRef(focused);
  useEffect(() => {
    const before = last.current;
    last.current = focused;
    const seat = focused ?? before;
    // Into focus: the tile holds the keyboard. Out of it: the keyboard returns to the tile that had it.
    if (seat !== undefined && before !== focused) document.querySelector<HTMLElement>(`[data-seat="${seat}"]`)?.focus({ preventScroll: true });
  }, [focused]);
  const { columns, rows } = shares(places, route.mode === "lean" ? route.seat : undefined);
  const seats = useMemo(
    () => Array.from({ length: places / COLUMNS }, (_, row) => Array.from({ length: COLUMNS }, (__, column) => row * COLUMNS + column + 1)),
    [places],
  );
  const details = route.details && route.seat !== undefined;
  return (
    <div className={`view wallview${details ? " withdrawer" : ""}`} hidden={route.view !== "wall"}>
      <div
        className="wall"
        id="wall"
        role="grid"
        aria-label={`${places} seats`}
        style={{ gridTemplateColumns: columns, gridTemplateRows: rows }}
      >
        {seats.map((row) => (
          <div key={row[0]} role="row" className="seatrow">
            {row.map((seat) => (
              <Tile key={seat} seat={seat} />
            ))}
          </div>
        ))}
      </div>
      {details && route.seat !== undefined ? <Drawer key={route.seat} seat={route.seat} /> : null}
    </div>
  );
}
