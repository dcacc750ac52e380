// The way out of a guest: left Ctrl and left Alt pressed and let go, nothing between. AltGr is AltRight and never counts
// (on Windows it comes as ControlLeft + AltRight). Both keys still reach the guest. Pure.
//
//   idle --one of the two--> armed --both down--> ready --both up--> RELEASE
//     ^------------- any other key or button, or a key already held -------------'

const MEMBERS: ReadonlySet<string> = new Set(["ControlLeft", "AltLeft"]);

export class ReleaseChord {
  readonly #down = new Set<string>();
  readonly #others = new Set<string>();
  #spoilt = false;
  #ready = false;

  /** Feeds a key; true when this very event completes the chord. */
  key(code: string, down: boolean, repeat = false): boolean {
    if (repeat) return false;
    if (!MEMBERS.has(code)) {
      if (down) this.#others.add(code);
      else this.#others.delete(code);
      this.spoil();
      return false;
    }
    if (down) {
      if (this.#down.size === 0) {
        this.#spoilt = this.#others.size > 0;
        this.#ready = false;
      }
      this.#down.add(code);
      if (this.#down.size === MEMBERS.size && !this.#spoilt) this.#ready = true;
      return false;
    }
    this.#down.delete(code);
    if (this.#down.size > 0 || !this.#ready || this.#spoilt) return false;
    this.#ready = false;
    return true;
  }

  /** Something happened between: a button or another key. */
  spoil(): void {
    this.#spoilt = true;
    this.#ready = false;
  }

  reset(): void {
    this.#down.clear();
    this.#others.clear();
    this.#spoilt = false;
    this.#ready = false;
  }
}
