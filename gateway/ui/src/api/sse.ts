// Parser of a server-sent event stream (WHATWG HTML 9.2.6), fed with chunks as they come. Pure.

export interface SseEvent {
  event: string;
  data: string;
}

/** Longest line and longest event that is kept; a stream beyond it is not ours. */
const MAX_CHARS = 4 * 1024 * 1024;

export class SseParser {
  #rest = "";
  #event = "";
  #data: string[] = [];
  #size = 0;

  /** Events that this chunk completes. A chunk may end anywhere, also between CR and LF. */
  push(chunk: string): SseEvent[] {
    this.#rest += chunk;
    if (this.#rest.length > MAX_CHARS) throw new Error("the event stream sent a line without an end");
    const out: SseEvent[] = [];
    for (;;) {
      const end = this.#rest.search(/[\r\n]/);
      if (end < 0) return out;
      // A CR at the very end may be half of a CRLF: wait for the next chunk.
      if (this.#rest[end] === "\r" && end === this.#rest.length - 1) return out;
      const line = this.#rest.slice(0, end);
      const width = this.#rest.startsWith("\r\n", end) ? 2 : 1;
      this.#rest = this.#rest.slice(end + width);
      const done = this.#line(line);
      if (done) out.push(done);
    }
  }

  #line(line: string): SseEvent | undefined {
    if (line === "") {
      const event = { event: this.#event || "message", data: this.#data.join("\n") };
      const some = this.#data.length > 0;
      this.#event = "";
      this.#data = [];
      this.#size = 0;
      return some ? event : undefined;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return undefined;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.#event = value;
    else if (field === "data") {
      this.#size += value.length;
      if (this.#size > MAX_CHARS) throw new Error("the event stream sent an event without an end");
      this.#data.push(value);
    }
    return undefined;
  }
}
