// Where seats stand: nine places in rows of three, whatever the size. Pure.

export const COLUMNS = 3;

/** Places on the wall: at least nine, and whole rows. */
export function placeCount(seatNumbers: readonly number[]): number {
  const last = Math.max(9, ...seatNumbers);
  return Math.ceil(last / COLUMNS) * COLUMNS;
}

export type Direction = "left" | "right" | "up" | "down";

/** The neighbour in that direction; the wall does not wrap. */
export function neighbour(seat: number, direction: Direction, places: number): number {
  const column = (seat - 1) % COLUMNS;
  const to = { left: column > 0 ? seat - 1 : seat, right: column < COLUMNS - 1 ? seat + 1 : seat, up: seat - COLUMNS, down: seat + COLUMNS }[direction];
  return to >= 1 && to <= places ? to : seat;
}

/** Shares of columns and rows: even, or leaning to one seat, which stays at its place. */
export function shares(places: number, lean: number | undefined): { columns: string; rows: string } {
  const rows = places / COLUMNS;
  const fr = (count: number, big: number | undefined, size: string): string =>
    Array.from({ length: count }, (_, i) => `minmax(0,${i === big ? size : "1fr"})`).join(" ");
  const column = lean === undefined ? undefined : (lean - 1) % COLUMNS;
  const row = lean === undefined ? undefined : Math.floor((lean - 1) / COLUMNS);
  return { columns: fr(COLUMNS, column, "1.7fr"), rows: fr(rows, row, "2.2fr") };
}
