import { expect, test } from "vitest";
import { SseParser } from "./sse";

const WHOLE = ": hello\r\nevent: wall\r\ndata: {\"a\":1}\r\n\r\ndata: one\ndata:two\n\nid: 7\nretry: 100\n\nevent: wall\ndata: 3\n\n";
const WANT = [
  { event: "wall", data: '{"a":1}' },
  { event: "message", data: "one\ntwo" },
  { event: "wall", data: "3" },
];

test("events come out the same however the stream is cut", () => {
  for (let cut = 0; cut <= WHOLE.length; cut += 1) {
    const parser = new SseParser();
    expect([...parser.push(WHOLE.slice(0, cut)), ...parser.push(WHOLE.slice(cut))], `cut at ${cut}`).toEqual(WANT);
  }
  const parser = new SseParser();
  expect([...WHOLE].flatMap((c) => parser.push(c))).toEqual(WANT);
});

test("a stream without an end is refused, not stored", () => {
  const parser = new SseParser(4_000_000);
  expect(() => {
    for (let i = 0; i < 100; i += 1) parser.push("x".repeat(100_000));
  }).toThrow("without an end");
});
