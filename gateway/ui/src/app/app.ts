// The page's one store and the only place where its parts meet: the event feed, nine sessions, the route, the sound.
// Views subscribe to a seat or to the page as a whole and are told only when what they draw has changed.
//
// **Invariants.** One SeatSession per instance for the page's life. Nothing here touches the DOM but `document.hidden`,
// the address bar and the body's attributes for tests.
import { ApiClient } from "../api/client";
import { EventFeed, type FeedState } from "../api/events";
import type { DiscoveryInfo, Instance, Role, Wall, WallDirectory } from "../api/types";
import { Announcer } from "../domain/announce";
import { backoffMs } from "../domain/backoff";
import { BOARD, boardsOf, placeOf, seatAt, type Board } from "../domain/boards";
import { inSession } from "../domain/lan-role";
import { HOME, formatRoute, parseRoute, tokenOf, type Route } from "../domain/route";
import { counts, label, sameView, seatView, type Count, type SeatInput, type SeatView } from "../domain/seat";
import { CAPTURE_HINT, VIEW_ONLY } from "../domain/words";
import { SeatSession, type WantedTier } from "../session/seat-session";
import { forgetToken, loadSettings, loadToken, saveSettings, saveToken, type Settings } from "./settings";

export type Audio = "muted" | "on" | "waiting";

/** What the frame around the tiles draws. */
export interface PageView {
  api: "ok" | "away" | "denied";
  signedIn: boolean;
  denied: boolean;
  feed: FeedState;
  answered: boolean;
  empty: boolean;
  /** Only while the gateway is away. */
  lastAnswerAt?: number;
  boards: readonly Board[];
  places: number;
  /** The one session that stands, in the bar: "Friday night, 6 of 9 joined". */
  session?: { name: string; joined: number; of: number };
  counts: { word: Count; count: number }[];
  clock?: number;
  clockOff?: number;
  route: Route;
  /** Instance that gets every key. */
  capture?: string;
  role?: Role;
  settings: Settings;
  discovery?: DiscoveryInfo;
  /** Where the list of instances comes from, and what is wrong with it. */
  directory?: WallDirectory;
  announcement: string;
}

/** Offers leave by seat order with this distance: nine handshakes at once would delay the first picture. */
const STAGGER_MS = 70;
const TICK_MS = 500;
/** The LAN's views are drawn at most this often. */
const LAN_MS = 1_000;
/** Lines to guests that are kept at once: four boards. A seat that nobody has looked at for longest gives its own up. */
const LINES_MAX = 4 * BOARD;
const LOOPBACK = /^(localhost|127\..*|\[::1\])$/;
/** The gateway's clock differs worth a word. */
const CLOCK_MS_MAX = 2_000;

export class App {
  api: ApiClient;
  #token: string | undefined;
  #feed: EventFeed | undefined;
  #feedState: FeedState = { is: "connecting", tries: 0 };
  #wall: Wall | undefined;
  #lastAnswerAt: number | undefined;
  #clockOffset = 0;
  #askedSince = Date.now();
  #role: Role | undefined;
  #discovery: DiscoveryInfo | undefined;
  #route: Route = HOME;
  #settings: Settings = loadSettings();
  readonly #sessions = new Map<string, SeatSession>();
  readonly #starts = new Map<string, ReturnType<typeof setTimeout>>();
  readonly #audio = new Map<string, Audio>();
  /** Whether a place is in the window, and when it was last there. */
  readonly #visible = new Map<number, boolean>();
  readonly #seenAt = new Map<number, number>();
  #boards: readonly Board[] = boardsOf([], []);
  #shown: Wall | undefined;
  #lanAt = 0;
  readonly #placed = new Map<number, Instance>();
  #placedOf: Wall | undefined;
  readonly #views = new Map<number, SeatView>();
  readonly #announcer = new Announcer();
  #announcement = "";
  #captureWanted = false;
  #learnAgain: ReturnType<typeof setTimeout> | undefined;
  #page: PageView;
  readonly #listeners = new Map<string, Set<() => void>>();

  constructor() {
    this.#takeTokenFromAddress();
    this.#token ??= loadToken();
    this.#route = parseRoute(location.hash);
    this.api = new ApiClient(this.#token ?? "");
    this.#page = this.#buildPage();
    addEventListener("hashchange", () => {
      if (this.#takeTokenFromAddress()) this.signIn(this.#token ?? "");
      else this.#go(parseRoute(location.hash));
    });
    document.addEventListener("visibilitychange", () => this.#applyTiers());
    addEventListener("pagehide", () => this.#sessions.forEach((session) => session.close()));
    // A page brought back from the back/forward cache has no connections left.
    addEventListener("pageshow", (event) => event.persisted && this.#sessions.forEach((session) => session.start()));
    setInterval(() => this.#tick(), TICK_MS);
    if (this.#token !== undefined) this.#connect();
  }

  // ---- subscriptions ----

  subscribe(topic: string, listener: () => void): () => void {
    const set = this.#listeners.get(topic) ?? new Set();
    this.#listeners.set(topic, set);
    set.add(listener);
    return () => set.delete(listener);
  }

  #emit(topic: string): void {
    this.#listeners.get(topic)?.forEach((listener) => listener());
  }

  page(): PageView {
    return this.#page;
  }

  seat(seat: number): SeatView {
    const known = this.#views.get(seat);
    if (known) return known;
    const view = this.#buildSeat(seat);
    this.#views.set(seat, view);
    return view;
  }

  instance(id: string | undefined): Instance | undefined {
    return this.#wall?.instances.find((i) => i.id === id);
  }

  wall(): Wall | undefined {
    return this.#wall;
  }

  session(id: string | undefined): SeatSession | undefined {
    return id === undefined ? undefined : this.#sessions.get(id);
  }

  audio(id: string | undefined): Audio {
    return (id === undefined ? undefined : this.#audio.get(id)) ?? "muted";
  }

  // ---- sign in ----

  #takeTokenFromAddress(): boolean {
    const token = tokenOf(location.hash);
    if (token === undefined) return false;
    // Out of the address bar at once: links are shared, tokens are not.
    history.replaceState(null, "", location.pathname + location.search);
    saveToken(token);
    this.#token = token;
    return true;
  }

  signIn(token: string): void {
    saveToken(token);
    this.#token = token;
    this.#feed?.close();
    this.api = new ApiClient(token);
    this.#feedState = { is: "connecting", tries: 0 };
    this.#askedSince = Date.now();
    this.#connect();
    this.#refresh();
  }

  #connect(): void {
    const feed: EventFeed = new EventFeed(
      this.api,
      (wall) => this.#feed === feed && this.#onWall(wall),
      (state) => this.#feed === feed && this.#onFeed(state),
    );
    this.#feed = feed;
    feed.start();
  }

  #onFeed(state: FeedState): void {
    const was = this.#feedState.is;
    // A retry does not blink: the page stays "away" until the gateway has spoken.
    if (state.is === "connecting" && was === "waiting") this.#feedState = { is: "waiting", tries: state.tries, nextTryAt: Date.now() };
    else this.#feedState = state;
    if (state.is === "denied") {
      forgetToken();
      this.#sessions.forEach((session) => session.close());
      this.#sessions.clear();
      this.#wall = undefined;
    }
    if (state.is === "open" && was !== "open") void this.#learn();
    this.#refresh();
  }

  async #learn(tries = 0): Promise<void> {
    const api = this.api;
    clearTimeout(this.#learnAgain);
    // The feed is what keeps the page alive, and it says so when the gateway is gone; its return asks anew.
    const [who, discovery] = await Promise.allSettled([api.whoAmI(), api.discovery()]);
    if (api !== this.api) return;
    const roleBefore = this.#role;
    if (who.status === "fulfilled") this.#role = who.value.role;
    else if (this.#feedState.is === "open") {
      // Without a role nobody plays, and nothing else would ask again while the feed stands.
      clearTimeout(this.#learnAgain);
      this.#learnAgain = setTimeout(() => api === this.api && void this.#learn(tries + 1), backoffMs(tries, Math.random()));
    }
    if (discovery.status === "fulfilled") this.#discovery = discovery.value;
    if (this.#role) for (const session of this.#sessions.values()) session.role = this.#role;
    if (this.#captureWanted && roleBefore !== this.#role) this.#sayCapture();
    this.#refresh();
  }

  tryNow(): void {
    this.#feed?.tryNow();
  }

  // ---- the wall as the gateway tells it ----

  #onWall(wall: Wall): void {
    const before = this.#wall;
    this.#wall = wall;
    this.#lastAnswerAt = Date.now();
    this.#clockOffset = wall.at * 1000 - Date.now();
    const ids = new Set(wall.instances.map((i) => i.id));
    for (const [id, session] of this.#sessions) {
      if (ids.has(id)) continue;
      session.close();
      this.#sessions.delete(id);
    }
    this.#boards = boardsOf(wall.instances, wall.lan.lans.map((lan) => lan.name));
    this.#ensureSessions();
    const olds = new Map(before?.instances.map((i) => [i.id, i]));
    for (const instance of wall.instances) {
      const old = olds.get(instance.id);
      // Shared with the wall before: nothing was told of it.
      if (!old || old === instance) continue;
      if (old.node !== instance.node) this.#sessions.get(instance.id)?.again();
      else if (agentCameBack(old, instance)) this.#sessions.get(instance.id)?.probe();
      // A guest that starts again is worth asking for at once, whatever the backoff says.
      if (old.state !== "live" && instance.state === "live") this.#nudge(instance.id);
    }
    if (before && before.instances.length !== wall.instances.length) void this.#learn();
    this.#tellLan();
    this.#refresh();
  }

  /** The wall as the LAN's views draw it: the newest, at most once a second; the tick brings what came in between. */
  shown(): Wall | undefined {
    return this.#shown;
  }

  #tellLan(): void {
    if (this.#wall === this.#shown || Date.now() - this.#lanAt < LAN_MS) return;
    this.#shown = this.#wall;
    this.#lanAt = Date.now();
    this.#emit("lan");
  }

  /** A line to every guest on the first board, and to those that have been in the window. */
  #ensureSessions(): void {
    const wanted = (this.#wall?.instances ?? [])
      .map((instance) => ({ instance, place: placeOf(this.#boards, instance) ?? 0 }))
      .filter(({ place }) => place <= BOARD || this.#seenAt.has(place))
      .sort((a, b) => a.place - b.place);
    wanted.forEach(({ instance, place }, index) => this.#ensureSession(instance, place, index));
    const lines = wanted.filter(({ instance, place }) => place > BOARD && this.#sessions.has(instance.id) && this.#visible.get(place) !== true && instance.id !== this.#focusedInstance);
    const tooMany = this.#sessions.size - LINES_MAX;
    if (tooMany <= 0) return;
    lines.sort((a, b) => (this.#seenAt.get(a.place) ?? 0) - (this.#seenAt.get(b.place) ?? 0));
    for (const { instance, place } of lines.slice(0, tooMany)) {
      this.#sessions.get(instance.id)?.close();
      this.#sessions.delete(instance.id);
      this.#seenAt.delete(place);
    }
    this.#emit("sessions");
  }

  #nudge(id: string): void {
    const session = this.#sessions.get(id);
    if (session?.view().phase === "waiting") session.again();
  }

  #ensureSession(instance: Instance, place: number, index: number): void {
    if (instance.state === "stopped" || this.#sessions.has(instance.id)) return;
    const session = new SeatSession(instance.id, {
      offer: (id, tier, sdp, signal) => this.api.offer(id, tier, sdp, signal),
      endSession: (location) => this.api.endSession(location),
      peer: () => new RTCPeerConnection({ bundlePolicy: "max-bundle" }),
      random: Math.random,
    });
    if (this.#role) session.role = this.#role;
    session.onChange = () => this.#onSession(place);
    this.#sessions.set(instance.id, session);
    this.#starts.set(instance.id, setTimeout(() => session.start(), index * STAGGER_MS));
    this.#applyTiers();
    this.#emit("sessions");
  }

  #onSession(place: number): void {
    this.#refreshSeat(place);
    this.#refreshPage();
  }

  // ---- route, focus, controls ----

  /** Another address. What is given as undefined leaves it; another view forgets what only the last one knew. */
  go(change: { [K in keyof Route]?: Route[K] | undefined }): void {
    const next: Record<string, unknown> = { ...this.#route, ...change };
    for (const key of Object.keys(next)) if (next[key] === undefined) delete next[key];
    this.#go(next as unknown as Route);
  }

  #go(next: Route): void {
    const before = this.#route;
    this.#route = next;
    const hash = formatRoute(next);
    if (location.hash !== hash) {
      const step = before.view !== next.view || (before.mode === "focus") !== (next.mode === "focus");
      if (step) history.pushState(null, "", hash);
      else history.replaceState(null, "", hash);
    }
    const left = before.mode === "focus" && before.view === "wall" ? before.seat : undefined;
    const entered = next.mode === "focus" && next.view === "wall" ? next.seat : undefined;
    if (left !== undefined && left !== entered) {
      this.session(this.seat(left).instance)?.give();
      this.#captureWanted = false;
    }
    this.#applyTiers();
    this.#tellLan();
    this.#refresh();
  }

  /** Focus a seat and take its controls if they are free. */
  focus(seat: number): void {
    if (this.#route.mode !== "focus" || this.#route.seat !== seat || this.#route.view !== "wall") {
      this.go({ view: "wall", seat, mode: "focus", details: false });
    }
    this.capture();
  }

  /** From now on keys and pointer go to the focused guest, as far as it lets us. */
  capture(): void {
    const seat = this.focusedSeat;
    if (seat === undefined) return;
    this.#captureWanted = true;
    const session = this.session(this.seat(seat).instance);
    session?.take();
    this.#sayCapture();
    this.#refresh();
  }

  /** Who gets the keys; nothing while the gateway has not said what this viewer may. */
  #sayCapture(): void {
    const seat = this.focusedSeat;
    if (seat === undefined || this.#role === undefined) return;
    this.#say(this.#role === "view" ? VIEW_ONLY : CAPTURE_HINT(this.seat(seat).seat));
  }

  /** The window lost the focus: keys come back, the seat stays in view. */
  suspend(): void {
    if (!this.#captureWanted) return;
    this.#captureWanted = false;
    this.session(this.#focusedInstance)?.input.releaseAll();
    this.#refresh();
  }

  /** Back to the wall. */
  leave(): void {
    if (this.focusedSeat !== undefined) this.go({ mode: "even" });
  }

  get focusedSeat(): number | undefined {
    return this.#route.view === "wall" && this.#route.mode === "focus" ? this.#route.seat : undefined;
  }

  get #focusedInstance(): string | undefined {
    return this.focusedSeat === undefined ? undefined : this.seat(this.focusedSeat).instance;
  }

  /** The session that gets the input now. */
  captured(): SeatSession | undefined {
    if (!this.#captureWanted) return undefined;
    const session = this.session(this.#focusedInstance);
    return session?.input.allowed === true ? session : undefined;
  }

  /**
   * The session whose guest every key is meant for since the click, also while none can be sent: its line is being made,
   * or the controls are not granted yet. Not if they never will be: a view token, or another viewer has them.
   */
  keysBelongTo(): SeatSession | undefined {
    const captured = this.captured();
    if (captured || !this.#captureWanted || this.#role === "view") return captured;
    const session = this.session(this.#focusedInstance);
    return session?.view().lease === "other" ? undefined : session;
  }

  // ---- sound ----

  /** Unmuting one seat mutes the others unless `mix` says otherwise. */
  toggleAudio(id: string, mix: boolean): void {
    if (this.audio(id) !== "muted") this.#setAudio(id, "muted");
    else {
      if (!mix && this.#settings.sound === "one") for (const other of [...this.#audio.keys()]) if (other !== id) this.#setAudio(other, "muted");
      this.#setAudio(id, "on");
    }
  }

  /** The browser plays nothing before a click, and said so. */
  soundWaits(id: string): void {
    if (this.audio(id) === "on") this.#setAudio(id, "waiting");
  }

  #setAudio(id: string, audio: Audio): void {
    this.#audio.set(id, audio);
    this.#emit("audio");
  }

  // ---- settings ----

  set(change: Partial<Settings>): void {
    this.#settings = { ...this.#settings, ...change };
    saveSettings(this.#settings);
    this.#refreshPage();
    this.#emit("audio");
  }

  // ---- tiers ----

  /** A tile came into or left the window. */
  seen(place: number, visible: boolean): void {
    this.#visible.set(place, visible);
    if (visible || this.#seenAt.has(place)) this.#seenAt.set(place, Date.now());
    if (visible) this.#ensureSessions();
    this.#applyTiers();
  }

  #applyTiers(): void {
    for (const instance of this.#wall?.instances ?? []) {
      const session = this.#sessions.get(instance.id);
      session?.setTier(this.#tierFor(placeOf(this.#boards, instance) ?? 0));
    }
  }

  #tierFor(place: number): WantedTier {
    if (document.hidden || this.#route.view !== "wall") return "none";
    const chosen = this.#route.seat === place;
    if (this.#route.mode === "focus") return chosen ? "full" : "none";
    // Before the window has said anything, the first board is what it shows.
    if (!(this.#visible.get(place) ?? place <= BOARD)) return "none";
    return this.#route.mode === "lean" && chosen ? "full" : "thumb";
  }

  // ---- building what is drawn ----

  #tick(): void {
    this.#tellLan();
    this.#refresh();
    const sentence = this.#announcer.take(Date.now());
    if (sentence !== undefined) this.#say(sentence);
  }

  #say(sentence: string): void {
    this.#announcement = sentence;
    this.#refreshPage();
  }

  #refresh(): void {
    for (let place = 1; place <= this.#places; place += 1) this.#refreshSeat(place);
    this.#refreshPage();
  }

  #refreshSeat(place: number): void {
    const view = this.#buildSeat(place);
    const before = this.#views.get(place);
    if (before && sameView(before, view)) return;
    this.#views.set(place, view);
    this.#announcer.observe(place, view.state === "live" && view.lanFault ? "lan" : view.state, `${label(view)}.`);
    this.#emit(`seat:${place}`);
  }

  #refreshPage(): void {
    const page = this.#buildPage();
    // The wall's order of keys is fixed, so equal text is equal content.
    if (JSON.stringify(page) === JSON.stringify(this.#page)) return;
    this.#page = page;
    this.#emit("page");
  }

  get #places(): number {
    return this.#boards.length * BOARD;
  }

  get #away(): boolean {
    return this.#feedState.is === "waiting" || (this.#feedState.is === "connecting" && this.#wall !== undefined);
  }

  #buildSeat(place: number): SeatView {
    const seat = seatAt(this.#boards, place);
    const instance = this.#instanceAt(place);
    const session = instance ? this.#sessions.get(instance.id) : undefined;
    const input: SeatInput = {
      place,
      seat,
      now: Date.now(),
      answered: this.#wall !== undefined,
      askedSince: this.#askedSince,
      away: this.#away,
      clockOffset: this.#clockOffset,
      tunnel: this.#wall?.directory.mode === "kubernetes" && LOOPBACK.test(location.hostname),
    };
    if (instance) input.instance = instance;
    const lan = instance && this.#wall?.lan.instances[instance.id];
    if (lan) input.lan = lan;
    if (session) input.session = session.view();
    return seatView(input);
  }

  /** By place, made anew with every wall: a thousand seats are asked twice a second. */
  #instanceAt(place: number): Instance | undefined {
    if (this.#placedOf !== this.#wall) {
      this.#placedOf = this.#wall;
      this.#placed.clear();
      for (const instance of this.#wall?.instances ?? []) this.#placed.set(placeOf(this.#boards, instance) ?? 0, instance);
    }
    return this.#placed.get(place);
  }

  /** The one session that stands; with two, the bar names none. */
  #oneSession(): PageView["session"] {
    const standing = this.#away ? [] : (this.#wall?.lan.sessions ?? []).filter((s) => !s.certainty.startsWith("gone"));
    const [only] = standing;
    if (!only || standing.length > 1) return undefined;
    const joined = Object.values(this.#wall?.lan.instances ?? {}).filter((i) => i.directplay && inSession(i.directplay.role)).length;
    return { name: only.name ?? "A session without a name", joined, of: this.#wall?.instances.length ?? 0 };
  }

  #buildPage(): PageView {
    const denied = this.#feedState.is === "denied";
    const all = Array.from({ length: this.#places }, (_, i) => this.seat(i + 1));
    const page: PageView = {
      api: denied ? "denied" : this.#away ? "away" : "ok",
      signedIn: this.#token !== undefined && !denied,
      denied,
      feed: this.#feedState,
      answered: this.#wall !== undefined,
      empty: this.#wall !== undefined && this.#wall.instances.length === 0,
      boards: this.#boards,
      places: this.#places,
      counts: counts(all),
      route: this.#route,
      settings: this.#settings,
      announcement: this.#announcement,
    };
    if (this.#lastAnswerAt !== undefined) {
      // Only then shown; else every word of the gateway would draw every view again.
      if (this.#away) page.lastAnswerAt = this.#lastAnswerAt;
      page.clock = Math.floor((Date.now() + this.#clockOffset) / 60_000) * 60_000;
      if (Math.abs(this.#clockOffset) > CLOCK_MS_MAX) page.clockOff = Math.round(this.#clockOffset / 1000);
    }
    const session = this.#oneSession();
    if (session) page.session = session;
    if (this.#role) page.role = this.#role;
    if (this.#discovery) page.discovery = this.#discovery;
    if (this.#wall?.directory) page.directory = this.#wall.directory;
    const captured = this.captured();
    if (captured) page.capture = captured.instance;
    return page;
  }
}

/** The agent was silent and speaks again, or its counter of pictures began anew: it may be another process. */
function agentCameBack(before: Instance, now: Instance): boolean {
  const silence = (before.agent_silent_for ?? undefined) !== undefined && (now.agent_silent_for ?? undefined) === undefined;
  const restarted = (now.status?.picture?.changes ?? Infinity) < (before.status?.picture?.changes ?? 0);
  return silence || restarted;
}
