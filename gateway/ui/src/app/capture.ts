// Keyboard and pointer of the window while a guest has them. Listens in the capture phase on the window, so that no
// part of the page sees a key that belongs to a guest. Without a captured guest every event passes untouched.
import { ReleaseChord } from "../domain/chord";
import { guestPixel, onPicture, pictureIn, type Point } from "../domain/pointer";
import { LONG_PRESS_MS, TouchPad, type TouchAct } from "../domain/touch";
import type { SeatSession } from "../session/seat-session";
import type { App } from "./app";

export class Capture {
  readonly #chord = new ReleaseChord();
  readonly #touch = new TouchPad();
  #inside = false;

  constructor(
    private readonly app: App,
    /** The focused picture. */
    private readonly picture: () => HTMLVideoElement | null,
  ) {
    const on = <K extends keyof WindowEventMap>(type: K, listener: (event: WindowEventMap[K]) => void): void =>
      addEventListener(type, listener, { capture: true, passive: false });
    on("keydown", (event) => this.#key(event, true));
    on("keyup", (event) => this.#key(event, false));
    on("mousedown", (event) => this.#button(event, true));
    on("mouseup", (event) => this.#button(event, false));
    on("wheel", (event) => this.#wheel(event));
    on("contextmenu", (event) => this.#overPicture(event) && event.preventDefault());
    // Raw updates skip the wait for the next animation frame, up to 16 ms of every motion.
    if ("onpointerrawupdate" in window) addEventListener("pointerrawupdate", (event) => this.#move(event as PointerEvent), { capture: true });
    else on("pointermove", (event) => this.#move(event));
    on("pointerdown", (event) => this.#finger(event, "down"));
    on("pointermove", (event) => this.#finger(event, "move"));
    on("pointerup", (event) => this.#finger(event, "up"));
    on("pointercancel", (event) => this.#finger(event, "up"));
    on("blur", () => this.#leaveWindow());
    document.addEventListener("visibilitychange", () => document.hidden && this.#leaveWindow());
  }

  #leaveWindow(): void {
    this.#chord.reset();
    this.#inside = false;
    this.app.suspend();
  }

  #key(event: KeyboardEvent, down: boolean): void {
    const session = this.app.keysBelongTo();
    if (!session) return;
    // A soft keyboard types into the page's own field; its text is sent from there.
    if (event.isComposing || event.code === "" || event.target instanceof HTMLTextAreaElement) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    // Without a line, or before the controls are granted, the key is lost; it never acts on the page instead.
    // The guest repeats by the keys it gets, as from a real board: repeats are passed on.
    session.input.key(event.code, down);
    if (this.#chord.key(event.code, down, event.repeat)) this.app.leave();
  }

  #size(session: SeatSession, video: HTMLVideoElement): { width: number; height: number } {
    return session.view().screen ?? { width: video.videoWidth || 640, height: video.videoHeight || 480 };
  }

  #overPicture(event: MouseEvent): boolean {
    const video = this.picture();
    return video !== null && event.target instanceof Node && (video.parentElement?.contains(event.target) ?? false);
  }

  #at(event: MouseEvent, session: SeatSession): Point | undefined {
    const video = this.picture();
    if (!video) return undefined;
    return guestPixel({ x: event.clientX, y: event.clientY }, video.getBoundingClientRect(), this.#size(session, video));
  }

  #move(event: PointerEvent): void {
    const session = this.app.captured();
    const video = this.picture();
    if (!session || !video || event.pointerType === "touch") return;
    const size = this.#size(session, video);
    const box = video.getBoundingClientRect();
    if (document.pointerLockElement !== null) {
      const inner = pictureIn(box, size);
      if (inner.width > 0) session.input.push((event.movementX * size.width) / inner.width, (event.movementY * size.height) / inner.height);
      return;
    }
    const place = { x: event.clientX, y: event.clientY };
    const inside = onPicture(place, box, size);
    const pixel = guestPixel(place, box, size);
    if (pixel === undefined || (!inside && !session.input.held.buttonsHeld)) {
      this.#inside = inside;
      return;
    }
    if (inside && !this.#inside) session.input.enter(pixel);
    this.#inside = inside;
    session.input.follow(pixel);
  }

  #button(event: MouseEvent, down: boolean): void {
    const session = this.app.captured();
    if (!session) return;
    if (down && document.pointerLockElement === null && !this.#overPicture(event)) return;
    this.#chord.spoil();
    event.preventDefault();
    event.stopPropagation();
    const pixel = down ? this.#at(event, session) : undefined;
    if (pixel && document.pointerLockElement === null) session.input.follow(pixel);
    session.input.button(event.button, down);
  }

  #wheel(event: WheelEvent): void {
    const session = this.app.captured();
    if (!session || (document.pointerLockElement === null && !this.#overPicture(event))) return;
    event.preventDefault();
    session.input.wheel(event.deltaY, event.deltaMode);
  }

  #finger(event: PointerEvent, what: "down" | "move" | "up"): void {
    if (event.pointerType !== "touch") return;
    const session = this.app.captured();
    if (!session || (what === "down" && !this.#overPicture(event))) return;
    event.preventDefault();
    const now = event.timeStamp;
    if (what === "down") {
      this.#act(session, this.#touch.down(event.pointerId, event.clientX, event.clientY, now));
      setTimeout(() => {
        const present = this.app.captured();
        if (present) this.#act(present, this.#touch.held(performance.now()));
      }, LONG_PRESS_MS + 10);
    } else if (what === "move") this.#act(session, this.#touch.move(event.pointerId, event.clientX, event.clientY, now));
    else this.#act(session, this.#touch.up(event.pointerId, now));
  }

  #act(session: SeatSession, acts: readonly TouchAct[]): void {
    const video = this.picture();
    if (!video) return;
    const size = this.#size(session, video);
    const inner = pictureIn(video.getBoundingClientRect(), size);
    const scale = inner.width > 0 ? size.width / inner.width : 1;
    for (const act of acts) {
      if (act.do === "move") session.input.push(act.dx * scale, act.dy * scale);
      else if (act.do === "press") session.input.button(0, true);
      else if (act.do === "release") session.input.button(0, false);
      else {
        session.input.button(act.button, true);
        session.input.button(act.button, false);
      }
    }
  }
}
