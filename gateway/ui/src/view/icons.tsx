// Icons on a 16 px grid, 1.7 px stroke (ui/design.md section 9). Status icons are three-position semaphores: the ANGLE of
// the arm is the meaning. They are hidden from readers: a word stands beside each, or the button has a label.
import type { ReactNode } from "react";
import type { LanAttr } from "../domain/lan-role";
import type { TileState } from "../domain/seat";

const SHAPES = {
  live: (
    <>
      <path d="M5 15V1.5" />
      <path d="M9.5 9V2" strokeWidth="4" strokeLinecap="butt" />
      <path d="M5 9h4.5" />
    </>
  ),
  error: (
    <>
      <path d="M3 15V2" />
      <path d="M3 5h12" strokeWidth="4.2" strokeLinecap="butt" />
    </>
  ),
  offline: <path d="M1 13h14M5 13V5M11 13V5M3 5h10" />,
  empty: (
    <>
      <rect x="2" y="2" width="12" height="12" rx="2" strokeDasharray="2.4 2.6" />
      <path d="M8 5.5v5M5.5 8h5" />
    </>
  ),
  booting: (
    <>
      <circle cx="3.2" cy="12.8" r="1.8" fill="currentColor" />
      <circle cx="8" cy="8" r="1.8" fill="currentColor" />
      <circle cx="12.8" cy="3.2" r="1.8" />
    </>
  ),
  connecting: (
    <>
      <circle cx="4" cy="12" r="2" fill="currentColor" />
      <circle cx="12" cy="4" r="2" />
      <path d="M6 10l4-4" strokeDasharray="1 3" />
    </>
  ),
  loading: <path className="spin" d="M8 2a6 6 0 1 1-6 6" />,
  recovering: <path d="M13.5 8A5.5 5.5 0 1 1 11.6 3.8M12 1v3.2H8.8" />,
  stale: (
    <>
      <circle cx="8" cy="8" r="6" />
      <path d="M8 4.5V8l2.5 1.6" />
    </>
  ),
  cable: <path d="M5 1.5v3M11 1.5v3M3.5 4.5h9V8a4.5 4.5 0 0 1-9 0zM8 12.5v2.5" />,
  on: (
    <>
      <path d="M1 8h4M11 8h4M5 5.5v5M11 5.5v5M5 8h6" />
      <circle cx="8" cy="8" r="1.2" />
    </>
  ),
  none: <path d="M3 8h10" strokeDasharray="2 3" />,
  host: <path d="M2 14V7l6-5 6 5v7M6.2 14V9.5h3.6V14M1 14h14" />,
  looking: (
    <>
      <circle cx="7" cy="7" r="4.5" />
      <path d="m10.5 10.5 4 4" />
    </>
  ),
  silent: <path d="M1 8h3.5M11.5 8H15M5.5 5.5l5 5M10.5 5.5l-5 5" />,
  passed: <path d="m3 8.5 3.2 3.2L13 4.5" />,
  failed: <path d="M4 4l8 8M12 4l-8 8" />,
  unreached: <circle cx="8" cy="8" r="2" />,
  unknown: <path d="M5.8 6a2.3 2.3 0 1 1 3.4 2c-.8.4-1.2.8-1.2 1.7M8 12.3v.2" />,
  pcap: <path d="M1 9h2.5l1.5-5 2.5 9L10 6l1.2 3H15" />,
  sound: <path d="M2 6v4h2.6L8.5 13V3L4.6 6zM11 5.5a3.6 3.6 0 0 1 0 5M12.8 3.5a6.4 6.4 0 0 1 0 9" />,
  mute: <path d="M2 6v4h2.6L8.5 13V3L4.6 6zM11 6l4 4M15 6l-4 4" />,
  lever: <path d="M8 13 11 2.5M8.9 2l3.9 1.1M3 13.5h10" />,
  more: <path d="M2.5 4h11M2.5 8h11M2.5 12h7" />,
  fill: <path d="M2 6V2h4M14 6V2h-4M2 10v4h4M14 10v4h-4" />,
  close: <path d="M4 4l8 8M12 4l-8 8" />,
  sun: (
    <>
      <circle cx="8" cy="8" r="3" />
      <path d="M8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1" />
    </>
  ),
  moon: <path d="M13 10A6 6 0 0 1 6 3a5.5 5.5 0 1 0 7 7z" />,
  camera: (
    <>
      <path d="M2 5h3l1.2-2h3.6L11 5h3v8H2z" />
      <circle cx="8" cy="8.8" r="2.4" />
    </>
  ),
  pointer: <path d="M3 2l10 5-4.4 1.4L7 13z" />,
  power: <path d="M8 1.5V8M4.5 3.6a5.5 5.5 0 1 0 7 0" />,
  warn: <path d="M8 2 15 14H1zM8 6.5v3.5M8 12v.2" />,
} satisfies Record<string, ReactNode>;

export type IconName = keyof typeof SHAPES;

export function Icon({ name }: { name: IconName }): ReactNode {
  return (
    <svg className="i" viewBox="0 0 16 16" aria-hidden="true">
      {SHAPES[name]}
    </svg>
  );
}

export const STATE_ICON: Record<TileState, IconName> = {
  loading: "loading", connecting: "connecting", booting: "booting", live: "live", recovering: "recovering", stale: "stale",
  error: "error", offline: "offline", empty: "empty",
};

export const LAN_ICON: Record<LanAttr, IconName> = {
  host: "host", joined: "on", looking: "looking", on: "cable", silent: "silent", none: "none", unknown: "none",
};

/** Four bars; outlines where nothing is measured. */
export function Bars({ filled }: { filled: number }): ReactNode {
  return (
    <span className="bars" aria-hidden="true">
      {[4, 7, 9, 12].map((height, index) => (
        <i key={height} style={{ height }} className={index < filled ? "" : "o"} />
      ))}
    </span>
  );
}
