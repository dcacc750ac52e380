// The moment that all cards of the LAN view show: now, or a time of the last hour. One request at a time for a past
// state, the newest wins; the hour's line and ticks are asked for once and whenever somebody's role changes, and grow by
// the live states in between.
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { ApiError } from "../../api/client";
import type { Instance, LanEvent, LanSample, LanStatus } from "../../api/types";
import { HOUR_S, appended, sampleOf } from "../../domain/timeline";
import { useApp, useShown } from "../hooks";

/** Past states that are kept, so that going back and forth asks once. */
const KEPT_MAX = 60;

export interface Moment {
  /** What the cards show; absent: nothing of that time is known. */
  status: LanStatus | undefined;
  /** The seats as they are now. */
  instances: readonly Instance[];
  /** Epoch seconds that are looked at; absent: now. */
  at: number | undefined;
  /** Epoch seconds now, by the gateway's clock. */
  now: number;
  /** The state of `at` is still on its way. */
  loading: boolean;
  samples: readonly LanSample[];
  events: readonly LanEvent[];
  /** Why there is no last hour. */
  problem: string | undefined;
  look: (at: number | undefined) => void;
}

const NONE: readonly Instance[] = [];

const words = (error: unknown): string => (error instanceof ApiError ? `${error.message} ${error.remedy}`.trim() : "The gateway gave no history.");

/** Who is what: its change is what makes a tick. */
const rolesOf = (status: LanStatus | undefined): string =>
  JSON.stringify([status?.sessions?.map((s) => [s.instance_guid_wire, s.certainty]), Object.entries(status?.instances ?? {}).map(([id, i]) => [id, i.link, i.directplay?.role])]);

export function useMoment(): Moment {
  const app = useApp();
  const wall = useShown();
  const live = wall?.lan;
  const [at, setAt] = useState<number>();
  const [past, setPast] = useState<{ at: number; status: LanStatus | undefined }>();
  const [hour, setHour] = useState<{ samples: readonly LanSample[]; events: readonly LanEvent[] }>({ samples: [], events: [] });
  const [problem, setProblem] = useState<string>();
  const kept = useRef(new Map<number, LanStatus | undefined>());
  const now = live?.at ?? Date.now() / 1000;
  const answered = live !== undefined;
  const roles = useMemo(() => rolesOf(live), [live]);

  useEffect(() => {
    if (!answered) return undefined;
    const abort = new AbortController();
    const end = app.shown()?.at ?? Date.now() / 1000;
    app.api.lanHistory(end - HOUR_S, end, abort.signal).then(
      ({ samples, events }) => {
        setHour({ samples, events });
        setProblem(undefined);
      },
      (error: unknown) => !abort.signal.aborted && setProblem(words(error)),
    );
    return () => abort.abort();
  }, [app, answered, roles]);

  useEffect(() => {
    if (live) setHour((before) => ({ ...before, samples: appended(before.samples, sampleOf(live)) }));
  }, [live]);

  useEffect(() => {
    if (at === undefined) return undefined;
    if (kept.current.has(at)) {
      setPast({ at, status: kept.current.get(at) });
      return undefined;
    }
    const abort = new AbortController();
    app.api.lanHistory(at, at, abort.signal).then(
      ({ state }) => {
        const oldest = kept.current.keys().next();
        if (kept.current.size >= KEPT_MAX && !oldest.done) kept.current.delete(oldest.value);
        kept.current.set(at, state ?? undefined);
        setPast({ at, status: state ?? undefined });
      },
      (error: unknown) => {
        if (abort.signal.aborted) return;
        setPast({ at, status: undefined });
        setProblem(words(error));
      },
    );
    return () => abort.abort();
  }, [app, at]);

  const look = useCallback((to: number | undefined) => setAt(to), []);
  // While the next past state is on its way the last one stays: cards do not blink between two places of the slider.
  const shown = at === undefined ? live : past?.status;
  return { status: shown, instances: wall?.instances ?? NONE, at, now, loading: at !== undefined && past?.at !== at, ...hour, problem, look };
}
