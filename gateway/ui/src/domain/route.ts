// The address of what is shown: `#/wall?seat=5&mode=focus`. Every view and seat can be linked.

export type View = "wall" | "settings";
export type Mode = "even" | "lean" | "focus";

export interface Route {
  view: View;
  /** Number of the chosen seat, from 1; absent on the even wall. */
  seat?: number;
  mode: Mode;
  details: boolean;
}

export const HOME: Route = { view: "wall", mode: "even", details: false };

/** Reads a fragment; what it does not understand it leaves out, so an old link still opens the wall. */
export function parseRoute(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const view: View = path === "settings" ? "settings" : "wall";
  const params = new URLSearchParams(query);
  const number = Number(params.get("seat"));
  const seat = Number.isInteger(number) && number >= 1 && number <= 254 ? number : undefined;
  const wanted = params.get("mode");
  const mode: Mode = seat !== undefined && (wanted === "focus" || wanted === "lean") ? wanted : "even";
  const details = seat !== undefined && params.get("details") === "1" && mode !== "focus";
  return seat === undefined ? { view, mode, details } : { view, seat, mode, details };
}

export function formatRoute(route: Route): string {
  const params = new URLSearchParams();
  if (route.seat !== undefined) {
    params.set("seat", String(route.seat));
    if (route.mode !== "even") params.set("mode", route.mode);
    if (route.details) params.set("details", "1");
  }
  const query = params.toString();
  return `#/${route.view}${query === "" ? "" : `?${query}`}`;
}

/** The token of a link that `loco up` printed: `#token=…`. */
export function tokenOf(hash: string): string | undefined {
  const token = new URLSearchParams(hash.replace(/^#/, "")).get("token");
  return token === null || token.trim() === "" ? undefined : token.trim();
}
