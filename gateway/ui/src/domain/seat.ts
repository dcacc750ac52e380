// One tile's state and words, from what the gateway said, what the session knows, and the clock. Pure.
//
// Order of trust: a picture that arrives is live, whoever says otherwise; then what the agent says of the guest; then
// what the session says of the line. No word claims more than was measured.
import type { Instance, LanInstance, Tier } from "../api/types";
import { lanView, type LanAttr, type LanView } from "./lan-role";
import { clockTime, duration } from "./words";

export type TileState = "loading" | "connecting" | "booting" | "live" | "recovering" | "stale" | "error" | "offline" | "empty";
export type Lease = "you" | "other" | "free";
export type Tone = "clear" | "caution" | "danger" | "lunar" | "off";

/** What a session tells the wall. Times are epoch ms. */
export interface SessionView {
  phase: "idle" | "offering" | "answered" | "connected" | "waiting";
  phaseSince: number;
  /** Since the first try of this row of tries. */
  tryingSince: number;
  tries: number;
  /** Frames of the connection that stands now; 0 until its first picture. */
  frames: number;
  /** When the picture froze because its connection ended. */
  frozenAt?: number;
  failure?: Failure;
  lease?: Lease;
  paused: boolean;
  /** Size of the pictures that are taken; absent while paused. */
  tier?: Tier;
  perSecond?: number;
  rttMs?: number;
  lossPercent?: number;
  clickToPictureMs?: number;
  screen?: { width: number; height: number };
  lastFrameAt?: number;
  /** When anything came from the agent on this connection: a frame, a message, or a packet in the statistics. */
  heardAt?: number;
}

export type Failure =
  | { kind: "refused"; status: number; message: string; remedy: string }
  | { kind: "no-way"; ip: string; ports: string }
  | { kind: "lost" };

export type Action = "why" | "again" | "copy" | "controls";

export interface Note {
  title: string;
  text: string;
  /** Over the frozen picture instead of in its place. */
  over: boolean;
  action?: { act: Action; label: string };
}

export interface SeatView {
  /** On the whole wall, from 1. */
  place: number;
  /** In its LAN, from 1. */
  seat: number;
  instance?: string;
  name: string;
  state: TileState;
  tone: Tone;
  word: string;
  note?: Note;
  lan: LanAttr;
  lanWord: string;
  /** "LAN silent", "Cable out": stays on the smallest tile. */
  lanFault: boolean;
  /** Cable; absent when it is not known. */
  link?: "up" | "down";
  lease?: Lease;
  /** Size of the pictures that are taken; absent when none are. */
  tier?: Tier;
  controls: string;
  /** 0 to 4; 0 = not measured. */
  bars: number;
  quality: string;
  /** It is live, as its agent says, and no picture is asked for: its board is not on the screen. */
  unwatched: boolean;
  /** There is a picture, moving or kept. */
  hasPicture: boolean;
  /** The grey canvas is shown instead of the video. */
  frozen: boolean;
  /** The board's words are older than the gateway's last answer. */
  held: boolean;
  clickToPicture?: number;
  perSecond?: number;
  lossPercent?: number;
  width: number;
  height: number;
}

export interface SeatInput {
  place: number;
  seat: number;
  now: number;
  /** Something has ever answered. */
  answered: boolean;
  askedSince: number;
  away: boolean;
  /** Server clock minus ours, in ms. */
  clockOffset: number;
  /** The page was asked of this machine, though the instances are on others: a port-forward. */
  tunnel?: boolean;
  instance?: Instance;
  /** What the LAN's observers say of it. */
  lan?: LanInstance;
  session?: SessionView;
}

/** A living line is heard every 2.5 s at least. Silence on both ways to an agent is no picture any more. */
const UNHEARD_MS_MAX = 3_000;
/**
 * Presented in one second: the guest draws. The agent repeats an unchanged picture every 2 s, also of a guest that is
 * gone, so one picture proves nothing.
 */
const DRAWS_PER_SECOND_MIN = 2;
const WHY_AFTER_MS = 5_000;

interface Core {
  state: TileState;
  tone: Tone;
  word: string;
  note?: Note;
  frozen?: boolean;
  /** It is live, as its agent says, and nobody looks at it here: its board is not on the screen. */
  unwatched?: true;
}

function core(input: SeatInput): Core {
  const { now, instance, session } = input;
  if (!input.answered) {
    const text = `Nothing has answered yet, ${duration((now - input.askedSince) / 1000)}.`;
    return { state: "loading", tone: "lunar", word: "Loading", note: { title: "Asking the cluster", text, over: false } };
  }
  if (!instance) {
    return {
      state: "empty", tone: "off", word: "Empty",
      note: { title: "Nobody sits here", text: "One command fills it.", over: false, action: { act: "copy", label: "Copy the command" } },
    };
  }
  const since = instance.status ? now + input.clockOffset - instance.status.since * 1000 : undefined;
  const counted = since === undefined ? "" : `, ${duration(since / 1000)}`;
  const detail = instance.status?.detail ?? "";
  const silent = instance.agent_silent_for ?? undefined;
  const unheard = session?.heardAt === undefined ? 0 : now - session.heardAt;
  const dead = silent !== undefined && unheard > UNHEARD_MS_MAX;
  const playing = session !== undefined && session.frames > 0 && session.phase === "connected" && !dead;

  const drawing = playing && (session.perSecond ?? 0) >= DRAWS_PER_SECOND_MIN;

  // What a silent agent or an absent gateway said last is old: then only the picture itself counts. A gateway that has
  // just come back knows places, but not yet what their agents say (no status).
  const fresh = !input.away && silent === undefined && instance.status !== undefined && instance.status !== null;
  if (fresh) {
    if (instance.state === "stopped") {
      const at = instance.status ? `At ${clockTime(instance.status.since * 1000 - input.clockOffset, false)}. ` : "";
      return { state: "offline", tone: "off", word: "Off", note: { title: "Switched off", text: detail || `${at}Its disk is safe.`, over: false } };
    }
    if (instance.state === "failed") {
      return { state: "error", tone: "danger", word: "Guest stopped", note: { title: "Guest stopped", text: detail || `It ended${counted === "" ? "" : ` ${counted.slice(2)} ago`}.`, over: false } };
    }
    if (instance.state === "recovering" && !drawing) {
      const frozenAt = session?.frozenAt ?? session?.lastFrameAt;
      const froze = frozenAt === undefined ? "" : `The picture froze at ${clockTime(frozenAt)}. `;
      return {
        state: "recovering", tone: "lunar", word: `Restarting${counted}`, frozen: frozenAt !== undefined,
        note: { title: "Restarting the guest", text: `${froze}${detail}`.trim(), over: frozenAt !== undefined },
      };
    }
    if (instance.state === "starting" && !drawing) {
      // A booting guest shows its own picture as soon as it has one; before that there is nothing to say but the seconds.
      const note: Note | undefined = playing || detail === "" ? undefined : { title: "Starting", text: detail, over: false };
      return note ? { state: "booting", tone: "lunar", word: `Starting${counted}`, note } : { state: "booting", tone: "lunar", word: `Starting${counted}` };
    }
  }
  if (playing) return { state: "live", tone: "clear", word: "Live" };
  const guestOff = instance.state === "stopped" || instance.state === "failed";
  if (guestOff) return { state: instance.state === "stopped" ? "offline" : "error", tone: "off", word: instance.state === "stopped" ? "Was off" : "Had stopped" };

  const frozenAt = session?.frozenAt ?? (dead && session !== undefined && session.frames > 0 ? session.heardAt : undefined);
  if (silent !== undefined) {
    // The gateway counts the silence; between its words we count on.
    const age = frozenAt === undefined ? silent : (now - frozenAt) / 1000;
    const text = `The agent on ${instance.node} is silent. The game may still run.`;
    if (frozenAt !== undefined) {
      return { state: "stale", tone: "caution", word: `${duration(age)} old`, frozen: true, note: { title: `Last picture, ${duration(age)} old`, text, over: true } };
    }
    return { state: "stale", tone: "caution", word: "No picture yet", note: { title: "No picture yet", text, over: false } };
  }
  if (session?.failure?.kind === "no-way") {
    const { ip, ports } = session.failure;
    return {
      state: "error", tone: "danger", word: "No picture", frozen: false,
      note: { title: `No way to ${instance.node}`, text: `UDP ${ports} is closed between you and ${ip}. Open it, then try again.${input.tunnel ? " This page came through a tunnel; pictures come from the node itself." : ""}`, over: false, action: { act: "again", label: "Try again" } },
    };
  }
  if (session?.failure?.kind === "refused" && session.failure.status >= 400 && session.tries > 1) {
    const { message, remedy } = session.failure;
    return { state: "error", tone: "danger", word: "No picture", note: { title: "No picture", text: `${message} ${remedy}`.trim(), over: false, action: { act: "again", label: "Try again" } } };
  }
  if (frozenAt !== undefined && session) {
    const fine = !input.away && instance.state === "live" ? " The guest is fine." : "";
    const seconds = duration((now - frozenAt) / 1000);
    return {
      state: "recovering", tone: "lunar", word: `Restarting, ${seconds}`, frozen: true,
      note: { title: "Restarting the stream", text: `The picture froze at ${clockTime(frozenAt)}.${fine}`, over: true },
    };
  }
  const trying = now - (session?.tryingSince ?? now);
  const sent = session !== undefined && session.phase !== "idle" && session.phase !== "waiting";
  const waiting = sent ? `The offer is sent. Waiting for ${instance.node}.` : `Waiting for ${instance.node}.`;
  const note: Note = { title: "Opening the picture", text: input.away ? "Waiting for the gateway." : waiting, over: false };
  if (trying >= WHY_AFTER_MS) note.action = { act: "why", label: "Why?" };
  const connecting: Core = { state: "connecting", tone: "lunar", word: `Connecting, ${duration(trying / 1000)}`, note };
  if (session === undefined && instance.state === "live") connecting.unwatched = true;
  return connecting;
}

/** Four bars from what the browser measured of the line; 0 while nothing was. */
export function barsOf(lossPercent: number | undefined, rttMs: number | undefined): number {
  if (lossPercent === undefined && rttMs === undefined) return 0;
  const loss = lossPercent ?? 0;
  const rtt = rttMs ?? 0;
  if (loss >= 8 || rtt >= 300) return 1;
  if (loss >= 3 || rtt >= 150) return 2;
  return loss >= 1 || rtt >= 80 ? 3 : 4;
}

function qualityWords(state: TileState, input: SeatInput): string {
  const s = input.session;
  if (state === "live" || state === "booting") {
    if (!s || s.frames === 0 || s.perSecond === undefined) return state === "booting" ? "not measured yet" : "not measured";
    if (s.paused) return "not measured";
    if (s.perSecond === 0) return "still picture";
    const ms = s.clickToPictureMs;
    return `${s.perSecond} fps${ms === undefined ? "" : `, ${Math.round(ms)} ms`}`;
  }
  if ((state === "recovering" || state === "stale") && s?.frozenAt !== undefined) return `no picture, ${duration((input.now - s.frozenAt) / 1000)}`;
  return "not measured";
}

const CONTROLS: Record<Lease, string> = { you: "you", other: "another viewer", free: "free" };

export function seatView(input: SeatInput): SeatView {
  const { instance, session } = input;
  const what = core(input);
  const measured = what.state === "live" || what.state === "booting";
  const off = what.state === "offline" || (what.state === "error" && instance?.state === "failed");
  const lan: LanView | undefined = instance && lanView(instance, input.lan, input.away);
  const held = input.away && instance !== undefined;
  const lease = measured ? session?.lease : undefined;
  const view: SeatView = {
    place: input.place,
    seat: input.seat,
    name: lan?.player ?? instance?.name ?? (what.state === "loading" ? `Seat ${input.seat}` : "Empty seat"),
    state: what.state,
    tone: what.tone,
    word: what.word,
    lan: off ? "unknown" : (lan?.attr ?? "unknown"),
    lanWord: off ? "Off" : (lan?.word ?? "Unknown"),
    lanFault: !off && (lan?.fault ?? false),
    controls: lease ? CONTROLS[lease] : (instance?.node ?? `Seat ${input.seat}`),
    bars: measured && !session?.paused ? barsOf(session?.lossPercent, session?.rttMs) : 0,
    quality: qualityWords(what.state, input),
    unwatched: what.unwatched ?? false,
    hasPicture: (session !== undefined && session.frames > 0) || (what.frozen ?? false),
    frozen: what.frozen ?? false,
    held,
    width: session?.screen?.width ?? instance?.status?.picture?.width ?? 640,
    height: session?.screen?.height ?? instance?.status?.picture?.height ?? 480,
  };
  if (instance) view.instance = instance.id;
  if (lan?.link && !off) view.link = lan.link;
  if (what.note) view.note = what.note;
  if (lease) view.lease = lease;
  if (session?.tier) view.tier = session.tier;
  if (measured && session) {
    if (session.clickToPictureMs !== undefined) view.clickToPicture = session.clickToPictureMs;
    if (session.perSecond !== undefined) view.perSecond = session.perSecond;
    if (session.lossPercent !== undefined) view.lossPercent = session.lossPercent;
  }
  return view;
}

/** Whether two views draw the same. Views are flat but for `note`. */
export function sameView(a: SeatView, b: SeatView): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

export type Count = "live" | "starting" | "restarting" | "stale" | "failed" | "stopped" | "empty";

/** Counts for the bar, in the order in which they are shown; zero counts are left out. */
export function counts(views: readonly SeatView[]): { word: Count; count: number }[] {
  const of: Record<TileState, Count | undefined> = {
    live: "live", booting: "starting", connecting: "starting", loading: undefined, recovering: "restarting", stale: "stale",
    error: "failed", offline: "stopped", empty: "empty",
  };
  const order: Count[] = ["live", "starting", "restarting", "stale", "failed", "stopped", "empty"];
  const sums = new Map<Count, number>();
  for (const view of views) {
    const word = view.unwatched ? "live" : of[view.state];
    if (word) sums.set(word, (sums.get(word) ?? 0) + 1);
  }
  return order.flatMap((word) => (sums.get(word) ? [{ word, count: sums.get(word) ?? 0 }] : []));
}

export const label = (v: SeatView): string =>
  v.state === "empty" ? `Seat ${v.seat}, empty` : [`Seat ${v.seat}`, v.name === `Seat ${v.seat}` ? undefined : v.name, v.word, v.lanWord === "Unknown" ? undefined : v.lanWord].filter(Boolean).join(", ");
