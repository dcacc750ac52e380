import { describe, expect, test } from "vitest";
import type { Instance, InstanceStatus, LanInstance, LanRole } from "../api/types";
import { barsOf, counts, label, seatView, type SeatInput, type SessionView } from "./seat";

const NOW = 1_700_000_000_000;

const status = (change: Partial<InstanceStatus> = {}): InstanceStatus => ({
  id: "instance-4", lan: "party", seat: 4, node: "node-b", mac: "02:4c:00:10:68:05", ip: "10.98.0.5", host_name: "LOCO1068-5",
  state: "live", since: NOW / 1000 - 12, link: true, address_in_use: "10.98.0.5", viewers: { thumb: 1, full: 0 }, ...change,
});
const instance = (change: Partial<Instance> = {}): Instance => ({
  id: "instance-4", name: "Seat 5", lan: "party", seat: 4, node: "node-b", mac: "02:4c:00:10:68:05", ip: "10.98.0.5", state: "live", status: status(), ...change,
});
const playing: SessionView = { phase: "connected", phaseSince: NOW - 5_000, tryingSince: NOW - 6_000, tries: 0, frames: 9, paused: false, perSecond: 30, lossPercent: 0, lease: "free", lastFrameAt: NOW - 20 };
const offering: SessionView = { phase: "offering", phaseSince: NOW - 2_000, tryingSince: NOW - 2_500, tries: 0, frames: 0, paused: false };
const lost: SessionView = { phase: "waiting", phaseSince: NOW - 4_000, tryingSince: NOW - 4_000, tries: 1, frames: 0, frozenAt: NOW - 4_000, paused: false, failure: { kind: "lost" } };
const view = (change: Partial<SeatInput> = {}) => seatView({ place: 5, seat: 5, now: NOW, answered: true, askedSince: NOW - 1_400, away: false, clockOffset: 0, ...change });

describe("state of a tile", () => {
  test("nothing has answered", () => {
    const v = view({ answered: false });
    expect([v.state, v.word, v.note?.title, v.note?.text]).toEqual(["loading", "Loading", "Asking the cluster", "Nothing has answered yet, 1 s."]);
  });
  test("nobody sits here", () => {
    expect([view().state, view().note?.action?.label]).toEqual(["empty", "Copy the command"]);
  });
  test("live only with a presented frame of a standing connection", () => {
    expect(view({ instance: instance(), session: playing }).state).toBe("live");
    expect(view({ instance: instance(), session: { ...playing, frames: 0 } }).state).toBe("connecting");
    expect(view({ instance: instance(), session: { ...playing, phase: "waiting" } }).state).toBe("connecting");
    expect(view({ instance: instance() }).state).toBe("connecting");
  });
  test("connecting counts, and offers its reason after 5 s", () => {
    const v = view({ instance: instance(), session: offering });
    expect([v.word, v.note?.text, v.note?.action]).toEqual(["Connecting, 2 s", "The offer is sent. Waiting for node-b.", undefined]);
    expect(view({ instance: instance(), session: { ...offering, tryingSince: NOW - 5_100 } }).note?.action?.label).toBe("Why?");
  });
  test("a still picture is healthy and stays live", () => {
    const v = view({ instance: instance(), session: { ...playing, perSecond: 0 } });
    expect([v.state, v.quality, v.bars]).toEqual(["live", "still picture", 4]);
  });
  test("a booting guest shows its own still picture without words", () => {
    const v = view({ instance: instance({ state: "starting", status: status({ state: "starting", since: NOW / 1000 - 3 }) }), session: { ...playing, perSecond: 1 } });
    expect([v.state, v.word, v.note]).toEqual(["booting", "Starting, 3 s", undefined]);
  });
  test("pictures that arrive are live before the agent says so; a failed or stopped guest is not", () => {
    const of = (state: Instance["state"]) => view({ instance: instance({ state, status: status({ state }) }), session: playing });
    expect([of("starting").state, of("recovering").state, of("recovering").frozen]).toEqual(["live", "live", false]);
    expect([of("failed").state, of("stopped").state]).toEqual(["error", "offline"]);
  });
  test("a tile says which pictures it takes, and nothing while it takes none", () => {
    const of = (session: SessionView) => view({ instance: instance(), session }).tier;
    expect([of({ ...playing, tier: "full" }), of({ ...playing, paused: true })]).toEqual(["full", undefined]);
    expect(view({ instance: instance() }).tier).toBeUndefined();
  });
  test("a lost line says when the picture froze, and calls the guest fine only if its agent does", () => {
    const v = view({ instance: instance(), session: lost });
    expect([v.state, v.word, v.frozen, v.note?.over]).toEqual(["recovering", "Restarting, 4 s", true, true]);
    expect(v.note?.text).toMatch(/^The picture froze at \d\d:\d\d:\d\d\. The guest is fine\.$/);
    expect(view({ instance: instance(), session: lost, away: true }).note?.text).not.toContain("fine");
  });
  test("a silent agent makes the kept picture old", () => {
    const v = view({ instance: instance({ agent_silent_for: 14.2 }), session: { ...lost, frozenAt: NOW - 14_000 } });
    expect([v.state, v.word, v.note?.title, v.note?.text]).toEqual(["stale", "14 s old", "Last picture, 14 s old", "The agent on node-b is silent. The game may still run."]);
    expect(v.lanWord).toBe("Unknown");
  });
  test("silence on both ways: the connection stands in name only, so its picture is old", () => {
    const silent = instance({ agent_silent_for: 5 });
    const v = view({ instance: silent, session: { ...playing, heardAt: NOW - 4_000 } });
    expect([v.state, v.word, v.frozen]).toEqual(["stale", "4 s old", true]);
    expect(view({ instance: silent, session: { ...playing, heardAt: NOW - 2_600 } }).state).toBe("live");
    expect(view({ instance: instance(), session: { ...playing, heardAt: NOW - 4_000 } }).state).toBe("live");
  });
  test("a picture that still arrives is live, though the agent's other line is silent or the gateway away", () => {
    expect(view({ instance: instance({ agent_silent_for: 5 }), session: playing }).state).toBe("live");
    expect(view({ instance: instance(), session: playing, away: true }).state).toBe("live");
    // A gateway that has just started knows the place but no status yet.
    expect(view({ instance: instance({ state: "starting", status: null }), session: playing }).state).toBe("live");
  });
  test("no way: names the closed port, the address and the remedy", () => {
    const v = view({ instance: instance(), session: { ...offering, phase: "waiting", tries: 1, failure: { kind: "no-way", ip: "10.99.0.12", ports: "14901" } } });
    expect([v.state, v.word, v.note?.title]).toEqual(["error", "No picture", "No way to node-b"]);
    expect(v.note?.text).toBe("UDP 14901 is closed between you and 10.99.0.12. Open it, then try again.");
    const tunnelled = view({ instance: instance(), tunnel: true, session: { ...offering, phase: "waiting", tries: 1, failure: { kind: "no-way", ip: "10.77.0.11", ports: "14900-14999" } } });
    expect(tunnelled.note?.text).toContain("This page came through a tunnel; pictures come from the node itself.");
  });
  test("failed, stopped, recovering as the agent says it", () => {
    const failed = view({ instance: instance({ state: "failed", status: status({ state: "failed", detail: "QEMU ended with code 1." }) }) });
    expect([failed.state, failed.word, failed.note?.text, failed.lanWord]).toEqual(["error", "Guest stopped", "QEMU ended with code 1.", "Off"]);
    const off = view({ instance: instance({ state: "stopped", status: status({ state: "stopped" }) }) });
    expect([off.state, off.word, off.note?.title]).toEqual(["offline", "Off", "Switched off"]);
    const back = view({ instance: instance({ state: "recovering", status: status({ state: "recovering", since: NOW / 1000 - 4 }) }), session: { ...playing, perSecond: 1 } });
    expect([back.state, back.word, back.frozen]).toEqual(["recovering", "Restarting, 4 s", true]);
  });
});

test("no number that was not measured", () => {
  expect(barsOf(undefined, undefined)).toBe(0);
  expect([barsOf(0, 1), barsOf(1, 1), barsOf(3, 1), barsOf(20, 1), barsOf(undefined, 200)]).toEqual([4, 3, 2, 1, 2]);
  const v = view({ instance: instance(), session: offering });
  expect([v.quality, v.bars, v.perSecond, v.clickToPicture]).toEqual(["not measured", 0, undefined, undefined]);
  expect(view({ instance: instance(), session: { ...playing, clickToPictureMs: 21.4 } }).quality).toBe("30 fps, 21 ms");
  expect(view({ instance: instance(), session: { ...playing, paused: true } }).quality).toBe("not measured");
});

describe("LAN of a tile", () => {
  const lan = (change: Partial<InstanceStatus>, input: Partial<SeatInput> = {}) => view({ instance: instance({ status: status(change) }), session: playing, ...input });
  const seen = (role: LanRole, change: Partial<LanInstance> = {}): LanInstance => ({ mac: "02:4c:00:10:68:05", node: "node-b", lan: "party", link: "up", directplay: { role, player_name: "Emil", session: "Friday night" }, ...change });
  test("without a decoder only link and address speak", () => {
    expect([lan({}).lan, lan({}).lanWord]).toEqual(["on", "On the LAN"]);
    expect([lan({ address_in_use: null }).lan, lan({ address_in_use: null }).lanWord]).toEqual(["none", "No LAN yet"]);
    expect(lan({ link: null }).lan).toBe("unknown");
    const away = view({ instance: instance(), session: playing, away: true });
    expect([away.lan, away.lanWord, away.held]).toEqual(["unknown", "Was on the LAN", true]);
  });
  test("role and player's name as decoded", () => {
    const of = (role: LanRole) => lan({}, { lan: seen(role) });
    expect((["host", "joined", "looking", "on", "silent", "none", "was", "unknown"] as const).map((role) => [of(role).lan, of(role).lanWord])).toEqual([
      ["host", "Host"], ["joined", "Joined"], ["looking", "Looking"], ["on", "On the LAN"], ["silent", "LAN silent"], ["none", "No LAN yet"], ["unknown", "Was joined"], ["on", "On the LAN"],
    ]);
    expect([of("joined").name, of("joined").link, label(of("joined"))]).toEqual(["Emil", "up", "Seat 5, Emil, Live, Joined"]);
  });
  test("faults survive the smallest tile, and only faults", () => {
    expect((["silent", "joined", "none", "looking"] as const).map((role) => lan({}, { lan: seen(role) }).lanFault)).toEqual([true, false, false, false]);
    const out = lan({}, { lan: seen("none", { link: "down" }) });
    expect([out.lanWord, out.lanFault, out.link]).toEqual(["Cable out", true, "down"]);
    // A guest that is off has no cable to complain about.
    const off = view({ instance: instance({ state: "stopped", status: status({ state: "stopped" }) }), lan: seen("silent", { link: "down" }) });
    expect([off.lanWord, off.lanFault, off.lan]).toEqual(["Off", false, "unknown"]);
  });
  test("what a silent agent or an absent gateway said last is not the present", () => {
    expect(lan({}, { lan: seen("joined"), away: true }).lanWord).toBe("Was joined");
    const silent = view({ instance: instance({ agent_silent_for: 9 }), session: playing, lan: seen("host") });
    expect([silent.lan, silent.lanWord, silent.lanFault]).toEqual(["unknown", "Unknown", false]);
  });
});

test("counts leave zero out; labels carry the words", () => {
  const live = view({ instance: instance(), session: playing });
  expect(counts([live, live, view()])).toEqual([{ word: "live", count: 2 }, { word: "empty", count: 1 }]);
  expect(label(live)).toBe("Seat 5, Live, On the LAN");
  // On a board that is not on the screen nobody asks for pictures, and the agent's word counts.
  const unwatched = view({ instance: instance({ status: status({}) }) });
  expect([unwatched.state, counts([live, unwatched])]).toEqual(["connecting", [{ word: "live", count: 2 }]]);
  // Also of a gateway that is away, whose last word that was.
  expect(counts([view({ instance: instance({ status: status({}) }), away: true })])).toEqual([{ word: "live", count: 1 }]);
  expect(counts([view({ instance: instance({ status: status({}), agent_silent_for: 9 }) })])).toEqual([{ word: "stale", count: 1 }]);
});
