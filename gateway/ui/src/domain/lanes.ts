// How they joined: one lane per seat, x = seconds since the host was switched on. Lanes and timetable read the same
// steps; a step that was not seen is nowhere. Pure.
import type { Diagnosis, Evidence, Step, Timeline } from "../api/types";
import type { LanSeat } from "./lan-board";
import { RUNG_STUCK } from "./ladder";

export const STEPS: readonly { step: Step; name: string }[] = [
  { step: "power", name: "Power" }, { step: "frame", name: "First frame" }, { step: "address", name: "Address" }, { step: "name", name: "Name" },
  { step: "asks", name: "Asks" }, { step: "is-answered", name: "Is answered" }, { step: "linked", name: "Linked" },
  { step: "player-id", name: "Player number" }, { step: "joined", name: "Joined" }, { step: "plays", name: "Plays" },
];
const NAMES = new Map(STEPS.map(({ step, name }) => [step, name]));
export const stepName = (step: Step): string => NAMES.get(step) ?? step;
const READY: readonly Step[] = ["power", "frame", "address", "name"];
/** Waits between these are the machines' own: nobody chooses anything in between. */
const NET: readonly Step[] = ["asks", "is-answered", "linked", "player-id", "joined"];
/** What was slow when the wait before this step was the longest. */
const SLOW: Partial<Record<Step, string>> = { "is-answered": "slow answer", "player-id": "slow player number", joined: "slow join" };
/** A wait shorter than this is not worth a bracket, in seconds. */
const WAIT_MIN = 0.5;

export interface LanePoint {
  step: Step;
  /** Seconds since zero. */
  x: number;
  kind: "ring" | "dot" | "arm";
  evidence: Evidence;
}

export interface Lane {
  seat: number;
  name: string;
  empty: boolean;
  points: LanePoint[];
  /** `plays`: arm up. `stuck`: buffer stop. `starting`, `going`: nothing wrong is known. `none`: nothing was seen. */
  end: "plays" | "stuck" | "starting" | "going" | "none";
  words: string;
}

export interface Lanes {
  /** Epoch seconds of x = 0; absent when no step was seen. */
  zero?: number;
  /** Whether zero is the host's power on, else the first step that was seen. */
  zeroIsHost: boolean;
  from: number;
  to: number;
  ticks: number[];
  lanes: Lane[];
  wait?: { lane: number; from: number; to: number; words: string };
}

/** "4 s", "0.6 s", "12 min": a place on the axis. */
export function axisTime(seconds: number): string {
  if (Math.abs(seconds) >= 300) return `${Math.round(seconds / 6) / 10} min`;
  return Math.abs(seconds) < 10 && !Number.isInteger(seconds) ? `${seconds.toFixed(1)} s` : `${Math.round(seconds)} s`;
}

function ticks(from: number, to: number): number[] {
  const step = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600].find((s) => (to - from) / s <= 9) ?? 7200;
  const first = Math.ceil(from / step) * step;
  return Array.from({ length: Math.floor((to - first) / step) + 1 }, (_, i) => first + i * step);
}

/** A guest may have several lives and sessions: the timeline of this session, else the newest. */
function timelineOf(seat: LanSeat, timelines: readonly Timeline[], session: string | undefined): Timeline | undefined {
  const own = timelines.filter((t) => t.instance === seat.instance?.id && t.steps.length > 0);
  const last = (t: Timeline): number => t.steps.at(-1)?.evidence.at ?? 0;
  return own.find((t) => session !== undefined && t.session === session) ?? own.sort((a, b) => last(b) - last(a))[0];
}

/** `now`: epoch seconds of the moment that is looked at; lanes that still go on end there. */
export function lanesOf(seats: readonly LanSeat[], timelines: readonly Timeline[], diagnosis: readonly Diagnosis[], now: number, host: string | undefined, session: string | undefined): Lanes {
  const of = seats.map((seat) => (seat.instance ? timelineOf(seat, timelines, session) : undefined));
  const steps = of.flatMap((t) => t?.steps ?? []);
  const hostLine = of[seats.findIndex((seat) => seat.instance !== undefined && seat.instance.id === host)];
  const power = hostLine?.steps.find((s) => s.step === "power")?.evidence.at;
  const zero = power ?? (steps.length > 0 ? Math.min(...steps.map((s) => s.evidence.at)) : undefined);
  const lanes = seats.map((seat, index): Lane => {
    const base = { seat: seat.seat, name: seat.instance ? seat.name : "empty", empty: seat.instance === undefined };
    const line = of[index];
    if (!line || zero === undefined) return { ...base, points: [], end: "none", words: seat.instance ? "not measured" : "" };
    const points = line.steps.map(({ step, evidence }): LanePoint => {
      const kind = step === "plays" ? "arm" : READY.includes(step) ? "ring" : "dot";
      return { step, evidence, kind, x: evidence.at - zero };
    });
    const first = points[0]?.x ?? 0;
    const last = points.at(-1);
    if (last?.step === "plays") return { ...base, points, end: "plays", words: `plays after ${axisTime(last.x - first)}` };
    const fault = diagnosis.find((d) => !d.ok && d.from === seat.instance?.id);
    if (fault) return { ...base, points, end: "stuck", words: RUNG_STUCK[fault.rung] };
    const joined = points.some((p) => p.step === "joined");
    const starts = last?.step === "power" || last?.step === "frame";
    const ready = last?.step === "address" || last?.step === "name";
    const words = seat.lan?.role === "host" ? "hosts" : joined ? "joined" : starts ? "still starting" : ready ? "on the LAN" : last ? stepName(last.step).toLowerCase() : "";
    return { ...base, points, end: starts ? "starting" : "going", words };
  });
  const xs = lanes.flatMap((lane) => lane.points.map((p) => p.x));
  const open = zero !== undefined && lanes.some((lane) => (lane.end === "stuck" || lane.end === "starting") && lane.points.length > 0);
  const from = Math.min(0, ...xs);
  const last = Math.max(1, ...xs);
  // A lane that is stuck or still starting runs on, but never so long that the others cannot be told apart.
  const to = open ? Math.min(Math.max(last, now - (zero ?? now)), last + (last - from) * 0.35) : last;
  const result: Lanes = { zeroIsHost: power !== undefined, from, to, ticks: ticks(from, to), lanes };
  if (zero !== undefined) result.zero = zero;
  const wait = longestWait(lanes);
  if (wait) result.wait = wait;
  return result;
}

function longestWait(lanes: readonly Lane[]): Lanes["wait"] {
  let longest: Lanes["wait"];
  let seconds = WAIT_MIN;
  lanes.forEach((lane, index) => {
    const net = lane.points.filter((p) => NET.includes(p.step));
    net.forEach((point, i) => {
      const before = net[i - 1];
      // From the answer to the link a person reads the list of games and clicks.
      if (!before || before.step === "is-answered" || point.x - before.x <= seconds) return;
      seconds = point.x - before.x;
      longest = { lane: index, from: before.x, to: point.x, words: `${seconds.toFixed(1)} s, ${SLOW[point.step] ?? "slow"}` };
    });
  });
  return longest;
}
