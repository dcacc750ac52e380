// The stream of /api/events. EventSource cannot send a bearer header, so the stream is read from fetch.
//
//   connecting --event--> open --end, error, 8 s of silence--> waiting(next try) --timer, tryNow--> connecting
//        open --bye: this gateway ends, another is there--> open, on a new stream, without a word
//        any --401 or 403--> denied (ends)
import { backoffMs } from "../domain/backoff";
import { applyChange } from "../domain/changes";
import { ApiClient, ApiError } from "./client";
import { SseParser } from "./sse";
import type { Wall, WallChange } from "./types";

export type FeedState =
  | { is: "connecting"; tries: number }
  | { is: "open" }
  | { is: "waiting"; tries: number; nextTryAt: number }
  | { is: "denied"; reason: string };

/** The gateway speaks at least every 2 s; four missed words mean that it is gone although TCP does not know yet. */
const SILENCE_MS = 8_000;
/** After a `bye` every page comes back at once, but not in the same instant. */
const BYE_MS_MAX = 250;

export class EventFeed {
  #abort: AbortController | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #watchdog: ReturnType<typeof setTimeout> | undefined;
  #tries = 0;
  #closed = false;

  constructor(
    private readonly api: ApiClient,
    private readonly onWall: (wall: Wall) => void,
    private readonly onState: (state: FeedState) => void,
  ) {}

  start(): void {
    void this.#connect();
  }

  tryNow(): void {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    void this.#connect();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#watchdog);
    this.#abort?.abort();
  }

  async #connect(quiet = false): Promise<void> {
    const abort = new AbortController();
    this.#abort = abort;
    let bye = false;
    if (!quiet) this.onState({ is: "connecting", tries: this.#tries });
    try {
      this.#heard();
      const response = await this.api.request("/api/events?changes=1", { headers: { Accept: "text/event-stream" }, signal: abort.signal });
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
      if (!reader) throw new Error("the event stream has no body");
      const parser = new SseParser();
      let wall: Wall | undefined;
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        this.#heard();
        for (const event of parser.push(value)) {
          if (event.event === "bye") bye = true;
          if (event.event === "wall") wall = JSON.parse(event.data) as Wall;
          else if (event.event === "change" && wall) wall = applyChange(wall, JSON.parse(event.data) as WallChange);
          else continue;
          this.#tries = 0;
          this.onState({ is: "open" });
          this.onWall(wall);
        }
      }
    } catch (error) {
      if (error instanceof ApiError && (error.status === 401 || error.status === 403)) {
        clearTimeout(this.#watchdog);
        if (!this.#closed) this.onState({ is: "denied", reason: error.code });
        return;
      }
      // Anything else is "away": it is tried again below, and the page says so.
    }
    clearTimeout(this.#watchdog);
    if (this.#closed) return;
    if (bye) {
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        void this.#connect(true);
      }, Math.random() * BYE_MS_MAX);
      return;
    }
    const wait = backoffMs(this.#tries, Math.random());
    this.#tries += 1;
    this.onState({ is: "waiting", tries: this.#tries, nextTryAt: Date.now() + wait });
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#connect();
    }, wait);
  }

  #heard(): void {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#abort?.abort(), SILENCE_MS);
  }
}
