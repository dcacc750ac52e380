// From a place in the window to a guest pixel, and the totals that are sent. Pure.
//
// Guests have relative pointers (PS/2). `home` puts the guest's cursor on a known pixel; from then on the sum of all
// motion is sent, never a step, so a lost datagram costs nothing: the next total contains it.

export interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

export interface Point {
  x: number;
  y: number;
}

export interface Size {
  width: number;
  height: number;
}

/** The picture inside its box under `object-fit: contain`. */
export function pictureIn(box: Box, picture: Size): Box {
  const scale = Math.min(box.width / picture.width, box.height / picture.height);
  const width = picture.width * scale;
  const height = picture.height * scale;
  return { left: box.left + (box.width - width) / 2, top: box.top + (box.height - height) / 2, width, height };
}

/** The guest pixel under a place in the window, clamped to the picture; absent when the box has no size. */
export function guestPixel(at: Point, box: Box, picture: Size): Point | undefined {
  const inner = pictureIn(box, picture);
  if (!(inner.width > 0 && inner.height > 0)) return undefined;
  const clamp = (v: number, max: number): number => Math.min(Math.max(Math.floor(v), 0), max - 1);
  return {
    x: clamp(((at.x - inner.left) / inner.width) * picture.width, picture.width),
    y: clamp(((at.y - inner.top) / inner.height) * picture.height, picture.height),
  };
}

/** Whether a place is on the picture itself, not on the dark bars beside it. */
export function onPicture(at: Point, box: Box, picture: Size): boolean {
  const inner = pictureIn(box, picture);
  return at.x >= inner.left && at.x < inner.left + inner.width && at.y >= inner.top && at.y < inner.top + inner.height;
}

/** Sums relative motion in guest pixels since the last `home`. Fractions are kept, so slow motion is not lost. */
export class MotionTotals {
  #origin: Point | undefined;
  #x = 0;
  #y = 0;

  /** The guest's cursor now stands here. */
  home(at: Point): void {
    this.#origin = at;
    this.#x = 0;
    this.#y = 0;
  }

  get homed(): boolean {
    return this.#origin !== undefined;
  }

  /** Nothing is known of the guest's cursor any more: the next motion needs a `home`. */
  forget(): void {
    this.#origin = undefined;
  }

  /** Follow the local pointer to this guest pixel. */
  to(at: Point): Point {
    const origin = this.#origin ?? at;
    this.#x = at.x - origin.x;
    this.#y = at.y - origin.y;
    return this.total;
  }

  /** Add relative motion (pointer lock, touch), in guest pixels. */
  by(dx: number, dy: number): Point {
    this.#x += dx;
    this.#y += dy;
    return this.total;
  }

  get total(): Point {
    return { x: Math.round(this.#x), y: Math.round(this.#y) };
  }
}

/** Wheel motion to notches: one for each 100 px, 3 lines or page, with the rest kept. */
export class WheelNotches {
  #rest = 0;

  add(delta: number, mode: number): number {
    const unit = mode === 0 ? 100 : mode === 1 ? 3 : 1;
    if (Math.sign(delta) !== Math.sign(this.#rest)) this.#rest = 0;
    this.#rest += delta / unit;
    const notches = Math.trunc(this.#rest) + 0; // + 0: no negative zero
    this.#rest -= notches;
    return notches;
  }
}
