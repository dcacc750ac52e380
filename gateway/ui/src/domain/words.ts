// The exact words of ui/design.md section 4 that more than one place uses. Pure.
/** "5 s", "2 min", "3 h". Seconds count up in words. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 120) return `${s} s`;
  if (s < 7_200) return `${Math.floor(s / 60)} min`;
  return `${Math.floor(s / 3_600)} h`;
}

const two = (n: number): string => String(n).padStart(2, "0");

/** Local wall clock time, "21:14:07". */
export function clockTime(epochMs: number, seconds = true): string {
  const d = new Date(epochMs);
  return `${two(d.getHours())}:${two(d.getMinutes())}${seconds ? `:${two(d.getSeconds())}` : ""}`;
}

/** "20 118": thin groups of three, as in a timetable. */
export function grouped(n: number): string {
  return String(Math.round(n)).replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009");
}

export function bitrate(bps: number): string {
  return bps >= 1e6 ? `${(bps / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bps / 1e3)} kbit/s`;
}

export const CAPTURE_HINT = (seat: number): string => `Keys go to seat ${seat}. Press and let go left Ctrl and left Alt to return.`;
export const VIEW_ONLY = "You may watch. Ask for a play token to join in.";
export const YOU_HAVE = "You have the controls.";
export const UP = "loco up --guests 9";
/** What fills an empty wall, the line to copy first. */
export function emptyLines(discovery?: { mode: string; kubernetesDiscovery?: { namespace: string } | null }): string[] {
  if (discovery?.mode !== "kubernetes") return [`${UP}           # the demo game`, "loco up --disk win98.qcow2   # your own disk"];
  const namespace = discovery.kubernetesDiscovery?.namespace ?? "loco";
  return [`kubectl -n ${namespace} scale statefulset/instance --replicas=9`, `kubectl -n ${namespace} get pods -l app.kubernetes.io/component=instance   # if they do not come`];
}
/** A running wall refuses `loco up`: it has to come down first. */
export const REFILL = `loco down && ${UP}`;
export const SOUND_WAITS = "Sound is waiting: click once";

/** A name that does not fit beside its plate at the usual size: NetBIOS names have up to 15 letters. */
export const isLong = (name: string): boolean => name.length > 8;
