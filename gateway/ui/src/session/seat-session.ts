// One viewer's connection to one seat: WHEP offer, peer connection, data channels, and its return after any loss.
// One instance of this class per seat for the page's whole life; no React, and of the DOM only RTCPeerConnection.
//
//   idle --start--> offering --answer--> answered --connected--> connected
//                      |                    |  8 s                   | failed, silent, agent came back
//                      v                    v                        v
//                   waiting <---------------+------------------------+       waiting --backoff or again()--> offering
//   close() from anywhere: bye, DELETE, idle.
//
// **Invariants.** At most one peer connection at a time. The tier is switched by a message, never by a new connection.
// Whatever an ended connection still says is ignored (every callback checks that its peer is the present one).
import { ApiError, type WhepAnswer } from "../api/client";
import type { Role, Tier } from "../api/types";
import { backoffMs } from "../domain/backoff";
import { FrameRing } from "../domain/frames";
import { ClickToPicture } from "../domain/latency";
import type { Failure, Lease, SessionView } from "../domain/seat";
import { GuestInput } from "./guest-input";
import { candidatesOf, parseMessage, stereoOpus, type FromAgent, type ToAgent } from "./messages";
import { lineNumbers, readStats, type LineNumbers, type Reading } from "./stats";

export type WantedTier = Tier | "none";

/** What the session needs from outside: the seam at which tests put their fakes. */
export interface SessionDeps {
  offer(instance: string, tier: Tier, sdp: string, signal: AbortSignal): Promise<WhepAnswer>;
  endSession(location: string): Promise<void>;
  peer(): RTCPeerConnection;
  random(): number;
}

/** An answer that leads to no connection within this time means that no packet gets through. */
const CONNECT_MS_MAX = 8_000;
/** Candidates are not trickled; without STUN they are all there at once, and the agent (ICE lite) needs none of them. */
const GATHER_MS_MAX = 300;
/** Chromium asks the peer every 2.5 s at most: with nothing heard for longer than two rounds, the line is dead. */
const SILENT_MS_MAX = 6_500;
const PROBE_MS = 400;
const OFFER_MS_MAX = 10_000;
const STATS_WINDOW = 10;

export class SeatSession {
  readonly input: GuestInput;
  #peer: RTCPeerConnection | undefined;
  #keys: RTCDataChannel | undefined;
  #pointer: RTCDataChannel | undefined;
  #abort: AbortController | undefined;
  #location = "";
  #timers = new Set<ReturnType<typeof setTimeout>>();
  #retry: ReturnType<typeof setTimeout> | undefined;
  #statsTimer: ReturnType<typeof setInterval> | undefined;

  #phase: SessionView["phase"] = "idle";
  #phaseSince = Date.now();
  #tryingSince = Date.now();
  #tries = 0;
  #failure: Failure | undefined;
  #frozenAt: number | undefined;
  #lease: Lease | undefined;
  #screen: { width: number; height: number } | undefined;
  #tier: WantedTier = "thumb";
  #ring = new FrameRing();
  #everFramed = false;
  #lastFrame: { rtp: number; at: number } | undefined;
  #lastFrameEpoch: number | undefined;
  #frameNumber = 0;
  #latency = new ClickToPicture();
  #readings: Reading[] = [];
  #line: LineNumbers = {};
  #heardAt = Date.now();
  #stream: MediaStream | undefined;
  #candidates: { ip: string; ports: string } | undefined;
  #wantsLease = false;
  #role: Role = "view";

  onChange: () => void = () => undefined;
  /** The connection is about to end and its last picture is still in the video. */
  onFreeze: () => void = () => undefined;
  onStream: (stream: MediaStream) => void = () => undefined;

  constructor(
    readonly instance: string,
    private readonly deps: SessionDeps,
  ) {
    this.input = new GuestInput(
      (message) => this.#send(message),
      (text) => this.#sendPointer(text),
      (n, at) => this.#latency.sent(n, at),
    );
  }

  get stream(): MediaStream | undefined {
    return this.#stream;
  }

  get line(): LineNumbers {
    return this.#line;
  }

  get heardAt(): number {
    return this.#heardAt;
  }

  /** Last presented frame's number, counted over all connections of this seat. */
  get frameNumber(): number {
    return this.#frameNumber;
  }

  set role(role: Role) {
    const mayNow = this.#role === "view" && role !== "view";
    this.#role = role;
    // A click may come before the gateway has said who we are: what it wanted is asked for now.
    if (mayNow && this.#wantsLease) this.take();
  }

  start(): void {
    if (this.#phase === "idle") void this.#connect();
  }

  /** Try now instead of when the backoff ends; also ends a connection that is known to be dead. */
  again(): void {
    if (this.#phase === "offering" || this.#phase === "idle") return;
    if (this.#phase !== "waiting") this.#drop({ kind: "lost" });
    clearTimeout(this.#retry);
    this.#tries = 0;
    void this.#connect();
  }

  /**
   * The agent may have been replaced: its successor knows nothing of this connection and would never say so. A whole
   * picture is asked for; if nothing at all is heard, the connection is made anew. A paused one waits for the stats.
   */
  probe(): void {
    const peer = this.#peer;
    if (this.#phase === "waiting") this.again();
    if (this.#phase !== "connected" || this.#tier === "none") return;
    const askedAt = Date.now();
    this.#send({ t: "keyframe" });
    this.#after(PROBE_MS, () => {
      if (this.#peer === peer && this.#heardAt < askedAt) this.again();
    });
  }

  close(): void {
    this.input.releaseAll();
    this.#send({ t: "bye" });
    this.#teardown();
    clearTimeout(this.#retry);
    this.#setPhase("idle");
  }

  /** Switches what the one video track carries. A return from `none` asks for a whole picture. */
  setTier(tier: WantedTier): void {
    if (tier === this.#tier) return;
    const paused = this.#tier === "none";
    this.#tier = tier;
    this.#send({ t: "tier", tier });
    if (paused && tier !== "none") this.#send({ t: "keyframe" });
    this.onChange();
  }

  get tier(): WantedTier {
    return this.#tier;
  }

  /** Take the controls, now or as soon as the connection stands. */
  take(): void {
    this.#wantsLease = true;
    if (this.#role === "view") return;
    // Keys may follow at once: they are behind the `take` in the same ordered channel, and the agent drops them if it
    // refuses. Waiting for its answer would lose what is typed meanwhile.
    if (this.#send({ t: "take" })) this.input.allowed = true;
    this.trace(true);
    this.onChange();
  }

  give(): void {
    this.#wantsLease = false;
    this.input.allowed = false;
    this.#send({ t: "give" });
    this.trace(false);
    this.onChange();
  }

  /** Ask for the stage times of each input: they give click to picture. */
  trace(on: boolean): void {
    this.#send({ t: "trace", on });
  }

  /** A frame has been presented (requestVideoFrameCallback). */
  presented(at: number, rtp: number | undefined): void {
    // A frame of the ended connection may still be on its way to the screen: it does not unfreeze anything.
    if (this.#phase !== "connected") return;
    const first = this.#ring.total === 0;
    this.#ring.add(at);
    this.#frameNumber += 1;
    this.#lastFrameEpoch = Date.now();
    this.#heardAt = this.#lastFrameEpoch;
    if (rtp !== undefined) {
      this.#lastFrame = { rtp, at };
      this.#latency.presented(rtp, at);
    }
    if (!first) return;
    this.#everFramed = true;
    this.#frozenAt = undefined;
    this.#failure = undefined;
    this.#tries = 0;
    this.onChange();
  }

  view(): SessionView {
    const view: SessionView = {
      phase: this.#phase,
      phaseSince: this.#phaseSince,
      tryingSince: this.#tryingSince,
      tries: this.#tries,
      frames: this.#ring.total,
      paused: this.#tier === "none",
    };
    if (this.#tier !== "none") view.tier = this.#tier;
    if (this.#frozenAt !== undefined) view.frozenAt = this.#frozenAt;
    if (this.#failure) view.failure = this.#failure;
    if (this.#lease) view.lease = this.#lease;
    if (this.#screen) view.screen = this.#screen;
    if (this.#phase === "connected") view.heardAt = this.#heardAt;
    if (this.#lastFrameEpoch !== undefined) view.lastFrameAt = this.#lastFrameEpoch;
    if (this.#phase === "connected" && this.#ring.total > 0) {
      view.perSecond = this.#ring.perSecond(performance.now());
      if (this.#line.rttMs !== undefined) view.rttMs = this.#line.rttMs;
      if (this.#line.lossPercent !== undefined) view.lossPercent = this.#line.lossPercent;
      const p50 = this.#latency.p50;
      if (p50 !== undefined) view.clickToPictureMs = p50;
    }
    return view;
  }

  async #connect(): Promise<void> {
    this.#setPhase("offering");
    const abort = new AbortController();
    this.#abort = abort;
    this.#after(OFFER_MS_MAX, () => abort.abort());
    const peer = this.deps.peer();
    this.#peer = peer;
    const mine = (): boolean => this.#peer === peer;
    try {
      peer.addTransceiver("video", { direction: "recvonly" });
      peer.addTransceiver("audio", { direction: "recvonly" });
      const keys = peer.createDataChannel("keys", { ordered: true });
      const pointer = peer.createDataChannel("pointer", { ordered: false, maxRetransmits: 0 });
      keys.onopen = () => mine() && this.#opened();
      keys.onmessage = (event: MessageEvent) => mine() && this.#received(parseMessage(event.data));
      keys.onclose = () => mine() && this.#phase === "connected" && this.#lost({ kind: "lost" });
      this.#keys = keys;
      this.#pointer = pointer;
      peer.ontrack = (event) => {
        if (!mine()) return;
        // The smallest buffer the browser allows: a wall is watched to be used. The agent's playout-delay says the same.
        if ("jitterBufferTarget" in event.receiver) event.receiver.jitterBufferTarget = 0;
        this.#stream?.addTrack(event.track);
      };
      peer.onconnectionstatechange = () => mine() && this.#connectionState(peer.connectionState);
      this.#stream = new MediaStream();
      const made = await peer.createOffer();
      await peer.setLocalDescription({ type: "offer", sdp: stereoOpus(made.sdp ?? "") });
      await this.#gathered(peer);
      if (!mine()) return;
      const sdp = peer.localDescription?.sdp ?? "";
      const answer = await this.deps.offer(this.instance, this.#tier === "full" ? "full" : "thumb", sdp, abort.signal);
      if (!mine()) {
        void this.deps.endSession(answer.location);
        return;
      }
      this.#location = answer.location;
      const candidates = candidatesOf(answer.sdp);
      // The next try gets another port of the range: to open only this one would not do.
      this.#candidates = candidates && { ip: candidates.ip, ports: answer.ports === "" ? candidates.ports : answer.ports };
      await peer.setRemoteDescription({ type: "answer", sdp: answer.sdp });
      if (!mine()) return;
      this.#setPhase("answered");
      this.#after(CONNECT_MS_MAX, () => {
        if (mine() && this.#phase === "answered") this.#lost(this.#candidates ? { kind: "no-way", ...this.#candidates } : { kind: "lost" });
      });
    } catch (error) {
      if (!mine()) return;
      this.#lost(
        error instanceof ApiError && error.status > 0
          ? { kind: "refused", status: error.status, message: error.message, remedy: error.remedy }
          : { kind: "lost" },
      );
    }
  }

  #gathered(peer: RTCPeerConnection): Promise<void> {
    if (peer.iceGatheringState === "complete") return Promise.resolve();
    return new Promise((resolve) => {
      peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && resolve();
      this.#after(GATHER_MS_MAX, resolve);
    });
  }

  #connectionState(state: RTCPeerConnectionState): void {
    if (state === "connected" && this.#phase === "answered") {
      this.#setPhase("connected");
      this.#heardAt = Date.now();
      if (this.#stream) this.onStream(this.#stream);
      this.#statsTimer = setInterval(() => void this.#poll(), 1_000);
    } else if (state === "failed" || state === "closed") {
      this.#lost(this.#phase === "answered" && this.#candidates ? { kind: "no-way", ...this.#candidates } : { kind: "lost" });
    }
  }

  #opened(): void {
    // What was wanted while there was no line; the offer could name only a picture tier.
    this.#send({ t: "tier", tier: this.#tier });
    this.input.reopened();
    if (this.#wantsLease) this.take();
    this.onChange();
  }

  #received(message: FromAgent | undefined): void {
    if (!message) return;
    this.#heardAt = Date.now();
    switch (message.t) {
      case "hello":
        // Sent when the channel opens: it may cross our `take`, so it does not withdraw what that took.
        this.#lease = message.lease;
        this.#screen = { width: message.width, height: message.height };
        break;
      case "lease":
        this.#lease = message.lease;
        this.input.allowed = message.lease === "you";
        break;
      case "screen":
        this.#screen = { width: message.width, height: message.height };
        this.input.screenChanged();
        break;
      case "trace":
        this.#latency.traced(message.n, message.rtp, this.#lastFrame);
        return;
      case "state":
      case "stats":
        return;
    }
    this.onChange();
  }

  async #poll(): Promise<void> {
    const peer = this.#peer;
    if (!peer) return;
    const reading = readStats(await peer.getStats(), Date.now());
    if (this.#peer !== peer) return;
    const last = this.#readings.at(-1);
    if (!last || reading.heard !== last.heard) this.#heardAt = reading.at;
    this.#readings.push(reading);
    if (this.#readings.length > STATS_WINDOW) this.#readings.shift();
    const oldest = this.#readings[0];
    if (oldest) this.#line = lineNumbers(oldest, reading);
    if (Date.now() - this.#heardAt > SILENT_MS_MAX) this.#lost({ kind: "lost" });
  }

  #lost(failure: Failure): void {
    this.#drop(failure);
    const wait = backoffMs(this.#tries, this.deps.random());
    this.#tries += 1;
    this.#retry = setTimeout(() => void this.#connect(), wait);
    this.onChange();
  }

  #drop(failure: Failure): void {
    if (this.#ring.total > 0) {
      this.onFreeze();
      this.#frozenAt = Date.now();
      this.#tryingSince = Date.now();
    }
    this.#failure = failure;
    this.#teardown();
    this.#setPhase("waiting");
  }

  #teardown(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    clearInterval(this.#statsTimer);
    this.#abort?.abort();
    const peer = this.#peer;
    this.#peer = undefined;
    this.#stream = undefined;
    this.#keys = undefined;
    this.#pointer = undefined;
    peer?.close();
    const location = this.#location;
    this.#location = "";
    void this.deps.endSession(location);
    this.#ring = new FrameRing();
    this.#lastFrame = undefined;
    this.#readings = [];
    this.#line = {};
    this.#lease = undefined;
    this.input.lineLost();
  }

  #send(message: ToAgent): boolean {
    if (this.#keys?.readyState !== "open") return false;
    try {
      this.#keys.send(JSON.stringify(message));
      return true;
    } catch {
      // The channel closed between the check and the call: its close event takes it from here.
      return false;
    }
  }

  #sendPointer(text: string): void {
    const channel = this.#pointer;
    // Policy for full: skip. The next total contains what is left out here.
    if (channel?.readyState !== "open" || channel.bufferedAmount > 4_096) return;
    try {
      channel.send(text);
    } catch {
      // As above: only this step is lost, and totals make up for it.
    }
  }

  #setPhase(phase: SessionView["phase"]): void {
    if (phase === "offering" && (this.#phase === "idle" || (this.#everFramed && this.#tries === 0))) this.#tryingSince = Date.now();
    this.#phase = phase;
    this.#phaseSince = Date.now();
    this.onChange();
  }

  #after(ms: number, then: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      then();
    }, ms);
    this.#timers.add(timer);
  }
}
