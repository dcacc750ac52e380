// The address of what is shown: `#/wall?seat=5&mode=focus`, `#/lan?pair=4-1`. Every view, seat and pair can be linked.

export type View = "wall" | "lan" | "settings";
const VIEWS: readonly View[] = ["wall", "lan", "settings"];
export type Mode = "even" | "lean" | "focus";

export interface Route {
  view: View;
  /** Place of the chosen seat, from 1: its number where there is one LAN. Absent on the even wall. */
  seat?: number;
  mode: Mode;
  details: boolean;
  /** Places of the two seats that the LAN view asks about. */
  pair?: Pair;
  /** Board of the LAN view, from 1; absent: the one of the pair, else the first. */
  board?: number;
}

export interface Pair {
  from: number;
  to: number;
}

/** Highest place that a link may name. */
const PLACE_MAX = 1_000;

export const HOME: Route = { view: "wall", mode: "even", details: false };

/** Reads a fragment; what it does not understand it leaves out, so an old link still opens the wall. */
export function parseRoute(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const view: View = VIEWS.find((known) => known === path) ?? "wall";
  const params = new URLSearchParams(query);
  const seat = place(params.get("seat"));
  const wanted = params.get("mode");
  const mode: Mode = seat !== undefined && (wanted === "focus" || wanted === "lean") ? wanted : "even";
  const details = seat !== undefined && params.get("details") === "1" && mode !== "focus";
  const route: Route = { view, mode, details };
  if (seat !== undefined) route.seat = seat;
  const [from, to] = (params.get("pair") ?? "").split("-", 2).map(place);
  if (view === "lan" && from !== undefined && to !== undefined) route.pair = { from, to };
  const board = place(params.get("board"));
  if (view === "lan" && board !== undefined) route.board = board;
  return route;
}

function place(text: string | null | undefined): number | undefined {
  const number = Number(text);
  return Number.isInteger(number) && number >= 1 && number <= PLACE_MAX ? number : undefined;
}

export function formatRoute(route: Route): string {
  const params = new URLSearchParams();
  if (route.seat !== undefined) {
    params.set("seat", String(route.seat));
    if (route.mode !== "even") params.set("mode", route.mode);
    if (route.details) params.set("details", "1");
  }
  if (route.view === "lan" && route.pair) params.set("pair", `${route.pair.from}-${route.pair.to}`);
  if (route.view === "lan" && route.board !== undefined) params.set("board", String(route.board));
  const query = params.toString();
  return `#/${route.view}${query === "" ? "" : `?${query}`}`;
}

/** The token of a link that `loco up` printed: `#token=…`. */
export function tokenOf(hash: string): string | undefined {
  const token = new URLSearchParams(hash.replace(/^#/, "")).get("token");
  return token === null || token.trim() === "" ? undefined : token.trim();
}
