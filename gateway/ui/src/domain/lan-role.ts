// What a guest is on the LAN: the gateway's role where one was decoded, else what link and address show. Pure.
import type { Instance, LanInstance, LanRole } from "../api/types";

/** Values of `data-lan`. */
export type LanAttr = "host" | "joined" | "looking" | "on" | "silent" | "none" | "unknown";

export interface LanView {
  role: LanRole;
  attr: LanAttr;
  word: string;
  /** Survives the smallest tile. */
  fault: boolean;
  /** Name of its first player in the game. */
  player?: string;
  /** Cable, as the tap's carrier says; absent when the agent does not answer. */
  link?: "up" | "down";
}

export const LAN_WORDS: Record<LanRole, string> = {
  host: "Host", joined: "Joined", looking: "Looking", on: "On the LAN", silent: "LAN silent", none: "No LAN yet", was: "Was joined", unknown: "Unknown",
};
/** Where the view itself says that it is of the LAN. */
export const shortWord = (view: LanView): string => (view.word === LAN_WORDS.silent ? "Silent" : view.word === LAN_WORDS.none ? "Not yet" : view.word);
/** When the gateway is away, the last answer is not the present. */
const STALE_WORDS: Record<LanRole, string> = {
  host: "Was host", joined: "Was joined", looking: "Unknown", on: "Was on the LAN", silent: "Unknown", none: "Unknown", was: "Was joined", unknown: "Unknown",
};
const ATTR: Record<LanRole, LanAttr> = {
  host: "host", joined: "joined", looking: "looking", on: "on", silent: "silent", none: "none", was: "unknown", unknown: "unknown",
};

function roleOf(instance: Instance, lan: LanInstance | undefined): LanRole {
  const decoded = lan?.directplay?.role;
  const { status } = instance;
  const silent = (instance.agent_silent_for ?? undefined) !== undefined;
  if (silent || !status) return decoded === "was" ? "was" : "unknown";
  if (decoded !== undefined && decoded !== "unknown") return decoded;
  if (status.link === true && status.address_in_use) return "on";
  return typeof status.link === "boolean" ? "none" : "unknown";
}

/** `away`: the gateway does not answer, so what it said last is over. */
export function lanView(instance: Instance, lan: LanInstance | undefined, away: boolean): LanView {
  const role = roleOf(instance, lan);
  const player = lan?.directplay?.player_name ?? undefined;
  if (away) return { role: "unknown", attr: "unknown", word: STALE_WORDS[role], fault: false, ...(player === undefined ? {} : { player }) };
  const link = lan?.link === "up" || lan?.link === "down" ? lan.link : undefined;
  const out = link === "down" && instance.state === "live";
  const view: LanView = { role, attr: ATTR[role], word: out ? "Cable out" : LAN_WORDS[role], fault: out || role === "silent" };
  if (player !== undefined) view.player = player;
  if (link) view.link = link;
  return view;
}

/** The same of a time that is over: only what was recorded then counts, not what the instance says now. */
export function lanViewThen(lan: LanInstance | undefined): LanView {
  const link = lan?.link === "up" || lan?.link === "down" ? lan.link : undefined;
  const role = lan?.directplay?.role ?? (link === "up" && lan?.ip ? "on" : link === undefined ? "unknown" : "none");
  const view: LanView = { role, attr: ATTR[role], word: LAN_WORDS[role], fault: role === "silent" };
  const player = lan?.directplay?.player_name ?? undefined;
  if (player !== undefined) view.player = player;
  if (link) view.link = link;
  return view;
}

/** In a session now. */
export const inSession = (role: LanRole): boolean => role === "host" || role === "joined";
