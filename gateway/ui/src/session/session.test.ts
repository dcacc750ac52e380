// The session against a fake RTCPeerConnection: the seam is the browser's object, never a class of ours.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { ApiError } from "../api/client";
import { candidatesOf, parseMessage, stereoOpus } from "./messages";
import { SeatSession, type SessionDeps } from "./seat-session";
import { lineNumbers, readStats } from "./stats";

class FakeChannel {
  readyState = "connecting";
  bufferedAmount = 0;
  sent: Record<string, unknown>[] = [];
  onopen?: () => void;
  onmessage?: (event: { data: unknown }) => void;
  onclose?: () => void;
  constructor(readonly label: string, readonly init: RTCDataChannelInit) {}
  send(text: string): void {
    this.sent.push(JSON.parse(text) as Record<string, unknown>);
  }
  of(t: string): Record<string, unknown>[] {
    return this.sent.filter((m) => m["t"] === t);
  }
}

class FakePeer {
  connectionState = "new";
  iceGatheringState = "complete";
  localDescription: { sdp: string } | null = null;
  channels: FakeChannel[] = [];
  closed = false;
  heard = 1;
  onconnectionstatechange?: () => void;
  addTransceiver(): void {}
  createDataChannel(label: string, init: RTCDataChannelInit): FakeChannel {
    const channel = new FakeChannel(label, init);
    this.channels.push(channel);
    return channel;
  }
  createOffer(): Promise<{ sdp: string }> {
    return Promise.resolve({ sdp: "v=0 offer" });
  }
  setLocalDescription(d: { sdp: string }): Promise<void> {
    this.localDescription = d;
    return Promise.resolve();
  }
  setRemoteDescription(): Promise<void> {
    return Promise.resolve();
  }
  getStats(): Promise<Map<string, unknown>> {
    return Promise.resolve(new Map([["T", { type: "transport", bytesReceived: this.heard }]]));
  }
  close(): void {
    this.closed = true;
  }
  go(state: string): void {
    this.connectionState = state;
    this.onconnectionstatechange?.();
  }
  get keys(): FakeChannel {
    return this.channels[0] as FakeChannel;
  }
  get pointer(): FakeChannel {
    return this.channels[1] as FakeChannel;
  }
  open(): void {
    for (const channel of this.channels) {
      channel.readyState = "open";
      channel.onopen?.();
    }
  }
  say(message: unknown): void {
    this.keys.onmessage?.({ data: JSON.stringify(message) });
  }
}

const ANSWER = "v=0\r\na=candidate:1 1 udp 2130706431 10.99.0.12 14901 typ host\r\n";
const peers: FakePeer[] = [];
const ended: string[] = [];
let offer: SessionDeps["offer"];
const peer = (): FakePeer => peers.at(-1) as FakePeer;

function make(): SeatSession {
  const session = new SeatSession("instance-4", {
    offer: (...args) => offer(...args),
    endSession: (location) => {
      if (location) ended.push(location);
      return Promise.resolve();
    },
    peer: () => {
      const made = new FakePeer();
      peers.push(made);
      return made as unknown as RTCPeerConnection;
    },
    random: () => 1,
  });
  session.role = "play";
  return session;
}

async function playing(): Promise<SeatSession> {
  const session = make();
  session.start();
  await vi.advanceTimersByTimeAsync(0);
  peer().go("connected");
  peer().open();
  peer().say({ t: "hello", session: "s1", lease: "free", width: 640, height: 480 });
  session.presented(10, 1_000);
  return session;
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("MediaStream", class { addTrack(): void {} });
  peers.length = 0;
  ended.length = 0;
  offer = () => Promise.resolve({ sdp: ANSWER, location: "/api/whep/instance-4/s1", ports: "14900-14999" });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("connection", () => {
  test("channels are as the agent expects them", async () => {
    await playing();
    expect(peer().channels.map((c) => [c.label, c.init])).toEqual([
      ["keys", { ordered: true }],
      ["pointer", { ordered: false, maxRetransmits: 0 }],
    ]);
  });

  test("a lost line freezes, ends the session at the agent and comes back after the backoff", async () => {
    const session = await playing();
    const freeze = vi.fn();
    session.onFreeze = freeze;
    peer().go("failed");
    expect(freeze).toHaveBeenCalledOnce();
    expect([session.view().phase, session.view().frames, peers.length]).toEqual(["waiting", 0, 1]);
    expect(session.view().frozenAt).toBeDefined();
    expect([ended, peers[0]?.closed]).toEqual([["/api/whep/instance-4/s1"], true]);
    await vi.advanceTimersByTimeAsync(250);
    expect(peers.length).toBe(2);
    peer().go("connected");
    expect(session.view().frozenAt).toBeDefined();
    session.presented(20, 1);
    expect(session.view().frozenAt).toBeUndefined();
  });

  test("an agent that says goodbye is asked for its successor at once, and again until it is there", async () => {
    const session = await playing();
    const at: number[] = [];
    const goodbye = Date.now();
    offer = () => {
      at.push(Date.now() - goodbye);
      return at.length < 3
        ? Promise.reject(new ApiError(502, "agent-away", "The agent is away.", "Wait."))
        : Promise.resolve({ sdp: ANSWER, location: "/api/whep/instance-4/s2", ports: "" });
    };
    // The agent closes its channels first, and then the line.
    peer().keys.onclose?.();
    expect(session.view().phase).toBe("waiting");
    await vi.advanceTimersByTimeAsync(1_000);
    expect([at, session.view().phase]).toEqual([[200, 400, 700], "answered"]);
    peer().go("connected");
    session.presented(20, 1);
    // A picture ends the row: the next loss is met as soon.
    const second = Date.now();
    peer().go("failed");
    offer = () => Promise.resolve({ sdp: ANSWER, location: "", ports: "" });
    const before = peers.length;
    await vi.advanceTimersByTimeAsync(200);
    expect([peers.length, Date.now() - second]).toEqual([before + 1, 200]);
  });

  test("a frame that arrives after its connection ended unfreezes nothing", async () => {
    const session = await playing();
    peer().go("failed");
    session.presented(11, 1_500);
    expect([session.view().frozenAt === undefined, session.view().frames, session.stream]).toEqual([false, 0, undefined]);
  });

  test("what an old connection says is ignored", async () => {
    const session = await playing();
    const old = peer();
    old.go("failed");
    await vi.advanceTimersByTimeAsync(250);
    peer().go("connected");
    old.say({ t: "lease", lease: "you" });
    old.go("failed");
    expect([session.view().phase, session.view().lease]).toEqual(["connected", undefined]);
  });

  test("refusals are kept with their remedy and tried again, slower each time", async () => {
    const at: number[] = [];
    offer = () => {
      at.push(Date.now());
      return Promise.reject(new ApiError(503, "agent-silent", "The agent is silent.", "Wait."));
    };
    const session = make();
    session.start();
    await vi.advanceTimersByTimeAsync(3_000);
    expect(session.view().failure).toEqual({ kind: "refused", status: 503, message: "The agent is silent.", remedy: "Wait." });
    expect(at.slice(1).map((t, i) => t - (at[i] ?? 0))).toEqual([200, 200, 300, 500, 1_000]);
  });

  test("an answer without a connection names address and port", async () => {
    const session = make();
    session.start();
    await vi.advanceTimersByTimeAsync(8_000);
    expect(session.view().failure).toEqual({ kind: "no-way", ip: "10.99.0.12", ports: "14900-14999" });
  });

  test("an agent that does not tell its range is taken by its candidate", async () => {
    offer = () => Promise.resolve({ sdp: ANSWER, location: "", ports: "" });
    const session = make();
    session.start();
    await vi.advanceTimersByTimeAsync(8_000);
    expect(session.view().failure).toEqual({ kind: "no-way", ip: "10.99.0.12", ports: "14901" });
  });

  test("an answer that comes after close() is ended at the agent", async () => {
    let resolve: (answer: { sdp: string; location: string; ports: string }) => void = () => undefined;
    offer = () => new Promise((r) => { resolve = r; });
    const session = make();
    session.start();
    await vi.advanceTimersByTimeAsync(0);
    session.close();
    resolve({ sdp: ANSWER, location: "/api/whep/instance-4/late", ports: "" });
    await vi.advanceTimersByTimeAsync(0);
    expect([ended, session.view().phase]).toEqual([["/api/whep/instance-4/late"], "idle"]);
  });

  test("a line on which nothing is heard any more is made anew; a still picture with a living line is not", async () => {
    const session = await playing();
    for (let i = 0; i < 30; i += 1) {
      peer().heard += 40;
      await vi.advanceTimersByTimeAsync(1_000);
    }
    expect([peers.length, session.view().phase]).toEqual([1, "connected"]);
    await vi.advanceTimersByTimeAsync(8_000);
    expect(peers.length).toBe(2);
  });

  test("probe: a successor that knows nothing of us is found within half a second", async () => {
    const session = await playing();
    await vi.advanceTimersByTimeAsync(100);
    session.probe();
    expect(peer().keys.of("keyframe").length).toBe(1);
    const before = peers.length;
    await vi.advanceTimersByTimeAsync(500);
    expect(peers.length).toBe(before + 1);
  });

  test("probe: an agent that answers keeps its line", async () => {
    const session = await playing();
    await vi.advanceTimersByTimeAsync(100);
    session.probe();
    await vi.advanceTimersByTimeAsync(50);
    session.presented(200, 2_000);
    await vi.advanceTimersByTimeAsync(500);
    expect(peers.length).toBe(1);
  });

  test("the tier is a message, not a connection; coming back asks for a whole picture", async () => {
    const session = await playing();
    peer().keys.sent.length = 0;
    session.setTier("none");
    session.setTier("none");
    expect([session.view().paused, session.view().tier]).toEqual([true, undefined]);
    session.setTier("full");
    expect([session.view().paused, session.view().tier]).toEqual([false, "full"]);
    expect(peer().keys.sent).toEqual([{ t: "tier", tier: "none" }, { t: "tier", tier: "full" }, { t: "keyframe" }]);
    expect(peers.length).toBe(1);
  });
});

describe("input", () => {
  test("a click before the role is known takes the controls once it is, and only then", async () => {
    const session = make();
    session.role = "view";
    session.start();
    await vi.advanceTimersByTimeAsync(0);
    peer().go("connected");
    peer().open();
    session.take();
    expect([peer().keys.of("take").length, session.input.allowed]).toEqual([0, false]);
    session.role = "play";
    session.role = "play";
    expect([peer().keys.of("take").length, session.input.allowed]).toEqual([1, true]);
  });

  test("a role that becomes known takes nothing by itself", async () => {
    const session = make();
    session.role = "view";
    session.start();
    await vi.advanceTimersByTimeAsync(0);
    peer().open();
    session.role = "play";
    expect(peer().keys.of("take")).toEqual([]);
  });

  test("nothing is sent without the controls", async () => {
    const session = await playing();
    peer().keys.sent.length = 0;
    session.input.key("KeyA", true);
    session.input.follow({ x: 1, y: 1 });
    expect([peer().keys.sent, peer().pointer.sent]).toEqual([[], []]);
  });

  test("keys may follow the take at once; a refusal stops them and lets go", async () => {
    const session = await playing();
    peer().keys.sent.length = 0;
    session.take();
    session.input.key("KeyA", true);
    expect(peer().keys.sent.map((m) => m["t"])).toEqual(["take", "trace", "key"]);
    peer().say({ t: "lease", lease: "other" });
    expect(peer().keys.of("key").at(-1)).toEqual({ t: "key", code: "KeyA", down: false });
    const count = peer().keys.sent.length;
    session.input.key("KeyB", true);
    expect(peer().keys.sent.length).toBe(count);
  });

  test("held keys are told every 500 ms, and once when nothing is held", async () => {
    const session = await playing();
    session.take();
    session.input.key("KeyA", true);
    session.input.button(0, true);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(peer().keys.of("held")).toEqual([{ t: "held", codes: ["KeyA"], buttons: [0] }, { t: "held", codes: ["KeyA"], buttons: [0] }]);
    session.input.key("KeyA", false);
    session.input.button(0, false);
    await vi.advanceTimersByTimeAsync(3_000);
    expect(peer().keys.of("held").at(-1)).toEqual({ t: "held", codes: [], buttons: [] });
    expect(peer().keys.of("held").length).toBe(3);
  });

  test("a key up without its down stays here; leaving lets everything go", async () => {
    const session = await playing();
    session.take();
    session.input.key("Enter", false);
    expect(peer().keys.of("key")).toEqual([]);
    session.input.key("ShiftLeft", true);
    session.give();
    expect(peer().keys.of("key").at(-1)).toEqual({ t: "key", code: "ShiftLeft", down: false });
    expect(peer().keys.sent.at(-2)).toEqual({ t: "give" });
  });

  test("home on entering, then totals; a full channel skips, the next total has it all", async () => {
    const session = await playing();
    session.take();
    session.input.follow({ x: 100, y: 100 });
    session.input.follow({ x: 110, y: 90 });
    peer().pointer.bufferedAmount = 10_000;
    session.input.follow({ x: 150, y: 90 });
    peer().pointer.bufferedAmount = 0;
    session.input.follow({ x: 160, y: 95 });
    expect(peer().keys.of("home")).toEqual([{ t: "home", x: 100, y: 100 }]);
    expect(peer().pointer.sent).toEqual([{ t: "move", x: 10, y: -10, s: 1 }, { t: "move", x: 60, y: -5, s: 3 }]);
  });

  test("a new connection takes the controls again and homes again", async () => {
    const session = await playing();
    session.take();
    session.input.follow({ x: 100, y: 100 });
    peer().go("failed");
    await vi.advanceTimersByTimeAsync(250);
    peer().go("connected");
    peer().open();
    expect(peer().keys.of("take").length).toBe(1);
    session.input.follow({ x: 100, y: 100 });
    expect(peer().keys.of("home").length).toBe(1);
  });
});

test("messages: only proper ones are taken", () => {
  expect(parseMessage('{"t":"lease","lease":"you"}')).toEqual({ t: "lease", lease: "you" });
  expect(parseMessage('{"t":"trace","n":3,"rtp":5,"sent":1.5}')).toEqual({ t: "trace", n: 3, rtp: 5 });
  for (const bad of ["", "{", "[]", "null", '{"t":"lease","lease":"mine"}', '{"t":"screen","width":0,"height":480}', '{"t":"hello"}', '{"t":"new"}', 5, new ArrayBuffer(2)]) {
    expect(parseMessage(bad)).toBeUndefined();
  }
});

test("candidates of an answer", () => {
  expect(candidatesOf(`${ANSWER}a=candidate:2 1 udp 1 10.99.0.12 14950 typ host\r\n`)).toEqual({ ip: "10.99.0.12", ports: "14901, 14950" });
  expect(candidatesOf("v=0")).toBeUndefined();
});

test("offers ask for stereo Opus, and change nothing else", async () => {
  const sdp = (fmtp: string) => `v=0\r\na=rtpmap:111 opus/48000/2\r\n${fmtp}a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\n`;
  const asked = sdp("a=fmtp:111 minptime=10;useinbandfec=1;stereo=1\r\n");
  expect(stereoOpus(sdp("a=fmtp:111 minptime=10;useinbandfec=1\r\n"))).toBe(asked);
  expect(stereoOpus(asked)).toBe(asked);
  expect(stereoOpus(sdp(""))).toBe(sdp("a=fmtp:111 stereo=1\r\n"));
  expect(stereoOpus("v=0\r\n")).toBe("v=0\r\n");
});

test("stats: differences of two readings, absent where a browser says nothing", () => {
  const report = (lost: number, received: number, bytes: number) =>
    readStats([["v", { type: "inbound-rtp", kind: "video", packetsLost: lost, packetsReceived: received, bytesReceived: bytes, codecId: "c" }], ["c", { mimeType: "video/H264" }]], bytes);
  const numbers = lineNumbers(report(0, 100, 1_000), report(5, 195, 3_000));
  expect(numbers).toEqual({ codec: "H264", lost: 5, lossPercent: 5, bitrate: 8_000 });
  expect(lineNumbers(report(0, 100, 1_000), report(1, 103, 1_400)).lossPercent).toBeUndefined();
  expect(lineNumbers(readStats([], 0), readStats([], 1_000))).toEqual({});
});
