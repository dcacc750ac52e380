// Where seats stand: boards of nine places in rows of three, whatever the size. Pure.
import { BOARD } from "./boards";

export const COLUMNS = 3;

export type Direction = "left" | "right" | "up" | "down";

/** The neighbour in that direction, on the next board too; the wall does not wrap. */
export function neighbour(place: number, direction: Direction, places: number): number {
  const column = (place - 1) % COLUMNS;
  const to = { left: column > 0 ? place - 1 : place, right: column < COLUMNS - 1 ? place + 1 : place, up: place - COLUMNS, down: place + COLUMNS }[direction];
  return to >= 1 && to <= places ? to : place;
}

/** Row and column of a place on its board, from 0. */
export function spot(place: number): { row: number; column: number } {
  const index = (place - 1) % BOARD;
  return { row: Math.floor(index / COLUMNS), column: index % COLUMNS };
}

/** Shares of a board's columns and rows: even, or leaning to one place, which stays where it is. */
export function shares(lean: number | undefined): { columns: string; rows: string } {
  const fr = (big: number | undefined, size: string): string => Array.from({ length: COLUMNS }, (_, i) => `minmax(0,${i === big ? size : "1fr"})`).join(" ");
  const at = lean === undefined ? undefined : spot(lean);
  return { columns: fr(at?.column, "1.7fr"), rows: fr(at?.row, "2.2fr") };
}
