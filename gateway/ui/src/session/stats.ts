// What getStats says of one connection, reduced to the few numbers that the page shows. Differences are taken between
// two readings; a number that a browser does not give stays absent.

export interface Reading {
  /** Anything at all that came from the agent: it grows while the line lives, also under a still picture. */
  heard: number;
  lost: number | undefined;
  received: number | undefined;
  bytes: number | undefined;
  rttMs: number | undefined;
  codec: string | undefined;
  decoder: string | undefined;
  at: number;
}

export interface LineNumbers {
  lossPercent?: number;
  rttMs?: number;
  bitrate?: number;
  codec?: string;
  lost?: number;
}

type Entry = Record<string, unknown>;
const num = (e: Entry | undefined, key: string): number | undefined => {
  const v = e?.[key];
  return typeof v === "number" ? v : undefined;
};
const str = (e: Entry | undefined, key: string): string | undefined => {
  const v = e?.[key];
  return typeof v === "string" ? v : undefined;
};

export function readStats(report: Iterable<readonly [string, unknown]>, at: number): Reading {
  let video: Entry | undefined;
  let pair: Entry | undefined;
  let heard = 0;
  const byId = new Map<string, Entry>();
  for (const [id, raw] of report) {
    const e = raw as Entry;
    byId.set(id, e);
    if (e["type"] === "inbound-rtp" && e["kind"] === "video") video = e;
    if (e["type"] === "candidate-pair") {
      heard += (num(e, "bytesReceived") ?? 0) + (num(e, "responsesReceived") ?? 0);
      if (e["nominated"] === true || pair === undefined) pair = e;
    }
    if (e["type"] === "transport") heard += num(e, "bytesReceived") ?? 0;
  }
  const rtt = num(pair, "currentRoundTripTime");
  const codec = byId.get(str(video, "codecId") ?? "");
  return {
    heard,
    lost: num(video, "packetsLost"),
    received: num(video, "packetsReceived"),
    bytes: num(video, "bytesReceived"),
    rttMs: rtt === undefined ? undefined : rtt * 1000,
    codec: str(codec, "mimeType")?.replace(/^video\//, ""),
    decoder: str(video, "decoderImplementation"),
    at,
  };
}

/** Packets below which a share of lost ones says nothing. */
const ENOUGH_PACKETS = 20;

/** From the newest reading and the oldest of the window (some 10 s). */
export function lineNumbers(old: Reading, now: Reading): LineNumbers {
  const out: LineNumbers = {};
  if (now.rttMs !== undefined) out.rttMs = now.rttMs;
  if (now.codec !== undefined) out.codec = now.codec;
  if (now.lost !== undefined) out.lost = now.lost;
  if (now.lost !== undefined && old.lost !== undefined && now.received !== undefined && old.received !== undefined) {
    const lost = Math.max(0, now.lost - old.lost);
    const all = lost + now.received - old.received;
    if (all >= ENOUGH_PACKETS) out.lossPercent = (lost / all) * 100;
  }
  if (now.bytes !== undefined && old.bytes !== undefined && now.at > old.at) out.bitrate = ((now.bytes - old.bytes) * 8000) / (now.at - old.at);
  return out;
}
