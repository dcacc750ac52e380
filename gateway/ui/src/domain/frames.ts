// Presented frames of one video, counted without any allocation per frame. Pure.

const SLOTS = 128;

export class FrameRing {
  readonly #at = new Float64Array(SLOTS);
  #next = 0;
  #total = 0;

  add(at: number): void {
    this.#at[this.#next] = at;
    this.#next = (this.#next + 1) % SLOTS;
    this.#total += 1;
  }

  get total(): number {
    return this.#total;
  }

  /** Presentation of the newest frame; absent before the first. */
  get lastAt(): number | undefined {
    return this.#total === 0 ? undefined : this.#at[(this.#next + SLOTS - 1) % SLOTS];
  }

  /** Frames presented in the second before `now`. */
  perSecond(now: number): number {
    let count = 0;
    for (let i = 0; i < Math.min(this.#total, SLOTS); i += 1) {
      const at = this.#at[i] ?? 0;
      if (at > now - 1_000 && at <= now) count += 1;
    }
    return count;
  }
}
