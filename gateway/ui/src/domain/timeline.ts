// The last hour: where the slider stands, what is drawn above it, and the ticks of what happened. Pure.
import type { LanEvent, LanSample, LanStatus } from "../api/types";

export const HOUR_S = 3_600;
export const STEP_S = 5;

/** The place on the slider: 0 an hour ago, 3600 now. */
export function momentAt(slider: number, now: number): number | undefined {
  return slider >= HOUR_S ? undefined : now - HOUR_S + Math.round(slider / STEP_S) * STEP_S;
}

export function sliderAt(at: number | undefined, now: number): number {
  return at === undefined ? HOUR_S : Math.max(0, Math.min(HOUR_S - STEP_S, HOUR_S - (now - at)));
}

/** What a live state adds to the line. Rates that nobody counted add nothing, not zero. */
export function sampleOf(status: LanStatus): LanSample {
  const rates = status.connectivity.flatMap((row) => (row.rate === undefined || row.rate === null ? [] : [row.rate]));
  const sample: LanSample = {
    at: status.at,
    sessions: (status.sessions ?? []).filter((s) => !s.certainty.startsWith("gone")).length,
    players: Object.values(status.instances).filter((i) => i.directplay?.role === "host" || i.directplay?.role === "joined").length,
  };
  if (rates.length > 0) sample.rate = rates.reduce((sum, rate) => sum + rate, 0);
  return sample;
}

/** The samples of the hour before `now`, with the live one behind them if a step has passed since. */
export function appended(samples: readonly LanSample[], live: LanSample): LanSample[] {
  const last = samples.at(-1);
  const kept = samples.filter((s) => s.at > live.at - HOUR_S);
  return last && live.at - last.at < STEP_S ? kept : [...kept, live];
}

export interface Line {
  /** Runs of neighbours; a gap where nothing was measured. x and y from 0 to 1. */
  runs: { x: number; y: number }[][];
  top: number;
}

/** The line of rates. A step without a sample breaks it. */
export function lineOf(samples: readonly LanSample[], now: number): Line {
  const known = samples.filter((s): s is LanSample & { rate: number } => s.rate !== undefined && s.rate !== null && s.at > now - HOUR_S && s.at <= now + STEP_S);
  const top = Math.max(1, ...known.map((s) => s.rate));
  const runs: Line["runs"] = [];
  let before = -Infinity;
  for (const sample of known) {
    if (sample.at - before > STEP_S * 3) runs.push([]);
    runs.at(-1)?.push({ x: (sample.at - (now - HOUR_S)) / HOUR_S, y: sample.rate / top });
    before = sample.at;
  }
  return { runs, top };
}

export interface Tick {
  x: number;
  event: LanEvent;
  /** Its words stand below the line: they do not touch the words of another. */
  named: boolean;
}

/** Ticks of the events in the hour. Newest first get their words, as long as `share` of the width stays between two. */
export function ticksOf(events: readonly LanEvent[], now: number, share: number): Tick[] {
  const ticks = events.filter((e) => e.at > now - HOUR_S && e.at <= now).map((event): Tick => ({ x: (event.at - (now - HOUR_S)) / HOUR_S, event, named: false }));
  // The ends carry the times of the hour.
  let right = 1 - share / 3;
  for (const tick of [...ticks].sort((a, b) => b.x - a.x)) {
    if (tick.x + share / 2 > right || tick.x - share / 2 < share / 3) continue;
    tick.named = true;
    right = tick.x - share / 2;
  }
  return ticks;
}

/** Events of one LAN, and those of no LAN. */
export const eventsOf = (events: readonly LanEvent[], lan: string | undefined): LanEvent[] =>
  events.filter((e) => e.lan === undefined || e.lan === null || lan === undefined || e.lan === lan);
