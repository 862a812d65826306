/** Data that a page reads, and reads again while it is shown. */

import { ApiError } from './api/errors';

export class Loader<T> {
  data = $state.raw<T | null>(null);
  error = $state.raw<ApiError | null>(null);
  #read: (signal: AbortSignal) => Promise<T>;
  #everyMs: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #running: AbortController | null = null;
  #stopped = true;

  constructor(read: (signal: AbortSignal) => Promise<T>, everyMs: number) {
    this.#read = read;
    this.#everyMs = everyMs;
  }

  /** Begin to read, and return the function that ends it: the form that `onMount` wants. */
  start = (): (() => void) => {
    this.#stopped = false;
    const onShow = () => void (document.hidden ? clearTimeout(this.#timer) : this.refresh());
    document.addEventListener('visibilitychange', onShow);
    void this.refresh();
    return () => {
      this.#stopped = true;
      this.#running?.abort();
      clearTimeout(this.#timer);
      document.removeEventListener('visibilitychange', onShow);
    };
  };

  /** Read now. What was read stays shown when it fails. */
  refresh = async (): Promise<void> => {
    clearTimeout(this.#timer);
    this.#running?.abort();
    const running = (this.#running = new AbortController());
    try {
      const data = await this.#read(running.signal);
      if (running.signal.aborted) return;
      this.data = data;
      this.error = null;
    } catch (error) {
      if (running.signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      this.error = error;
    }
    if (!this.#stopped && !document.hidden) this.#timer = setTimeout(this.refresh, this.#everyMs);
  };
}
