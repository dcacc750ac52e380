import { describe, expect, test } from "vitest";
import type { Connectivity, Diagnosis, Evidence, Instance, LanInstance, LanRole, LanSample, LanStatus, Session, Step, Timeline } from "../api/types";
import { boardsOf } from "./boards";
import { NO_SESSION, guid, headCount, lanSeats, rails, seatedIn, sessionTabs } from "./lan-board";
import { RUNGS, evidenceHead, frameTime, question, rungsOf, tap, worst } from "./ladder";
import { axisTime, lanesOf } from "./lanes";
import { MODES, MODE_KEYS, cellAt, gridOf, lagWords, streamWords, luminance, matrixOf, mix, moveCell, pairWords, printed, rgb, strength, textOn, type MatrixSeat } from "./matrix";
import { HOUR_S, appended, eventsOf, lineOf, momentAt, sampleOf, sliderAt, ticksOf } from "./timeline";

const NOW = 1_700_000_000;
const instance = (seat: number, lan = "party"): Instance => ({ id: `${lan}-${seat}`, name: `Seat ${seat + 1}`, lan, seat, node: `node-${"abc"[seat % 3] ?? "a"}`, mac: "02:4c:00:10:68:01", ip: `10.98.0.${seat + 1}`, state: "live", status: null });
const seen = (seat: number, role: LanRole, session?: string, player?: string): LanInstance => ({
  mac: "02:4c:00:10:68:01", node: "node-a", lan: "party", link: "up", ip: `10.98.0.${seat + 1}`,
  directplay: { role, ...(session === undefined ? {} : { session }), ...(player === undefined ? {} : { player_name: player }) },
});
const session = (name: string, change: Partial<Session> = {}): Session => ({ name, transport: "tcp", certainty: "announced", instance_guid_wire: `${name}-guid`, ...change });
const status = (change: Partial<LanStatus> = {}): LanStatus => ({ at: NOW, lans: [], instances: {}, connectivity: [], sessions: [], players: [], diagnosis: [], timelines: [], lags: [], strangers: [], anomalies: [], observers: {}, ...change });
const evidence = (at: number, what = "", change: Partial<Evidence> = {}): Evidence => ({ at, frame: 7, what, ...change });

describe("session board", () => {
  const instances = [0, 1, 2, 3, 4, 7].map((seat) => instance(seat));
  const [board] = boardsOf(instances, ["party"]);
  if (!board) throw new Error("no board");
  const one = status({
    sessions: [session("Friday", { host_instance: "party-0", max_players: 9, current_players: 3 })],
    instances: { "party-0": seen(0, "host", "Friday", "Ana"), "party-1": seen(1, "joined", "Friday"), "party-3": seen(3, "silent"), "party-4": seen(4, "joined", "Friday") },
  });
  test("who sits where, with the player's name", () => {
    const seats = lanSeats(board, instances, one, "now");
    expect(seats.map((s) => s.name)).toEqual(["Ana", "Seat 2", "Seat 3", "Seat 4", "Seat 5", "Free", "Free", "Seat 8", "Free"]);
    // No status of the instance: nothing is claimed of the present.
    expect(seats[0]?.lan?.role).toBe("unknown");
    const then = lanSeats(board, instances, one, "then");
    expect(then.map((s) => s.lan?.role)).toEqual(["host", "joined", "unknown", "silent", "joined", undefined, undefined, "unknown", undefined]);
  });
  test("rails join neighbours of one session, and do not run round a corner", () => {
    const seats = lanSeats(board, instances, one, "then");
    const [tab] = sessionTabs(one, board.lan, seats);
    expect(seats.map((s) => seatedIn(s, tab))).toEqual([true, true, false, false, true, false, false, false, false]);
    expect(seats.map((_, i) => rails(seats, i, tab)).flatMap((r, i) => [r.right ? `${i + 1}-${i + 2}` : "", r.down ? `${i + 1}-${i + 4}` : ""]).filter(Boolean)).toEqual(["1-2", "2-5"]);
    const wrap = lanSeats(board, instances, status({ sessions: one.sessions ?? [], instances: { "party-2": seen(2, "host", "Friday"), "party-3": seen(3, "joined", "Friday") } }), "then");
    expect(rails(wrap, 2, sessionTabs(one, board.lan, wrap)[0]).right).toBe(false);
  });
  test("as many tabs as sessions stand; gone ones and other boards' have none", () => {
    const two = status({ ...one, sessions: [...(one.sessions ?? []), session("Other", { host_instance: "party-7" }), session("Old", { certainty: "gone-by-message", host_instance: "party-1" }), session("Elsewhere", { host_instance: "else-0" })] });
    const seats = lanSeats(board, instances, two, "then");
    expect(sessionTabs(two, board.lan, seats).map((t) => [t.title, t.hostPlace])).toEqual([["Friday", 1], ["Other", 8]]);
    expect(sessionTabs(status(), board.lan, seats)).toEqual([]);
    expect(sessionTabs(undefined, board.lan, seats)).toEqual([]);
    expect(NO_SESSION).toBe("No session yet. In the game: two-player case, then the red button with the wand.");
  });
  test("another LAN's session of the same name is another session", () => {
    const both = [...instances, ...[0, 1].map((seat) => instance(seat, "other"))];
    const other = boardsOf(both, ["party", "other"]).find((one) => one.lan === "other");
    if (!other) throw new Error("no board");
    const player = (id: string, lan: string) => ({ id, lan, host: false, session: "Friday", certainty: "announced" }) as const;
    const two = status({
      sessions: [session("Friday", { lan: "party", host_instance: "party-0", max_players: 9 }), session("Friday", { lan: "other", host_instance: "other-0", instance_guid_wire: "guid-2", max_players: 9 })],
      instances: { ...one.instances, "other-0": { ...seen(0, "host", "Friday"), lan: "other" }, "other-1": { ...seen(1, "joined", "Friday"), lan: "other" } },
      players: [player("1", "party"), player("2", "party"), player("3", "party"), player("4", "other"), player("5", "other")],
    });
    const counted = ([board, other] as const).map((on) => {
      const seats = lanSeats(on, both, two, "then");
      return sessionTabs(two, on.lan, seats).map((tab) => [tab.key, headCount(tab, seats)]);
    });
    expect(counted).toEqual([[["Friday-guid", "3 of 9"]], [["guid-2", "2 of 9"]]]);
  });
  test("head count: the players that are seen, else the host's word, else seats; no limit is no limit", () => {
    const seats = lanSeats(board, instances, one, "then");
    const [tab] = sessionTabs(one, board.lan, seats);
    if (!tab) throw new Error("no tab");
    expect(headCount(tab, seats)).toBe("3 of 9");
    const player = { id: "1", host: false, certainty: "announced" } as const;
    expect(headCount({ ...tab, players: [player, player, player, player] }, seats)).toBe("4 of 9");
    expect(headCount({ ...tab, session: session("Friday", { max_players: 0 }) }, seats)).toBe("3");
  });
  test("a GUID as Windows prints it", () => {
    expect(guid("78563412bc9af0de0102030405060708")).toBe("{12345678-9ABC-DEF0-0102-030405060708}");
    expect(guid("not a guid")).toBe("not a guid");
  });
});

describe("matrix", () => {
  const seats: MatrixSeat[] = [1, 2, 3].map((seat) => ({ seat, instance: `i${seat}`, name: `Seat ${seat}`, silent: seat === 3, ip: `10.0.0.${seat}` }));
  seats.push({ seat: 4, name: "Free", silent: false });
  const row = (from: string, to: string, change: Partial<Connectivity>): Connectivity => ({ from, to, reachable: true, ...change });
  const rows = [row("i1", "i2", { rate: 52.4, rtt_ms: 0.42, loss: 0.0123, broadcast_share: 0.31 }), row("i2", "i1", { rate: 0 }), row("i3", "i1", { rate: 0, broadcast_share: 1, broadcast_seen: false }), row("node-a", "i1", { rtt_ms: 3 })];
  const cell = (mode: (typeof MODE_KEYS)[number], from: number, to: number) => {
    const found = matrixOf(seats, rows, mode).cells[from - 1]?.[to - 1];
    if (!found) throw new Error("no such cell");
    return found;
  };
  test("each mode reads its own value, in the unit it names", () => {
    expect(MODE_KEYS.map((mode) => [MODES[mode].name, cell(mode, 1, 2).text])).toEqual([["Rate", "52"], ["Round trip", "0.4"], ["Loss", "1.2"], ["Broadcast", "31"]]);
  });
  test("not measured is no value, zero is zero, nothing of a silent seat is none", () => {
    expect([cell("rate", 1, 3).value, cell("rate", 1, 3).text]).toEqual([undefined, ""]);
    expect([cell("rate", 2, 1).value, cell("rate", 2, 1).text, cell("rate", 2, 1).none]).toEqual([0, "0", false]);
    expect([cell("rate", 3, 1).text, cell("rate", 3, 1).none]).toEqual(["none", true]);
    expect([cell("broadcast", 3, 1).text, cell("broadcast", 3, 1).none]).toEqual(["none", true]);
    expect([cell("rate", 1, 1).same, cell("rate", 1, 4).value]).toEqual([true, undefined]);
  });
  test("a pair in words", () => {
    const words = (mode: (typeof MODE_KEYS)[number], from: number, to: number) => pairWords(matrixOf(seats, rows, mode), cell(mode, from, to));
    expect(words("rate", 2, 1)).toBe("Seat 2 to seat 1: 0 frames a second");
    expect(words("rtt", 2, 1)).toBe("Seat 2 to seat 1: not measured");
    expect(words("rate", 1, 1)).toBe("Seat 1: the same seat");
    expect(words("rate", 1, 4)).toBe("Seat 1 to seat 4: nobody sits at seat 4");
    expect(words("broadcast", 3, 1)).toBe("Seat 3 to seat 1: no broadcast arrived, 100 % of frames sent");
  });
  test("the lag of a pair, as far as it was measured", () => {
    const lag = { from: "10.0.0.1", to: "10.0.0.2", samples: 4 };
    expect(lagWords([{ ...lag, rtt_ms: 12, guest_ms: 9, fabric_ms: 3, error_ms: 1 }], seats[0], seats[1])).toBe("game answers in 12 ms (9 ms guest, 3 ms LAN, \u00b11 ms)");
    expect(lagWords([{ ...lag, rtt_ms: 12.34 }], seats[0], seats[1])).toBe("game answers in 12 ms");
    expect(lagWords([lag], seats[0], seats[1])).toBeUndefined();
    expect(streamWords({ rtt_ms: 23, error_ms: 2, making_ms: 8, samples: 9 })).toBe("its picture takes 8 ms to make, 23 ms to the browser and back (\u00b12 ms)");
    expect(streamWords({ rtt_ms: 23, error_ms: 2, samples: 9 })).toBe("its picture takes 23 ms to the browser and back (\u00b12 ms)");
    expect(streamWords(undefined)).toBeUndefined();
    expect(lagWords([{ ...lag, rtt_ms: 1 }], seats[1], seats[0])).toBeUndefined();
  });
  test("numbers: whole from ten, no false zero", () => {
    expect([0, 0.04, 0.4, 3, 9.94, 9.96, 1234.5].map(printed)).toEqual(["0", "<0.1", "0.4", "3", "9.9", "10", "1235"]);
  });
  test("the top of the colours is a round number that holds all values", () => {
    expect(matrixOf(seats, rows, "rate").top).toBe(100);
    expect(matrixOf(seats, [], "rate").top).toBe(10);
    expect(matrixOf(seats, [row("i1", "i2", { rate: 100 })], "rate").top).toBe(100);
  });
  test("arrows stay inside; other keys are not ours", () => {
    expect(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].map((k) => moveCell({ row: 0, column: 8 }, k, 9))).toEqual([
      { row: 0, column: 7 }, { row: 0, column: 8 }, { row: 0, column: 8 }, { row: 1, column: 8 }, { row: 0, column: 0 }, { row: 0, column: 8 },
    ]);
    expect(moveCell({ row: 0, column: 0 }, "a", 9)).toBeUndefined();
  });
  test("a point finds the cell that is drawn there, and none beside", () => {
    const grid = gridOf(1000, 330, 100, 30, 9);
    expect([cellAt(grid, 100, 30, 9), cellAt(grid, 999, 329, 9), cellAt(grid, 99, 40, 9), cellAt(grid, 1000, 40, 9), cellAt(grid, 200, 29, 9)]).toEqual([
      { row: 0, column: 0 }, { row: 8, column: 8 }, undefined, undefined, undefined,
    ]);
  });
  test("text on any colour of both themes has at least 4.5 to 1", () => {
    for (const [cold, hot] of [["#1A2421", "#F2B544"], ["#F3ECDA", "#8A3B00"]] as const) {
      for (let v = 0; v <= 100; v += 1) {
        const colour = mix(rgb(cold), rgb(hot), strength(v, 100));
        const [a, b] = [luminance(colour), luminance(rgb(textOn(colour)))].sort((x, y) => y - x) as [number, number];
        expect((a + 0.05) / (b + 0.05), `${cold} ${v}`).toBeGreaterThanOrEqual(4.5);
      }
    }
  });
});

describe("join lanes", () => {
  const instances = [0, 1, 2, 3].map((seat) => instance(seat));
  const [board] = boardsOf(instances, ["party"]);
  if (!board) throw new Error("no board");
  const seats = lanSeats(board, instances, status({ instances: { "party-0": seen(0, "host", "Friday") } }), "then");
  const line = (id: string, steps: Partial<Record<Step, number>>): Timeline => ({ mac: "m", instance: id, session: "Friday", steps: Object.entries(steps).map(([step, at]) => ({ step: step as Step, evidence: evidence(NOW + at) })) });
  const host = line("party-0", { power: 0, frame: 4, address: 5, name: 6.2, "player-id": 7, plays: 8 });
  const join = line("party-1", { power: 6, frame: 10, address: 11.8, name: 13, asks: 19, "is-answered": 21.6, linked: 29.9, "player-id": 30, joined: 30.2, plays: 31 });
  const stuck = line("party-2", { power: 5 });
  const fault: Diagnosis = { from: "party-2", to: "party-0", rung: "frame", ok: false, cause: "no-driver", sentence: "", ladder: [] };
  const lanes = lanesOf(seats, [host, join, stuck], [fault], NOW + 900, "party-0", "Friday");
  test("zero is the host's power on", () => {
    expect([lanes.zero, lanes.zeroIsHost, lanes.from]).toEqual([NOW, true, 0]);
    expect(lanes.lanes[1]?.points.map((p) => Math.round(p.x * 10) / 10)).toEqual([6, 10, 11.8, 13, 19, 21.6, 29.9, 30, 30.2, 31]);
    const late = lanesOf(seats, [join], [], NOW + 900, "party-0", "Friday");
    expect([late.zero, late.zeroIsHost]).toEqual([NOW + 6, false]);
  });
  test("rings get ready, dots ask and link, the arm plays, the buffer stops", () => {
    expect(lanes.lanes[1]?.points.map((p) => p.kind)).toEqual(["ring", "ring", "ring", "ring", "dot", "dot", "dot", "dot", "dot", "arm"]);
    expect(lanes.lanes.map((l) => [l.end, l.words])).toEqual([
      ["plays", "plays after 8 s"], ["plays", "plays after 25 s"], ["stuck", "no frame sent"], ["none", "not measured"], ...Array.from({ length: 5 }, () => ["none", ""]),
    ]);
  });
  test("a stuck lane runs on without squeezing the others", () => {
    expect(lanes.to).toBeGreaterThan(31);
    expect(lanes.to).toBeLessThan(31 * 1.5);
    expect(lanes.ticks.every((t) => t >= 0 && t <= lanes.to)).toBe(true);
  });
  test("the longest wait of the machines is bracketed, not the time in which a person chooses", () => {
    expect(lanes.wait).toMatchObject({ lane: 1, from: 19, words: "2.6 s, slow answer" });
    expect(lanesOf(seats, [host], [], NOW, "party-0", "Friday").wait).toBeUndefined();
  });
  test("nothing seen is nothing drawn", () => {
    const none = lanesOf(seats, [], [], NOW, undefined, undefined);
    expect([none.zero, none.lanes.flatMap((l) => l.points)]).toEqual([undefined, []]);
  });
  test("places on the axis in words", () => {
    expect([0, 4, 0.62, 40, 720, -3.5].map(axisTime)).toEqual(["0 s", "4 s", "0.6 s", "40 s", "12 min", "-3.5 s"]);
  });
});

describe("doctor", () => {
  const diagnosis: Diagnosis = { from: "a", to: "b", rung: "frame", ok: false, cause: "no-driver", sentence: "s", ladder: [{ rung: "link", result: "passed" }, { rung: "frame", result: "failed", evidence: evidence(NOW, "ARP who has 10.98.0.4?") }, { rung: "address", result: "unreached" }] };
  test("questions", () => {
    expect(question(diagnosis, "Dana", "seat 1")).toBe("Why can Dana not join seat 1?");
    expect(question({ ...diagnosis, to: "a" }, "seat 4", "seat 4")).toBe("What is wrong with seat 4?");
    expect(question({ ...diagnosis, ok: true }, "seat 4", "Ana")).toBe("Seat 4 and Ana");
  });
  test("nine rungs in order; one that nobody named is not known", () => {
    const rungs = rungsOf(diagnosis);
    expect(rungs.map((r) => r.words)).toEqual(Object.values(RUNGS));
    expect(rungs.map((r) => r.result)).toEqual(["passed", "failed", "unreached", ...Array.from({ length: 6 }, () => "unknown")]);
    expect(rungs[1]?.evidence?.what).toContain("who has");
  });
  test("evidence names frame, time and tap, as far as they are known", () => {
    const name = (id: string) => (id === "party-3" ? "seat 4" : id);
    expect(tap(evidence(NOW, "", { node: "node-b", port: "party-3" }), name)).toBe("seat 4 on node-b");
    expect(tap(evidence(NOW, "", { node: "node-b", port: "overlay" }), name)).toBe("between the nodes, seen on node-b");
    expect(tap(evidence(NOW, "", { node: "node-b", port: "edge" }), name)).toBe("from the node itself on node-b");
    expect(tap(evidence(NOW, "", { node: "node-b", port: "ipx-relay" }), name)).toBe("from the IPX tunnel on node-b");
    expect(tap(evidence(NOW), name)).toBeUndefined();
    expect(evidenceHead(evidence(NOW + 0.118, "", { frame: 18204, node: "node-b", port: "party-3" }), name)).toBe(`frame 18204  ${frameTime(NOW + 0.118)}  seat 4 on node-b`);
    expect(frameTime(NOW + 0.118)).toMatch(/^\d\d:\d\d:\d\d\.118$/);
    expect(evidenceHead({ at: 0, frame: 0, what: "" }, name)).toBe("");
  });
  test("the worst first: the lowest rung that fails", () => {
    const well: Diagnosis = { ...diagnosis, ok: true, rung: "link" };
    expect(worst([{ ...diagnosis, rung: "answers" }, well, { ...diagnosis, rung: "address" }])?.rung).toBe("address");
    expect(worst([well])).toBeUndefined();
  });
});

describe("the last hour", () => {
  test("the slider's right end is now; elsewhere steps of 5 s", () => {
    expect([momentAt(HOUR_S, NOW), momentAt(0, NOW), momentAt(1_802, NOW)]).toEqual([undefined, NOW - HOUR_S, NOW - 1_800]);
    expect([sliderAt(undefined, NOW), sliderAt(NOW - 1_800, NOW), sliderAt(NOW - 9_999, NOW), sliderAt(NOW, NOW)]).toEqual([HOUR_S, 1_800, 0, HOUR_S - 5]);
  });
  test("a live state adds a sample, at most one a step; rates that nobody counted are absent", () => {
    const live = sampleOf(status({ connectivity: [{ from: "a", to: "b", reachable: true, rate: 3 }, { from: "b", to: "a", reachable: true, rate: 4 }], sessions: [session("x"), session("y", { certainty: "gone-by-fin" })], instances: { a: seen(0, "host"), b: seen(1, "joined"), c: seen(2, "looking") } }));
    expect(live).toEqual({ at: NOW, rate: 7, sessions: 1, players: 2 });
    expect(sampleOf(status()).rate).toBeUndefined();
    const old: LanSample[] = [{ at: NOW - HOUR_S - 1, sessions: 0, players: 0 }, { at: NOW - 2, sessions: 0, players: 0 }];
    expect(appended(old, live).map((s) => s.at)).toEqual([NOW - 2]);
    expect(appended(old, { ...live, at: NOW + 3 }).map((s) => s.at)).toEqual([NOW - 2, NOW + 3]);
  });
  test("time without samples breaks the line", () => {
    const at = (seconds: number, rate?: number): LanSample => ({ at: NOW - seconds, sessions: 0, players: 0, ...(rate === undefined ? {} : { rate }) });
    const line = lineOf([at(4_000, 9), at(100, 4), at(95, 8), at(90), at(50, 2)], NOW);
    expect(line.runs.map((run) => run.length)).toEqual([2, 1]);
    expect([line.top, line.runs[0]?.[1]?.y]).toEqual([8, 1]);
    expect(lineOf([], NOW).runs).toEqual([]);
  });
  test("words of events keep their distance; every event has its tick", () => {
    const events = [10, 1_000, 1_010, 2_000, 5_000].map((s) => ({ at: NOW - s, what: String(s) }));
    const ticks = ticksOf(events, NOW, 0.1);
    expect(ticks.map((t) => t.event.what)).toEqual(["10", "1000", "1010", "2000"]);
    expect(ticks.filter((t) => t.named).map((t) => t.event.what)).toEqual(["1000", "2000"]);
    expect(eventsOf([{ at: 1, what: "a", lan: "x" }, { at: 2, what: "b" }], "y").map((e) => e.what)).toEqual(["b"]);
  });
});
