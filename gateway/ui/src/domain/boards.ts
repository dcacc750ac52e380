// Boards of nine. The game seats nine; a LAN with more seats, and every further LAN, has further boards below. A **place**
// is a number on the whole wall, from 1, board after board: in a wall with one LAN it is the seat's number. Pure.

/** Seats of one board. */
export const BOARD = 9;

export interface Board {
  index: number;
  /** Absent while nothing is known: nine places that ask. */
  lan?: string;
  /** Number of its first seat in the LAN. */
  firstSeat: number;
  /** Place of its first seat on the wall. */
  firstPlace: number;
  /** What it is called where there is more than one. */
  title: string;
}

/** What a board needs of an instance; `seat` counts from 0. */
interface Seated {
  lan: string;
  seat: number;
}

/** Boards in the order of `lans`, then of names; at least one. A LAN without a guest has none while another has some. */
export function boardsOf(instances: readonly Seated[], lans: readonly string[]): Board[] {
  const last = new Map<string, number>();
  for (const { lan, seat } of instances) last.set(lan, Math.max(last.get(lan) ?? 0, seat));
  const order = [...lans.filter((lan) => last.has(lan)), ...[...last.keys()].filter((lan) => !lans.includes(lan)).sort()];
  const boards: Board[] = [];
  for (const lan of order) {
    const count = Math.floor((last.get(lan) ?? 0) / BOARD) + 1;
    for (let block = 0; block < count; block += 1) {
      const firstSeat = block * BOARD + 1;
      const title = count === 1 ? lan : `${lan}, seats ${firstSeat} to ${firstSeat + BOARD - 1}`;
      boards.push({ index: boards.length, lan, firstSeat, firstPlace: boards.length * BOARD + 1, title });
    }
  }
  if (boards.length > 0) return boards;
  const [lan] = lans;
  return [{ index: 0, ...(lan === undefined ? {} : { lan }), firstSeat: 1, firstPlace: 1, title: lan ?? "" }];
}

/** The board of a place; the first for a place that is on none. */
export function boardAt(boards: readonly Board[], place: number): Board | undefined {
  return boards[Math.floor((place - 1) / BOARD)] ?? boards[0];
}

/** Place of an instance; absent if no board has it. */
export function placeOf(boards: readonly Board[], instance: Seated): number | undefined {
  const seat = instance.seat + 1;
  const board = boards.find((b) => b.lan === instance.lan && seat >= b.firstSeat && seat < b.firstSeat + BOARD);
  return board && board.firstPlace + seat - board.firstSeat;
}

/** Number of the seat in its LAN. */
export function seatAt(boards: readonly Board[], place: number): number {
  const board = boardAt(boards, place);
  return board ? board.firstSeat + ((place - 1) % BOARD) : place;
}
