// Input of one seat: what is pressed, where the cursor is, and the messages that say so. It never blocks and keeps no
// queue of its own: keys wait in the reliable channel, motion is totals.
//
// **Invariants.** Nothing is sent without the controls. Whatever went down comes up: by the user, by releaseAll() on
// leaving, or at the agent 1.5 s after the last `held`.
import { HeldInput } from "../domain/held";
import { MotionTotals, WheelNotches, type Point } from "../domain/pointer";
import type { ToAgent } from "./messages";

const HELD_EVERY_MS = 500;

export class GuestInput {
  #allowed = false;
  readonly #held = new HeldInput();
  readonly #totals = new MotionTotals();
  readonly #wheel = new WheelNotches();
  #heartbeat: ReturnType<typeof setInterval> | undefined;
  #n = 0;
  #s = 0;

  constructor(
    private readonly send: (message: ToAgent) => boolean,
    private readonly sendPointer: (text: string) => void,
    private readonly onSent: (n: number, at: number) => void,
  ) {}

  /** Whether this session has the controls. Losing them lets everything go. */
  set allowed(allowed: boolean) {
    if (this.#allowed && !allowed) this.releaseAll();
    if (!this.#allowed && allowed) this.#totals.forget();
    this.#allowed = allowed;
  }

  get allowed(): boolean {
    return this.#allowed;
  }

  get held(): HeldInput {
    return this.#held;
  }

  key(code: string, down: boolean): void {
    if (!this.#allowed || code === "") return;
    if (!down && !this.#held.has(code)) return;
    const n = this.#next();
    if (!this.send({ t: "key", code, down, n })) return;
    this.#held.key(code, down);
    this.#beat();
  }

  button(button: number, down: boolean): void {
    if (!this.#allowed || button < 0 || button > 2) return;
    const n = this.#next();
    if (!this.send({ t: "button", button, down, n })) return;
    this.#held.button(button, down);
    this.#beat();
  }

  /** A key or a chord that the page cannot get from the keyboard: down in order, up in reverse. */
  stroke(codes: readonly string[]): void {
    for (const code of codes) this.key(code, true);
    for (const code of [...codes].reverse()) this.key(code, false);
  }

  wheel(delta: number, mode: number): void {
    if (!this.#allowed) return;
    const notches = this.#wheel.add(delta, mode);
    if (notches !== 0) this.send({ t: "wheel", dy: notches });
  }

  /** The local pointer has come into the picture: let the guest's cursor coincide with it. Not while a button is held. */
  enter(at: Point): void {
    if (!this.#allowed || this.#held.buttonsHeld) return;
    if (this.send({ t: "home", x: at.x, y: at.y })) this.#totals.home(at);
  }

  /** The local pointer is over this guest pixel. */
  follow(at: Point): void {
    if (!this.#allowed) return;
    if (!this.#totals.homed) {
      this.enter(at);
      return;
    }
    this.#move(this.#totals.to(at));
  }

  /** Relative motion in guest pixels: pointer lock and touch. */
  push(dx: number, dy: number): void {
    if (!this.#allowed) return;
    this.#move(this.#totals.by(dx, dy));
  }

  screenChanged(): void {
    this.#totals.forget();
  }

  releaseAll(): void {
    const { codes, buttons } = this.#held.takeAll();
    for (const code of codes) this.send({ t: "key", code, down: false });
    for (const button of buttons) this.send({ t: "button", button, down: false });
    if (codes.length + buttons.length > 0) this.send({ t: "held", codes: [], buttons: [] });
    this.#stopBeat();
  }

  /** The connection is gone: the agent lets everything go by itself. */
  lineLost(): void {
    this.#held.takeAll();
    this.#stopBeat();
    this.#totals.forget();
    this.#allowed = false;
  }

  reopened(): void {
    this.#s = 0;
    this.#totals.forget();
  }

  #move(total: Point): void {
    this.#s += 1;
    this.sendPointer(JSON.stringify({ t: "move", x: total.x, y: total.y, s: this.#s }));
  }

  #next(): number {
    this.#n += 1;
    this.onSent(this.#n, performance.now());
    return this.#n;
  }

  #beat(): void {
    if (!this.#held.any) {
      this.#stopBeat();
      this.send({ t: "held", codes: [], buttons: [] });
      return;
    }
    this.#heartbeat ??= setInterval(() => this.send({ t: "held", ...this.#held.list() }), HELD_EVERY_MS);
  }

  #stopBeat(): void {
    clearInterval(this.#heartbeat);
    this.#heartbeat = undefined;
  }
}
