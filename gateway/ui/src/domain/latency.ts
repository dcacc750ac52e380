// Click to picture, measured: from the moment an input left this page to the presentation of the first frame that holds
// its damage. The agent names that frame by its RTP time stamp (message `trace`). Pure.

/** RTP time stamps are 32 bits and wrap. */
function atOrAfter(a: number, b: number): boolean {
  return ((a - b) | 0) >= 0;
}

const KEEP = 32;
const PENDING_MAX = 64;
/** An input without damage never gets a frame. */
const PENDING_MS_MAX = 2_000;

export class ClickToPicture {
  readonly #sent = new Map<number, number>();
  readonly #awaited: { rtp: number; sentAt: number }[] = [];
  readonly #took: number[] = [];

  sent(n: number, now: number): void {
    this.#sent.set(n, now);
    // Oldest out: those inputs changed nothing on the screen.
    if (this.#sent.size > PENDING_MAX) {
      const first = this.#sent.keys().next().value;
      if (first !== undefined) this.#sent.delete(first);
    }
  }

  /** The agent says which frame shows input `n`; `last` is the frame presented last, as they may overtake the message. */
  traced(n: number, rtp: number, last: { rtp: number; at: number } | undefined): void {
    const sentAt = this.#sent.get(n);
    if (sentAt === undefined) return;
    this.#sent.delete(n);
    if (last && atOrAfter(last.rtp, rtp)) this.#done(last.at - sentAt);
    else if (this.#awaited.length < PENDING_MAX) this.#awaited.push({ rtp, sentAt });
  }

  presented(rtp: number, at: number): void {
    for (let i = this.#awaited.length - 1; i >= 0; i -= 1) {
      const waiting = this.#awaited[i];
      if (!waiting) continue;
      if (atOrAfter(rtp, waiting.rtp)) this.#done(at - waiting.sentAt);
      else if (at - waiting.sentAt < PENDING_MS_MAX) continue;
      this.#awaited.splice(i, 1);
    }
  }

  /** Median of the last inputs in ms; absent before the first. */
  get p50(): number | undefined {
    const sorted = [...this.#took].sort((a, b) => a - b);
    return sorted[Math.floor((sorted.length - 1) / 2)];
  }

  #done(ms: number): void {
    if (ms < 0 || ms > PENDING_MS_MAX) return;
    this.#took.push(ms);
    if (this.#took.length > KEEP) this.#took.shift();
  }
}
