// How views read the store: one subscription per topic, no copy of its data in React state.
import { createContext, useContext, useEffect, useReducer, useSyncExternalStore } from "react";
import type { App, Audio, PageView } from "../app/app";
import type { Wall } from "../api/types";
import type { SeatView } from "../domain/seat";

export const AppContext = createContext<App | null>(null);

export function useApp(): App {
  const app = useContext(AppContext);
  if (!app) throw new Error("a view stands outside of AppContext");
  return app;
}

export function usePage(): PageView {
  const app = useApp();
  return useSyncExternalStore((listener) => app.subscribe("page", listener), () => app.page());
}

/** `place`: on the whole wall, from 1. */
export function useSeat(place: number): SeatView {
  const app = useApp();
  return useSyncExternalStore((listener) => app.subscribe(`seat:${place}`, listener), () => app.seat(place));
}

/** What the gateway said last, at most once a second: for the LAN's views. */
export function useShown(): Wall | undefined {
  const app = useApp();
  return useSyncExternalStore((listener) => app.subscribe("lan", listener), () => app.shown());
}

export function useAudio(instance: string | undefined): Audio {
  const app = useApp();
  return useSyncExternalStore((listener) => app.subscribe("audio", listener), () => app.audio(instance));
}

/** Draws again every `ms`, for counted seconds in words. */
export function useTick(ms: number, running = true): void {
  const [, draw] = useReducer((n: number) => n + 1, 0);
  useEffect(() => {
    if (!running) return undefined;
    const timer = setInterval(draw, ms);
    return () => clearInterval(timer);
  }, [ms, running]);
}

/** Whether a media query holds now. */
export function useMedia(query: string): boolean {
  return useSyncExternalStore(
    (listener) => {
      const list = matchMedia(query);
      list.addEventListener("change", listener);
      return () => list.removeEventListener("change", listener);
    },
    () => matchMedia(query).matches,
  );
}

export const PHONE = "(max-width: 700px)";
