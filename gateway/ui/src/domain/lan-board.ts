// The session board: who sits where, in which session, linked with which neighbour. Pure.
import type { Instance, LanStatus, Player, Session } from "../api/types";
import { BOARD, type Board } from "./boards";
import { inSession, lanView, lanViewThen, type LanView } from "./lan-role";
import { COLUMNS } from "./layout";

export const NO_SESSION = "No session yet. In the game: two-player case, then the red button with the wand.";

/** One seat of a board as the LAN knows it. */
export interface LanSeat {
  place: number;
  seat: number;
  instance?: Instance;
  /** The player's name, else the seat's. */
  name: string;
  lan?: LanView;
  /** Name of its session. */
  session?: string;
}

export interface SessionTab {
  key: string;
  title: string;
  session: Session;
  players: readonly Player[];
  hostPlace?: number;
}

/** `when`: whether `status` is of now, of a time that is over, or of now as a gateway said it that does not answer. */
export function lanSeats(board: Board, instances: readonly Instance[], status: LanStatus | undefined, when: "now" | "then" | "away"): LanSeat[] {
  return Array.from({ length: BOARD }, (_, i): LanSeat => {
    const seat = board.firstSeat + i;
    const place = board.firstPlace + i;
    const instance = instances.find((one) => one.lan === board.lan && one.seat + 1 === seat);
    if (!instance) return { place, seat, name: "Free" };
    const seen = status?.instances[instance.id];
    const lan = when === "then" ? lanViewThen(seen) : lanView(instance, seen, when === "away");
    const session = seen?.directplay?.session ?? undefined;
    return { place, seat, instance, name: lan.player ?? instance.name, lan, ...(session === undefined ? {} : { session }) };
  });
}

const title = (session: Session): string => session.name ?? "A session without a name";

/** Sessions that stand and have a seat on this board; all that stand if nobody's seat is known of one. */
export function sessionTabs(status: LanStatus | undefined, lan: string | undefined, seats: readonly LanSeat[]): SessionTab[] {
  if (!status) return [];
  const ids = new Set(seats.flatMap((seat) => (seat.instance ? [seat.instance.id] : [])));
  // Two LANs may have a session of one name, and do where both play the demo.
  const here = (one: { lan?: string | null }): boolean => lan === undefined || (one.lan ?? lan) === lan;
  const standing = (status.sessions ?? []).filter((session) => here(session) && !session.certainty.startsWith("gone"));
  return standing.flatMap((session, index): SessionTab[] => {
    const name = session.name ?? undefined;
    const seated = seats.some((seat) => name !== undefined && seat.session === name) || ids.has(session.host_instance ?? "");
    const elsewhere = name !== undefined && Object.entries(status.instances).some(([id, i]) => !ids.has(id) && here(i) && i.directplay?.session === name);
    if (!seated && (elsewhere || (session.host_instance ?? undefined) !== undefined)) return [];
    const players = (status.players ?? []).filter((p) => here(p) && !p.certainty.startsWith("gone") && (standing.length === 1 || p.session === session.name));
    const hostPlace = seats.find((seat) => seat.instance !== undefined && seat.instance.id === session.host_instance)?.place;
    const tab: SessionTab = { key: session.instance_guid_wire ?? `${title(session)} ${index}`, title: title(session), session, players };
    if (hostPlace !== undefined) tab.hostPlace = hostPlace;
    return [tab];
  });
}

/** Whether a seat belongs to the session of the tab. */
export function seatedIn(seat: LanSeat, tab: SessionTab | undefined): boolean {
  if (!tab || !seat.lan || !inSession(seat.lan.role)) return false;
  return seat.session === undefined ? seat.place === tab.hostPlace : seat.session === tab.session.name;
}

/** Rails of a seat: to the right, and down, where the neighbour is in the same session. */
export function rails(seats: readonly LanSeat[], index: number, tab: SessionTab | undefined): { right: boolean; down: boolean } {
  const linked = (i: number): boolean => seats[i] !== undefined && seatedIn(seats[i], tab);
  const here = linked(index);
  return { right: here && index % COLUMNS < COLUMNS - 1 && linked(index + 1), down: here && linked(index + COLUMNS) };
}

/**
 * "6 of 9", "6" where the session has no limit. The players that are seen in it: the host announces its count only when
 * it is asked, so its word may be older. That word, or else the seats, where no player was seen.
 */
export function headCount(tab: SessionTab, seats: readonly LanSeat[]): string {
  const now = tab.players.length > 0 ? tab.players.length : (tab.session.current_players ?? seats.filter((seat) => seatedIn(seat, tab)).length);
  const max = tab.session.max_players ?? undefined;
  return max === undefined || max === 0 ? String(now) : `${now} of ${max}`;
}

/** A GUID as Windows prints it, from 32 hex digits in wire order (the first three fields are little-endian). */
export function guid(wire: string): string {
  if (!/^[0-9a-f]{32}$/i.test(wire)) return wire;
  const turn = (from: number, to: number): string => (wire.slice(from, to).match(/../g) ?? []).reverse().join("");
  return `{${turn(0, 8)}-${turn(8, 12)}-${turn(12, 16)}-${wire.slice(16, 20)}-${wire.slice(20)}}`.toUpperCase();
}
