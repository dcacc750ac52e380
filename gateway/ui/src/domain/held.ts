// What is pressed at the guest because of us. Pure.

export interface Held {
  codes: string[];
  buttons: number[];
}

export class HeldInput {
  readonly #codes = new Set<string>();
  readonly #buttons = new Set<number>();

  key(code: string, down: boolean): void {
    if (down) this.#codes.add(code);
    else this.#codes.delete(code);
  }

  button(button: number, down: boolean): void {
    if (down) this.#buttons.add(button);
    else this.#buttons.delete(button);
  }

  get any(): boolean {
    return this.#codes.size + this.#buttons.size > 0;
  }

  get buttonsHeld(): boolean {
    return this.#buttons.size > 0;
  }

  has(code: string): boolean {
    return this.#codes.has(code);
  }

  list(): Held {
    return { codes: [...this.#codes], buttons: [...this.#buttons] };
  }

  /** What must be let go now; nothing is held afterwards. */
  takeAll(): Held {
    const all = this.list();
    this.#codes.clear();
    this.#buttons.clear();
    return all;
  }
}
