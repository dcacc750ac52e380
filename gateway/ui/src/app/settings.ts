// What this viewer prefers, kept in this browser. Anything unreadable is the default.

export interface Settings {
  theme: "system" | "night" | "day";
  motion: "system" | "less";
  sound: "one" | "mix";
  /** 0 to 1. */
  volume: number;
  /** Single-key shortcuts m and d on a tile. */
  shortcuts: boolean;
}

const KEY = "loco.settings";
const DEFAULTS: Settings = { theme: "system", motion: "system", sound: "one", volume: 1, shortcuts: true };

function oneOf<T extends string>(value: unknown, of: readonly T[], otherwise: T): T {
  return of.find((v) => v === value) ?? otherwise;
}

export function readSettings(text: string | null): Settings {
  let raw: Record<string, unknown> = {};
  try {
    const value: unknown = JSON.parse(text ?? "{}");
    if (typeof value === "object" && value !== null) raw = value as Record<string, unknown>;
  } catch {
    // An older page or a hand wrote it: the defaults hold.
  }
  const volume = raw["volume"];
  return {
    theme: oneOf(raw["theme"], ["system", "night", "day"], DEFAULTS.theme),
    motion: oneOf(raw["motion"], ["system", "less"], DEFAULTS.motion),
    sound: oneOf(raw["sound"], ["one", "mix"], DEFAULTS.sound),
    volume: typeof volume === "number" && volume >= 0 && volume <= 1 ? volume : DEFAULTS.volume,
    shortcuts: typeof raw["shortcuts"] === "boolean" ? raw["shortcuts"] : DEFAULTS.shortcuts,
  };
}

export const loadSettings = (): Settings => readSettings(localStorage.getItem(KEY));
export const saveSettings = (settings: Settings): void => localStorage.setItem(KEY, JSON.stringify(settings));

const TOKEN = "loco.token";
export const loadToken = (): string | undefined => localStorage.getItem(TOKEN) ?? undefined;
export const saveToken = (token: string): void => localStorage.setItem(TOKEN, token);
export const forgetToken = (): void => localStorage.removeItem(TOKEN);
