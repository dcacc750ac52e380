// State changes for the one polite live region: at most one sentence in 5 s, worst first. Pure but for the clock given.
import type { TileState } from "./seat";

/** A tile's state, or `lan`: it is live, but its LAN has a fault. */
export type Mark = TileState | "lan";

const WORST: Mark[] = ["error", "lan", "offline", "stale", "recovering", "empty", "booting", "connecting", "live", "loading"];
export const ANNOUNCE_EVERY_MS = 5_000;

export class Announcer {
  readonly #last = new Map<number, Mark>();
  readonly #due = new Map<number, { state: Mark; sentence: string }>();
  #spokeAt = -Infinity;

  /** A seat's state now. The first one is no change. Back where it was: nothing to say. */
  observe(seat: number, state: Mark, sentence: string): void {
    const before = this.#last.get(seat);
    if (before === undefined) {
      this.#last.set(seat, state);
      return;
    }
    if (before === state) this.#due.delete(seat);
    else this.#due.set(seat, { state, sentence });
  }

  /** The sentence to speak now, if one is due. */
  take(now: number): string | undefined {
    if (this.#due.size === 0 || now - this.#spokeAt < ANNOUNCE_EVERY_MS) return undefined;
    const worst = [...this.#due].sort((a, b) => WORST.indexOf(a[1].state) - WORST.indexOf(b[1].state) || a[0] - b[0])[0];
    if (!worst) return undefined;
    this.#due.delete(worst[0]);
    this.#last.set(worst[0], worst[1].state);
    this.#spokeAt = now;
    return worst[1].sentence;
  }
}
