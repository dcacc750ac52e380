// Parser of a server-sent event stream (WHATWG HTML 9.2.6), fed with chunks as they come. Pure.

export interface SseEvent {
  event: string;
  data: string;
}

/** Longest line and longest event that is kept; a stream beyond it is not ours. A first wall of 10,000 seats has 30 MB. */
const MAX_CHARS = 64 * 1024 * 1024;

export class SseParser {
  /** The line that has not ended, as it came: put together once, at its end. */
  #parts: string[] = [];
  #chars = 0;
  /** A CR at the very end of a chunk: it may be half of a CRLF. */
  #carry = "";
  #event = "";
  #data: string[] = [];
  #size = 0;

  constructor(private readonly max = MAX_CHARS) {}

  /** Events that this chunk completes. A chunk may end anywhere, also between CR and LF. */
  push(chunk: string): SseEvent[] {
    const text = this.#carry + chunk;
    this.#carry = "";
    const out: SseEvent[] = [];
    const ends = /[\r\n]/g;
    let from = 0;
    for (let end = ends.exec(text); end; end = ends.exec(text)) {
      this.#keep(text.slice(from, end.index));
      from = ends.lastIndex;
      if (end[0] === "\r") {
        if (from === text.length) {
          this.#carry = "\r";
          return out;
        }
        if (text[from] === "\n") from = ends.lastIndex = from + 1;
      }
      const done = this.#line(this.#parts.join(""));
      this.#parts = [];
      this.#chars = 0;
      if (done) out.push(done);
    }
    this.#keep(text.slice(from));
    return out;
  }

  #keep(part: string): void {
    this.#chars += part.length;
    if (this.#chars > this.max) throw new Error("the event stream sent a line without an end");
    if (part !== "") this.#parts.push(part);
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
      if (this.#size > this.max) throw new Error("the event stream sent an event without an end");
      this.#data.push(value);
    }
    return undefined;
  }
}
