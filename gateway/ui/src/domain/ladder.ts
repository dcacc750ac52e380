// The doctor's ladder in words: question, rungs, evidence. Sentences and remedies come from the gateway. Pure.
import type { Diagnosis, Evidence, Rung, RungResult } from "../api/types";

export const RUNGS: Record<Rung, string> = {
  link: "The cable is in",
  frame: "It has sent a frame",
  address: "It has an address",
  asks: "It asks for games (UDP 47624)",
  reaches: "Its question reaches the host",
  answers: "The host answers (TCP 2300-2400)",
  "same-game": "Same game, same version",
  free: "A station is free",
  joined: "It has joined",
};
export const RUNG_ORDER = Object.keys(RUNGS) as Rung[];

export const RESULTS: Record<RungResult, string> = { passed: "passed", failed: "failed", unreached: "not reached", unknown: "not known" };

/** Beside the buffer stop of a lane. */
export const RUNG_STUCK: Record<Rung, string> = {
  link: "the cable is out", frame: "no frame sent", address: "no address", asks: "does not ask", reaches: "the question is lost",
  answers: "no answer", "same-game": "another game", free: "no station free", joined: "not joined",
};

/** Seconds that the capture keeps for sure, as the buttons say. */
export const CAPTURE_S = 60;
export const EVIDENCE_GONE = `The frame is older than the buffer (${CAPTURE_S} s). Reproduce it; the capture runs.`;

export const who = (seat: number, name: string): string => (name === `Seat ${seat}` ? `seat ${seat}` : name);

export function question(diagnosis: Diagnosis, from: string, to: string): string {
  const upper = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
  if (diagnosis.ok) return diagnosis.from === diagnosis.to ? `Is ${from} well?` : `${upper(from)} and ${to}`;
  if (diagnosis.from === diagnosis.to) return `What is wrong with ${from}?`;
  return `Why can ${from} not join ${to}?`;
}

/** Every rung once, in order; one that the gateway did not name is not known. */
export function rungsOf(diagnosis: Diagnosis): { rung: Rung; words: string; result: RungResult; evidence?: Evidence }[] {
  return RUNG_ORDER.map((rung) => {
    const state = diagnosis.ladder.find((r) => r.rung === rung);
    const evidence = state?.evidence ?? undefined;
    return { rung, words: RUNGS[rung], result: state?.result ?? "unknown", ...(evidence ? { evidence } : {}) };
  });
}

const two = (n: number): string => String(n).padStart(2, "0");

/** "21:12:40.118", local. */
export function frameTime(epochSeconds: number): string {
  const d = new Date(epochSeconds * 1000);
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${String(d.getMilliseconds()).padStart(3, "0")}`;
}

/** Points that are no seat's. */
const ELSEWHERE: Record<string, string> = {
  overlay: "between the nodes",
  edge: "from the node itself",
  "ipx-relay": "from the IPX tunnel",
};

/** Where a frame was seen: "seat 4 on node-b", "between the nodes, node-b"; absent in a capture without ports. */
export function tap(evidence: Evidence, seatName: (instance: string) => string): string | undefined {
  const { port, node } = evidence;
  if (port === undefined || port === null) return node ?? undefined;
  const where = ELSEWHERE[port] ?? seatName(port);
  return node === undefined || node === null ? where : port === "overlay" ? `${where}, seen on ${node}` : `${where} on ${node}`;
}

/** First line of the evidence: frame number, time, tap. Frame 0 and time 0: nothing of the kind was counted. */
export function evidenceHead(evidence: Evidence, seatName: (instance: string) => string): string {
  return [evidence.frame > 0 ? `frame ${evidence.frame}` : undefined, evidence.at > 0 ? frameTime(evidence.at) : undefined, tap(evidence, seatName)].filter(Boolean).join("  ");
}

/** The diagnosis to open with: the first that fails, by the rung that fails first; a pair before a single seat. */
export function worst(diagnoses: readonly Diagnosis[]): Diagnosis | undefined {
  return [...diagnoses].filter((d) => !d.ok).sort((a, b) => RUNG_ORDER.indexOf(a.rung) - RUNG_ORDER.indexOf(b.rung))[0];
}
