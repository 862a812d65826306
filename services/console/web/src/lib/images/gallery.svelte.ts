/** The images that were asked for: the list as it was read, and the stream of those that are not done. */

import { call } from '../api/client';
import { ApiError } from '../api/errors';
import type { Ask, Asked, Generation, History, Progressed } from '../api/generations';
import { isOpen, merged } from './history';

const PAGE = 40;
const FAILURES = 3;
const POLL_MS = 5000;
const HIDDEN_MS = 30_000;
/** A stream names its requests in the address, which must not grow without end. */
const MOST_STREAMED = 64;

export interface Filters {
  q?: string | undefined;
  lora?: string | undefined;
  starred?: boolean | undefined;
}

export class Gallery {
  list = $state.raw<Generation[]>([]);
  progress = $state.raw<Record<string, Progressed>>({});
  error = $state.raw<ApiError | null>(null);
  isRead = $state(false);
  hasMore = $state(false);
  isPolling = $state(false);
  readonly open = $derived(this.list.filter(isOpen));
  #filters: Filters = {};
  #stream: EventSource | null = null;
  #streamed = '';
  #failures = 0;
  #poll: ReturnType<typeof setTimeout> | undefined;
  #hidden: ReturnType<typeof setTimeout> | undefined;
  #reading = 0;
  #stopped = false;

  start = (): (() => void) => {
    this.#stopped = false;
    document.addEventListener('visibilitychange', this.#onVisibility);
    return () => {
      this.#stopped = true;
      this.#close();
      clearTimeout(this.#hidden);
      document.removeEventListener('visibilitychange', this.#onVisibility);
    };
  };

  /** Read the list with these filters. */
  show = async (filters: Filters): Promise<void> => {
    if (JSON.stringify(filters) !== JSON.stringify(this.#filters)) this.list = [];
    this.#filters = filters;
    await this.read();
  };

  /** Read the newest, then follow those that are not done. */
  read = async (): Promise<void> => {
    const reading = (this.#reading += 1);
    try {
      const found = await this.#page();
      if (reading !== this.#reading || this.#stopped) return;
      const isFirst = !this.list.length;
      this.list = merged(this.list, found.data);
      if (isFirst) this.hasMore = found.has_more;
      this.error = null;
      this.isRead = true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (reading === this.#reading) this.error = error;
      return;
    }
    this.#follow();
  };

  more = async (): Promise<void> => {
    const last = this.list.at(-1);
    if (!last) return;
    try {
      const found = await this.#page(last.id);
      this.list = merged(this.list, found.data);
      this.hasMore = found.has_more;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.error = error;
    }
  };

  #page(before?: string): Promise<History> {
    const { q, lora, starred } = this.#filters;
    return call<History>('GET', '/v1/generations', { query: { q, lora, starred: starred || undefined, before, limit: PAGE } });
  }

  /** Ask for images; they are shown at once, and followed until they are done. */
  async ask(ask: Ask, idempotencyKey: string): Promise<Generation[]> {
    const headers = { 'Idempotency-Key': idempotencyKey };
    const made = await call<Asked>('POST', '/v1/generations', { body: ask, headers });
    this.take(made.data);
    this.#follow();
    return made.data;
  }

  async cancel(generation: Generation): Promise<void> {
    this.take([await call<Generation>('POST', `/v1/generations/${generation.id}/cancel`)]);
  }

  async star(generation: Generation, starred: boolean): Promise<void> {
    this.take([await call<Generation>('PATCH', `/v1/generations/${generation.id}`, { body: { starred } })]);
  }

  async remove(id: string): Promise<void> {
    await call('DELETE', `/v1/generations/${id}`);
    this.list = this.list.filter((one) => one.id !== id);
  }

  take(news: readonly Generation[]): void {
    this.list = merged(this.list, news);
  }

  /** Open one stream for everything that is not done. */
  #follow(): void {
    const ids = this.open.slice(0, MOST_STREAMED).map((one) => one.id);
    if (this.#stream && ids.join() === this.#streamed) return;
    this.#close();
    if (!ids.length || this.#stopped || document.hidden) return;
    this.#streamed = ids.join();
    const stream = (this.#stream = new EventSource(`/v1/generations/stream?${ids.map((id) => `ids=${id}`).join('&')}`));
    stream.onopen = () => (this.isPolling = false);
    stream.addEventListener('progress', (message) => this.#progressed(JSON.parse(message.data as string) as Progressed));
    stream.addEventListener('done', (message) => this.#done(JSON.parse(message.data as string) as Generation));
    stream.onerror = () => {
      // A stream that was refused is closed; one that was cut connects again by itself.
      this.#failures += 1;
      if (stream.readyState !== EventSource.CLOSED && this.#failures < FAILURES) return;
      this.#close();
      this.isPolling = this.#failures >= FAILURES;
      this.#poll = setTimeout(() => void this.read(), this.isPolling ? POLL_MS : 500);
    };
  }

  #progressed(news: Progressed): void {
    this.#failures = 0;
    const known = this.progress[news.id];
    this.progress = { ...this.progress, [news.id]: { ...news, preview: news.preview ?? known?.preview ?? null } };
    const generation = this.list.find((one) => one.id === news.id);
    if (generation && isOpen(generation)) this.take([{ ...generation, status: news.status, ahead: news.ahead }]);
  }

  #done(generation: Generation): void {
    this.#failures = 0;
    this.take([generation]);
    const { [generation.id]: _, ...rest } = this.progress;
    this.progress = rest;
    // The next ones have moved up in the queue.
    if (this.open.length) void this.read();
    else this.#close();
  }

  #close(): void {
    this.#stream?.close();
    this.#stream = null;
    this.#streamed = '';
    clearTimeout(this.#poll);
  }

  #onVisibility = (): void => {
    clearTimeout(this.#hidden);
    if (document.hidden) this.#hidden = setTimeout(() => this.#close(), HIDDEN_MS);
    else void this.read();
  };
}
