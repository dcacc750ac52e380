// Text messages on the data channels between this page and the agent. Bad input is dropped, never thrown on.
import type { Lease } from "../domain/seat";

export type ToAgent =
  | { t: "tier"; tier: "thumb" | "full" | "none" }
  | { t: "take" }
  | { t: "give" }
  | { t: "key"; code: string; down: boolean; n?: number }
  | { t: "button"; button: number; down: boolean; n?: number }
  | { t: "wheel"; dy: number }
  | { t: "home"; x: number; y: number }
  | { t: "held"; codes: string[]; buttons: number[] }
  | { t: "keyframe" }
  | { t: "trace"; on: boolean }
  | { t: "bye" };

export type FromAgent =
  | { t: "hello"; session: string; lease: Lease; width: number; height: number }
  | { t: "lease"; lease: Lease }
  | { t: "screen"; width: number; height: number }
  | { t: "state"; state: string }
  | { t: "trace"; n: number; rtp: number }
  | { t: "stats"; bitrate: number | undefined; target: number | undefined };

type Fields = Record<string, unknown>;
const isLease = (v: unknown): v is Lease => v === "you" || v === "other" || v === "free";
const isSize = (v: unknown): v is number => typeof v === "number" && Number.isInteger(v) && v > 0 && v <= 8192;
const number = (v: unknown): number | undefined => (typeof v === "number" && Number.isFinite(v) ? v : undefined);

/** A message of the agent; absent for what is not one (a newer agent may say more than we know). */
export function parseMessage(text: unknown): FromAgent | undefined {
  if (typeof text !== "string" || text.length > 65_536) return undefined;
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof raw !== "object" || raw === null) return undefined;
  const m = raw as Fields;
  switch (m["t"]) {
    case "hello":
      return typeof m["session"] === "string" && isLease(m["lease"]) && isSize(m["width"]) && isSize(m["height"])
        ? { t: "hello", session: m["session"], lease: m["lease"], width: m["width"], height: m["height"] }
        : undefined;
    case "lease":
      return isLease(m["lease"]) ? { t: "lease", lease: m["lease"] } : undefined;
    case "screen":
      return isSize(m["width"]) && isSize(m["height"]) ? { t: "screen", width: m["width"], height: m["height"] } : undefined;
    case "state":
      return typeof m["state"] === "string" ? { t: "state", state: m["state"] } : undefined;
    case "trace": {
      const n = number(m["n"]);
      const rtp = number(m["rtp"]);
      return n !== undefined && rtp !== undefined ? { t: "trace", n, rtp } : undefined;
    }
    case "stats":
      return { t: "stats", bitrate: number(m["bitrate_bps"]), target: number(m["target_bps"]) };
    default:
      return undefined;
  }
}

/** Where the answer says that media goes: the addresses and UDP ports of its host candidates. */
export function candidatesOf(sdp: string): { ip: string; ports: string } | undefined {
  const found = [...sdp.matchAll(/^a=candidate:\S+ \d+ udp \d+ (\S+) (\d+) typ host/gim)];
  const ip = found[0]?.[1];
  if (ip === undefined) return undefined;
  const ports = [...new Set(found.map((m) => Number(m[2])))].sort((a, b) => a - b);
  return { ip, ports: ports.join(", ") };
}

/** The offer with `stereo=1` for Opus (RFC 7587, 6.1). Without it Chromium decodes to one channel, whatever is sent. */
export function stereoOpus(sdp: string): string {
  const payloads = [...sdp.matchAll(/^a=rtpmap:(\d+) opus\/48000\/2\r?$/gim)].map((m) => m[1]);
  return payloads.reduce<string>((text, payload) => {
    const fmtp = new RegExp(`^(a=fmtp:${payload} )(.*?)(\\r?)$`, "m");
    if (!fmtp.test(text)) return text.replace(new RegExp(`^(a=rtpmap:${payload} .*?)(\\r?)$`, "m"), `$1$2\na=fmtp:${payload} stereo=1$2`);
    return text.replace(fmtp, (line, start: string, rest: string, end: string) => (/(^|;)\s*stereo=/.test(rest) ? line : `${start}${rest};stereo=1${end}`));
  }, sdp);
}
