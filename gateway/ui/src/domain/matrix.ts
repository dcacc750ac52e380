// Who talks to whom: nine rows that send, nine columns that receive. What was not measured has no value. Pure; the
// canvas, the table and the tests read the same cells.
import type { Connectivity, Lag, StreamLag } from "../api/types";

export type MatrixMode = "rate" | "rtt" | "loss" | "broadcast";

export const MODES: Record<MatrixMode, { name: string; unit: string }> = {
  rate: { name: "Rate", unit: "frames a second" },
  rtt: { name: "Round trip", unit: "ms, tap to tap" },
  loss: { name: "Loss", unit: "% of frames" },
  broadcast: { name: "Broadcast", unit: "% of frames sent" },
};
export const MODE_KEYS = Object.keys(MODES) as MatrixMode[];

/** Colours begin to tell values apart here: below, the strongest cell is not painted as if it were strong. */
const TOP_MIN: Record<MatrixMode, number> = { rate: 10, rtt: 5, loss: 1, broadcast: 10 };

export interface MatrixSeat {
  /** Number in the LAN. */
  seat: number;
  instance?: string;
  name: string;
  ip?: string;
  /** Its card has never sent a frame. */
  silent: boolean;
  /** What the stream adds to the lag of who plays there. */
  stream?: StreamLag;
}

export interface Cell {
  row: number;
  column: number;
  /** In the mode's unit; absent: not measured. */
  value?: number;
  /** What is printed; empty for the same seat and for what was not measured. */
  text: string;
  same: boolean;
  /** Boxed in danger: nothing gets through that should. */
  none: boolean;
}

export interface Matrix {
  mode: MatrixMode;
  seats: readonly MatrixSeat[];
  cells: readonly (readonly Cell[])[];
  /** The value that has the full colour. */
  top: number;
}

function valueOf(row: Connectivity, mode: MatrixMode): number | undefined {
  const share = (v: number | null | undefined): number | undefined => (v === null || v === undefined ? undefined : v * 100);
  if (mode === "rate") return row.rate ?? undefined;
  if (mode === "rtt") return row.rtt_ms ?? undefined;
  return share(mode === "loss" ? row.loss : row.broadcast_share);
}

/** "52", "4.5", "0.3": whole numbers from ten on, and where there is nothing behind the point. */
export function printed(value: number): string {
  const one = Math.round(value * 10) / 10;
  if (value > 0 && one === 0) return "<0.1";
  return one >= 10 || Number.isInteger(one) ? String(Math.round(one)) : one.toFixed(1);
}

/** 1, 2, 5, 10, 20 and so on: colours stay put while values move a little. */
function niceTop(value: number): number {
  const ten = 10 ** Math.floor(Math.log10(value));
  return ten * ([1, 2, 5, 10].find((n) => n * ten >= value) ?? 10);
}

const key = (from: string, to: string): string => `${from}\n${to}`;

export function matrixOf(seats: readonly MatrixSeat[], rows: readonly Connectivity[], mode: MatrixMode): Matrix {
  const byPair = new Map(rows.map((row) => [key(row.from, row.to), row]));
  let top = TOP_MIN[mode];
  const cells = seats.map((from, row) =>
    seats.map((to, column): Cell => {
      const same = row === column;
      const pair = from.instance === undefined || to.instance === undefined || same ? undefined : byPair.get(key(from.instance, to.instance));
      const value = pair && valueOf(pair, mode);
      if (value === undefined) return { row, column, text: "", same, none: false };
      top = Math.max(top, value);
      const none = (mode === "rate" && value === 0 && from.silent) || (mode === "broadcast" && pair?.broadcast_seen === false);
      return { row, column, value, text: none ? "none" : printed(value), same, none };
    }),
  );
  return { mode, seats, cells, top: niceTop(top) };
}

/** "Seat 4 to seat 1: 0 frames a second". */
export function pairWords(matrix: Matrix, cell: Cell): string {
  const from = matrix.seats[cell.row];
  const to = matrix.seats[cell.column];
  if (!from || !to) return "";
  const pair = `Seat ${from.seat} to seat ${to.seat}`;
  if (cell.same) return `Seat ${from.seat}: the same seat`;
  const empty = [from, to].find((seat) => seat.instance === undefined);
  if (empty) return `${pair}: nobody sits at seat ${empty.seat}`;
  if (cell.value === undefined) return `${pair}: not measured`;
  if (matrix.mode === "broadcast" && cell.none) return `${pair}: no broadcast arrived, ${printed(cell.value)} ${MODES.broadcast.unit}`;
  return `${pair}: ${printed(cell.value)} ${MODES[matrix.mode].unit}`;
}

/** How a pair's round trip divides, as far as the wire told it: "game answers in 12 ms (9 ms guest, 3 ms LAN, ±1 ms)". */
export function lagWords(lags: readonly Lag[], from: MatrixSeat | undefined, to: MatrixSeat | undefined): string | undefined {
  const is = (end: string, seat: MatrixSeat | undefined): boolean => seat !== undefined && (end === seat.ip || end === seat.instance);
  const lag = lags.find((l) => is(l.from, from) && is(l.to, to));
  if (!lag || lag.rtt_ms === undefined || lag.rtt_ms === null) return undefined;
  const ms = (value: number): string => `${printed(value)} ms`;
  const parts = [
    lag.guest_ms === undefined || lag.guest_ms === null ? undefined : `${ms(lag.guest_ms)} guest`,
    lag.fabric_ms === undefined || lag.fabric_ms === null ? undefined : `${ms(lag.fabric_ms)} LAN`,
    lag.error_ms === undefined || lag.error_ms === null ? undefined : `\u00b1${ms(lag.error_ms)}`,
  ].filter((part) => part !== undefined);
  return `game answers in ${ms(lag.rtt_ms)}${parts.length === 0 ? "" : ` (${parts.join(", ")})`}`;
}

/** What the stream adds to the lag of who plays at a seat: "its picture takes 8 ms to make, 23 ms to the browser and back (±2 ms)". */
export function streamWords(stream: StreamLag | null | undefined): string | undefined {
  if (!stream) return undefined;
  const ms = (value: number): string => `${printed(value)} ms`;
  const making = stream.making_ms === undefined || stream.making_ms === null ? "" : `${ms(stream.making_ms)} to make, `;
  return `its picture takes ${making}${ms(stream.rtt_ms)} to the browser and back (\u00b1${ms(stream.error_ms)})`;
}

/** Arrows move by one cell, Home and End to the ends of the row; absent for any other key. */
export function moveCell(at: { row: number; column: number }, pressed: string, size: number): { row: number; column: number } | undefined {
  const last = size - 1;
  const clamp = (n: number): number => Math.max(0, Math.min(last, n));
  switch (pressed) {
    case "ArrowLeft": return { row: at.row, column: clamp(at.column - 1) };
    case "ArrowRight": return { row: at.row, column: clamp(at.column + 1) };
    case "ArrowUp": return { row: clamp(at.row - 1), column: at.column };
    case "ArrowDown": return { row: clamp(at.row + 1), column: at.column };
    case "Home": return { row: at.row, column: 0 };
    case "End": return { row: at.row, column: last };
    default: return undefined;
  }
}

/** Where cells lie, in CSS pixels: names at the left, numbers above. */
export interface Grid {
  left: number;
  top: number;
  cellWidth: number;
  cellHeight: number;
}

export function gridOf(width: number, height: number, left: number, top: number, size: number): Grid {
  return { left, top, cellWidth: Math.max(1, (width - left) / size), cellHeight: Math.max(1, (height - top) / size) };
}

export function cellAt(grid: Grid, x: number, y: number, size: number): { row: number; column: number } | undefined {
  const column = Math.floor((x - grid.left) / grid.cellWidth);
  const row = Math.floor((y - grid.top) / grid.cellHeight);
  return row >= 0 && column >= 0 && row < size && column < size ? { row, column } : undefined;
}

/** Share of the full colour, power 0.8 (ui/design.md section 2). */
export const strength = (value: number, top: number): number => Math.min(1, Math.max(0, value / top)) ** 0.8;

export type Rgb = readonly [number, number, number];

export function rgb(hex: string): Rgb {
  const n = Number.parseInt(hex.replace("#", ""), 16);
  return [(n >> 16) & 255, (n >> 8) & 255, n & 255];
}

export const mix = (a: Rgb, b: Rgb, t: number): Rgb => [0, 1, 2].map((k) => Math.round((a[k] ?? 0) + ((b[k] ?? 0) - (a[k] ?? 0)) * t)) as unknown as Rgb;

/** Relative luminance of WCAG 2.2. */
export function luminance(colour: Rgb): number {
  const [r, g, b] = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4)) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/**
 * Text on a cell of that colour: at least 4.5 to 1 whatever the colour is. The page's own ink reaches only 4.06 beside
 * the turning point of 0.179, so there it gives way to black and white, which reach 4.58.
 */
export function textOn(colour: Rgb): string {
  const light = luminance(colour) > 0.179;
  const ink = light ? "#14110A" : "#F5EFDF";
  const [high, low] = [luminance(colour), luminance(rgb(ink))].sort((a, b) => b - a) as [number, number];
  if ((high + 0.05) / (low + 0.05) >= 4.5) return ink;
  return light ? "#000000" : "#FFFFFF";
}
