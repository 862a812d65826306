/** Short messages at the foot of the page; one may take an act back. */

export interface Toast {
  id: number;
  text: string;
  undo?: () => void;
}

const SHOWN_MS = 6000;

class Toasts {
  list = $state.raw<Toast[]>([]);
  #next = 0;
  #ends = new Map<number, { timer: ReturnType<typeof setTimeout>; end: () => void }>();

  /** Show a text for six seconds, and call `end` then, unless it was undone. */
  show(text: string, undo?: () => void, end: () => void = () => undefined): void {
    const id = (this.#next += 1);
    this.list = [...this.list, undo ? { id, text, undo } : { id, text }];
    this.#ends.set(id, { timer: setTimeout(() => this.#close(id), SHOWN_MS), end });
  }

  undo(toast: Toast): void {
    clearTimeout(this.#ends.get(toast.id)?.timer);
    this.#ends.delete(toast.id);
    this.list = this.list.filter((one) => one.id !== toast.id);
    toast.undo?.();
  }

  /** End all now: the page is being left. */
  flush(): void {
    for (const id of [...this.#ends.keys()]) this.#close(id);
  }

  #close(id: number): void {
    const known = this.#ends.get(id);
    clearTimeout(known?.timer);
    this.#ends.delete(id);
    this.list = this.list.filter((one) => one.id !== id);
    known?.end();
  }
}

export const toasts = new Toasts();
