import { describe, expect, test } from "vitest";
import { Announcer } from "./announce";
import { backoffMs } from "./backoff";
import { strokeOf } from "./chars";
import { ReleaseChord } from "./chord";
import { FrameRing } from "./frames";
import { HeldInput } from "./held";
import { ClickToPicture } from "./latency";
import { boardsOf, placeOf, seatAt } from "./boards";
import { neighbour, shares, spot } from "./layout";
import { MotionTotals, WheelNotches, guestPixel, onPicture, pictureIn } from "./pointer";
import { formatRoute, parseRoute, tokenOf } from "./route";
import { TouchPad } from "./touch";
import { bitrate, duration, grouped } from "./words";

describe("release chord", () => {
  const feed = (keys: string): boolean[] => {
    const chord = new ReleaseChord();
    return keys.split(" ").map((k) => chord.key(k.slice(1), k[0] === "+"));
  };
  test("left Ctrl and left Alt, let go in either order", () => {
    expect(feed("+ControlLeft +AltLeft -AltLeft -ControlLeft").at(-1)).toBe(true);
    expect(feed("+AltLeft +ControlLeft -AltLeft -ControlLeft").at(-1)).toBe(true);
  });
  test("only the last key up releases, and only once", () => {
    expect(feed("+ControlLeft +AltLeft -ControlLeft -AltLeft +AltLeft -AltLeft")).toEqual([false, false, false, true, false, false]);
  });
  test("anything between spoils it: Ctrl+Alt+Del, AltGr, a key held before", () => {
    for (const keys of [
      "+ControlLeft +AltLeft +Delete -Delete -AltLeft -ControlLeft",
      "+ControlLeft +AltRight -AltRight -ControlLeft",
      "+KeyA +ControlLeft +AltLeft -AltLeft -ControlLeft",
      "+ControlLeft -ControlLeft +AltLeft -AltLeft",
      "+ControlRight +AltLeft -AltLeft -ControlRight",
    ]) expect(feed(keys), keys).not.toContain(true);
  });
  test("after a spoilt one the next counts", () => {
    expect(feed("+ControlLeft +AltLeft +Delete -Delete -AltLeft -ControlLeft +ControlLeft +AltLeft -AltLeft -ControlLeft").at(-1)).toBe(true);
  });
  test("a button between spoils it", () => {
    const chord = new ReleaseChord();
    chord.key("ControlLeft", true);
    chord.key("AltLeft", true);
    chord.spoil();
    chord.key("AltLeft", false);
    expect(chord.key("ControlLeft", false)).toBe(false);
  });
});

describe("pointer", () => {
  const box = { left: 100, top: 50, width: 960, height: 600 };
  const size = { width: 640, height: 480 };
  test("the picture is centred in its box", () => {
    expect(pictureIn(box, size)).toEqual({ left: 180, top: 50, width: 800, height: 600 });
  });
  test("corners map to the first and last pixel, and outside is clamped", () => {
    expect(guestPixel({ x: 180, y: 50 }, box, size)).toEqual({ x: 0, y: 0 });
    expect(guestPixel({ x: 979.9, y: 649.9 }, box, size)).toEqual({ x: 639, y: 479 });
    expect(guestPixel({ x: 0, y: 5000 }, box, size)).toEqual({ x: 0, y: 479 });
    expect(guestPixel({ x: 0, y: 0 }, { ...box, width: 0 }, size)).toBeUndefined();
  });
  test("the dark bars are not the picture", () => {
    expect(onPicture({ x: 179, y: 100 }, box, size)).toBe(false);
    expect(onPicture({ x: 180, y: 100 }, box, size)).toBe(true);
    expect(onPicture({ x: 980, y: 100 }, box, size)).toBe(false);
  });
  test("totals count from home, whatever is lost between", () => {
    const totals = new MotionTotals();
    totals.home({ x: 320, y: 240 });
    totals.to({ x: 400, y: 200 });
    expect(totals.to({ x: 330, y: 250 })).toEqual({ x: 10, y: 10 });
  });
  test("slow relative motion adds up", () => {
    const totals = new MotionTotals();
    totals.home({ x: 0, y: 0 });
    for (let i = 0; i < 10; i += 1) totals.by(0.3, 0);
    expect(totals.total).toEqual({ x: 3, y: 0 });
  });
  test("wheel: a notch for 100 px or 3 lines, direction change drops the rest", () => {
    const wheel = new WheelNotches();
    expect([wheel.add(60, 0), wheel.add(60, 0), wheel.add(-90, 0), wheel.add(-20, 0), wheel.add(-6, 1)]).toEqual([0, 1, 0, -1, -2]);
  });
});

test("held input: what went down is let go once", () => {
  const held = new HeldInput();
  held.key("KeyA", true);
  held.button(0, true);
  held.key("KeyB", true);
  held.key("KeyB", false);
  expect(held.takeAll()).toEqual({ codes: ["KeyA"], buttons: [0] });
  expect(held.any).toBe(false);
  expect(held.takeAll()).toEqual({ codes: [], buttons: [] });
});

test("layout: no wrap, over to the next board, the leaning seat stays at its place", () => {
  expect([neighbour(1, "left", 9), neighbour(1, "right", 9), neighbour(3, "right", 9), neighbour(9, "down", 9), neighbour(5, "up", 9)]).toEqual([1, 2, 3, 9, 2]);
  expect([neighbour(8, "down", 18), neighbour(11, "up", 18)]).toEqual([11, 8]);
  expect([spot(1), spot(6), spot(10)]).toEqual([{ row: 0, column: 0 }, { row: 1, column: 2 }, { row: 0, column: 0 }]);
  expect(shares(5)).toEqual({
    columns: "minmax(0,1fr) minmax(0,1.7fr) minmax(0,1fr)",
    rows: "minmax(0,1fr) minmax(0,2.2fr) minmax(0,1fr)",
  });
  expect(shares(14)).toEqual(shares(5));
});

describe("boards of nine", () => {
  const at = (lan: string, ...seats: number[]) => seats.map((seat) => ({ lan, seat }));
  test("one board while nothing is known", () => {
    expect(boardsOf([], [])).toEqual([{ index: 0, firstSeat: 1, firstPlace: 1, title: "" }]);
    expect(boardsOf([], ["party"])[0]?.lan).toBe("party");
  });
  test("in a wall with one LAN of nine, a place is a seat's number", () => {
    const boards = boardsOf(at("party", 0, 8), ["party"]);
    expect(boards.map((b) => b.title)).toEqual(["party"]);
    expect([placeOf(boards, { lan: "party", seat: 8 }), seatAt(boards, 9)]).toEqual([9, 9]);
  });
  test("more than nine seats, and further LANs in the order of the directory, have further boards", () => {
    const boards = boardsOf([...at("b", 0, 20), ...at("a", 2), ...at("stray", 0)], ["b", "empty", "a"]);
    expect(boards.map((b) => [b.lan, b.title, b.firstPlace])).toEqual([
      ["b", "b, seats 1 to 9", 1], ["b", "b, seats 10 to 18", 10], ["b", "b, seats 19 to 27", 19], ["a", "a", 28], ["stray", "stray", 37],
    ]);
    expect([placeOf(boards, { lan: "b", seat: 20 }), placeOf(boards, { lan: "a", seat: 2 }), placeOf(boards, { lan: "nowhere", seat: 0 })]).toEqual([21, 30, undefined]);
    expect([seatAt(boards, 21), seatAt(boards, 30), seatAt(boards, 37)]).toEqual([21, 3, 1]);
  });
  test("every instance has a place of its own", () => {
    const all = ["x", "y", "z"].flatMap((lan, n) => Array.from({ length: 7 + 13 * n }, (_, seat) => ({ lan, seat })));
    const boards = boardsOf(all, ["x", "y", "z"]);
    const places = all.map((one) => placeOf(boards, one));
    expect(new Set(places).size).toBe(all.length);
    expect(all.map((one, i) => seatAt(boards, places[i] ?? 0) === one.seat + 1)).not.toContain(false);
  });
});

test("routes survive a round trip, rubbish opens the wall", () => {
  for (const hash of ["#/wall", "#/wall?seat=5&mode=focus", "#/wall?seat=9&mode=lean&details=1", "#/settings", "#/lan", "#/lan?pair=4-1", "#/lan?pair=14-10&board=2"]) expect(formatRoute(parseRoute(hash))).toBe(hash);
  for (const hash of ["", "#/", "#/plan", "#/wall?seat=0&mode=focus", "#/wall?seat=x&mode=lean", "#/wall?pair=4-1", "#%%%"]) expect(formatRoute(parseRoute(hash))).toBe("#/wall");
  expect(formatRoute(parseRoute("#/lan?pair=4&board=0"))).toBe("#/lan");
});

test("token of a link", () => {
  expect(tokenOf("#token=abc_DEF-1")).toBe("abc_DEF-1");
  for (const hash of ["", "#/wall?seat=5", "#token=", "#token=%20"]) expect(tokenOf(hash)).toBeUndefined();
});

test("backoff: soon and often at first, then doubling to 10 s, with half of it jitter", () => {
  const most = Array.from({ length: 12 }, (_, tries) => backoffMs(tries, 1));
  expect(most).toEqual([200, 200, 300, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000, 10_000]);
  expect([backoffMs(0, 0), backoffMs(4, 0), backoffMs(99, 1)]).toEqual([100, 500, 10_000]);
});

describe("touch", () => {
  test("tap clicks, two fingers click right", () => {
    const pad = new TouchPad();
    pad.down(1, 0, 0, 0);
    expect(pad.up(1, 100)).toEqual([{ do: "click", button: 0 }]);
    pad.down(1, 0, 0, 200);
    pad.down(2, 50, 0, 220);
    expect(pad.up(2, 250)).toEqual([]);
    expect(pad.up(1, 260)).toEqual([{ do: "click", button: 2 }]);
  });
  test("slide moves and does not click", () => {
    const pad = new TouchPad();
    pad.down(1, 0, 0, 0);
    expect(pad.move(1, 30, 0, 20)).toEqual([{ do: "move", dx: 30, dy: 0 }]);
    expect(pad.up(1, 60)).toEqual([]);
  });
  test("long press drags until the finger leaves, or the touch is taken away", () => {
    const pad = new TouchPad();
    pad.down(1, 0, 0, 0);
    expect(pad.held(100)).toEqual([]);
    expect(pad.held(500)).toEqual([{ do: "press" }]);
    expect(pad.held(600)).toEqual([]);
    expect(pad.move(1, 20, 5, 620)).toEqual([{ do: "move", dx: 20, dy: 5 }]);
    expect(pad.up(1, 700)).toEqual([{ do: "release" }]);
    pad.down(1, 0, 0, 1000);
    pad.held(1500);
    expect(pad.cancel()).toEqual([{ do: "release" }]);
  });
});

test("click to picture: the first presented frame that holds the damage, also across a wrap of RTP time", () => {
  const latency = new ClickToPicture();
  expect(latency.p50).toBeUndefined();
  latency.sent(1, 1_000);
  latency.traced(1, 0xffff_fff0, undefined);
  latency.presented(0xffff_ff00, 1_010);
  expect(latency.p50).toBeUndefined();
  latency.presented(16, 1_021);
  expect(latency.p50).toBe(21);
  // The frame may be on the screen before the message about it arrives.
  latency.sent(2, 2_000);
  latency.traced(2, 500, { rtp: 600, at: 2_011 });
  expect(latency.p50).toBe(11);
  // An unknown input, or one whose frame never came, adds nothing.
  latency.traced(99, 700, undefined);
  latency.sent(3, 3_000);
  latency.traced(3, 900, undefined);
  latency.presented(800, 9_000);
  latency.presented(1_000, 9_010);
  expect(latency.p50).toBe(11);
});

test("frames of the last second are counted, older ones are not", () => {
  const ring = new FrameRing();
  expect(ring.lastAt).toBeUndefined();
  for (let i = 0; i < 500; i += 1) ring.add(i * 20);
  expect(ring.total).toBe(500);
  expect(ring.perSecond(9_980)).toBe(50);
  expect(ring.perSecond(12_000)).toBe(0);
});

test("announcer: changes only, worst first, one in 5 s, nothing for what went back", () => {
  const a = new Announcer();
  a.observe(1, "live", "one live");
  a.observe(2, "live", "two live");
  expect(a.take(0)).toBeUndefined();
  a.observe(1, "recovering", "one restarts");
  a.observe(2, "error", "two failed");
  expect(a.take(1_000)).toBe("two failed");
  expect(a.take(2_000)).toBeUndefined();
  a.observe(1, "live", "one live");
  expect(a.take(7_000)).toBeUndefined();
  a.observe(2, "live", "two live again");
  a.observe(1, "lan", "one is silent on the LAN");
  expect(a.take(8_000)).toBe("one is silent on the LAN");
});

test("a soft keyboard's characters become keys of a US board", () => {
  expect(strokeOf("a")).toEqual({ code: "KeyA", shift: false });
  expect(strokeOf("A")).toEqual({ code: "KeyA", shift: true });
  expect(strokeOf("?")).toEqual({ code: "Slash", shift: true });
  expect(strokeOf("\n")).toEqual({ code: "Enter", shift: false });
  expect(strokeOf("ß")).toBeUndefined();
});

test("words for numbers", () => {
  expect([duration(3.9), duration(119), duration(720), duration(7_300), duration(-1)]).toEqual(["3 s", "119 s", "12 min", "2 h", "0 s"]);
  expect(grouped(20118)).toBe("20\u2009118");
  expect([bitrate(812_000), bitrate(2_340_000)]).toEqual(["812 kbit/s", "2.3 Mbit/s"]);
});
