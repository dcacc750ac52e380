// Touch on the picture as a track pad: slide = move, tap = click, two fingers = right button, long press = drag. Pure:
// the caller feeds touches and a clock, and does what comes out.

export type TouchAct =
  | { do: "move"; dx: number; dy: number }
  | { do: "click"; button: 0 | 2 }
  | { do: "press" }
  | { do: "release" };

/** Longer than this without motion is a drag, shorter is a tap. */
export const LONG_PRESS_MS = 450;
/** A finger trembles by less than this many CSS pixels. */
const SLOP_PX = 8;

export class TouchPad {
  readonly #fingers = new Map<number, { x: number; y: number }>();
  #most = 0;
  #began = 0;
  #travel = 0;
  #dragging = false;

  down(id: number, x: number, y: number, now: number): TouchAct[] {
    if (this.#fingers.size === 0) {
      this.#most = 0;
      this.#travel = 0;
      this.#began = now;
    }
    this.#fingers.set(id, { x, y });
    this.#most = Math.max(this.#most, this.#fingers.size);
    return [];
  }

  move(id: number, x: number, y: number, now: number): TouchAct[] {
    const last = this.#fingers.get(id);
    if (!last) return [];
    const dx = x - last.x;
    const dy = y - last.y;
    this.#fingers.set(id, { x, y });
    const acts = this.held(now);
    const before = this.#travel;
    this.#travel += Math.hypot(dx, dy);
    if (this.#fingers.size > 1) return acts;
    // The first pixels may be a tap that trembles; they are not worth a jump of the cursor.
    if (before < SLOP_PX && !this.#dragging && this.#travel < SLOP_PX) return acts;
    return [...acts, { do: "move", dx, dy }];
  }

  /** Call at LONG_PRESS_MS after a touch began: one still finger is a press of the left button. */
  held(now: number): TouchAct[] {
    if (this.#dragging || this.#fingers.size !== 1 || this.#most !== 1) return [];
    if (this.#travel >= SLOP_PX || now - this.#began < LONG_PRESS_MS) return [];
    this.#dragging = true;
    return [{ do: "press" }];
  }

  up(id: number, now: number): TouchAct[] {
    if (!this.#fingers.delete(id) || this.#fingers.size > 0) return [];
    if (this.#dragging) {
      this.#dragging = false;
      return [{ do: "release" }];
    }
    if (this.#travel >= SLOP_PX || now - this.#began >= LONG_PRESS_MS) return [];
    return [{ do: "click", button: this.#most > 1 ? 2 : 0 }];
  }

  cancel(): TouchAct[] {
    this.#fingers.clear();
    if (!this.#dragging) return [];
    this.#dragging = false;
    return [{ do: "release" }];
  }
}
