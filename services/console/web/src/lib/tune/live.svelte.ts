/** A tune's page: what was read, and the events since, which go on where they were after a cut. */

import { call } from '../api/client';
import { ApiError } from '../api/errors';
import type { Losses, Page, Sample, Tune, TuneEvent } from '../api/types';
import { apply, begin, type TuneState } from './state';

const TYPES = ['queued', 'requeued', 'started', 'progressed', 'checkpointed', 'sampled', 'trained', 'succeeded', 'failed', 'cancelled', 'cancel_requested', 'deleted'];
const FAILURES = 3;
const POLL_MS = 5000;
const HIDDEN_MS = 30_000;

export class LiveTune {
  state = $state.raw<TuneState | null>(null);
  error = $state.raw<ApiError | null>(null);
  /** Every event but the reports of progress, oldest first. */
  events = $state.raw<TuneEvent[]>([]);
  /** Whether it is read every five seconds, because the stream cannot be opened. */
  isPolling = $state(false);
  #stream: EventSource | null = null;
  #failures = 0;
  #poll: ReturnType<typeof setTimeout> | undefined;
  #hidden: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;

  constructor(readonly id: string) {}

  start = (): (() => void) => {
    document.addEventListener('visibilitychange', this.#onVisibility);
    void this.read();
    return () => {
      this.#stopped = true;
      this.#close();
      clearTimeout(this.#hidden);
      document.removeEventListener('visibilitychange', this.#onVisibility);
    };
  };

  /** Read the state, then go on with the stream from its sequence number. */
  read = async (): Promise<void> => {
    this.#close();
    try {
      const [tune, losses, samples, events] = await Promise.all([
        call<Tune>('GET', `/v1/tune/${this.id}`),
        call<Losses>('GET', `/v1/tune/${this.id}/losses`),
        call<{ data: Sample[]; sequence: number }>('GET', `/v1/tune/${this.id}/samples`),
        this.#readEvents()
      ]);
      if (this.#stopped) return;
      const checkpoints = events.filter((event) => event.type === 'tune.checkpointed').map((event) => Number(event.data.step));
      this.events = events;
      this.state = begin(tune, losses, samples, checkpoints);
      this.error = null;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.error = error;
      return;
    }
    if (!this.state.hasEnded) this.#open();
  };

  async #readEvents(): Promise<TuneEvent[]> {
    const found: TuneEvent[] = [];
    for (let after = 0; ; ) {
      const page = await call<Page<TuneEvent>>('GET', `/v1/tune/${this.id}/events`, { query: { after, limit: 100, progress: false } });
      found.push(...page.data);
      after = page.data.at(-1)?.sequence ?? after;
      if (!page.has_more) return found;
    }
  }

  #open(): void {
    if (this.#stopped || !this.state) return;
    const stream = (this.#stream = new EventSource(`/v1/tune/${this.id}/events/stream?after=${this.state.sequence}`));
    stream.onopen = () => {
      this.#failures = 0;
      this.isPolling = false;
    };
    for (const type of TYPES) stream.addEventListener(`tune.${type}`, (message) => this.#take(JSON.parse(message.data as string) as TuneEvent));
    stream.onerror = () => {
      // A closed stream was refused (429, 401) or has ended with the tune; another one reconnects by itself.
      this.#failures += 1;
      if (stream.readyState !== EventSource.CLOSED && this.#failures < FAILURES) return;
      this.#close();
      this.isPolling = this.#failures >= FAILURES;
      this.#poll = setTimeout(() => void this.read(), this.isPolling ? POLL_MS : 500);
    };
  }

  #take(event: TuneEvent): void {
    if (!this.state) return;
    this.state = apply(this.state, event);
    const isNew = event.sequence > (this.events.at(-1)?.sequence ?? 0);
    if (isNew && event.type !== 'tune.progressed') this.events = [...this.events, event];
    // The result of a tune stands in its row and not in its events.
    if (this.state.hasEnded) void this.read();
  }

  #close(): void {
    this.#stream?.close();
    this.#stream = null;
    clearTimeout(this.#poll);
  }

  #onVisibility = (): void => {
    clearTimeout(this.#hidden);
    if (document.hidden) this.#hidden = setTimeout(() => this.#close(), HIDDEN_MS);
    else if (!this.#stream && this.state && !this.state.hasEnded) void this.read();
  };
}
