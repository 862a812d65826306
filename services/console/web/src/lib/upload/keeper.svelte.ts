/** Keeps a dataset on the server as it is changed. */

import { call } from '../api/client';
import { ApiError } from '../api/errors';
import type { Dataset, DatasetBody } from '../api/types';

const AFTER_MS = 1000;
const RETRY_MS = 5000;

export class Keeper {
  id = $state<string | null>(null);
  savedAt = $state<Date | null>(null);
  /** The dataset as another window has changed it since. */
  conflict = $state.raw<Dataset | null>(null);
  problem = $state<string | null>(null);
  #version = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #saving: Promise<void> | null = null;
  #last = '';

  constructor(
    private readonly body: () => DatasetBody,
    private readonly onCreated: (id: string) => void
  ) {}

  /** Take over what was read from the server. */
  loaded(dataset: Dataset): void {
    this.id = dataset.id;
    this.#version = dataset.version;
    this.savedAt = new Date(dataset.updated_at);
    this.conflict = null;
  }

  /** Note what the form has now as what the server has. */
  settled(): void {
    this.#last = JSON.stringify(this.body());
  }

  /** Save in a second, unless something changes again. */
  later(): void {
    clearTimeout(this.#timer);
    if (!this.#hasNews()) return;
    this.#timer = setTimeout(() => void this.now(), AFTER_MS);
  }

  /** Save now, and wait for it. */
  async now(): Promise<void> {
    clearTimeout(this.#timer);
    while (this.#saving) await this.#saving;
    if (!this.#hasNews()) return;
    this.#saving = this.#save();
    await this.#saving;
    this.#saving = null;
  }

  /** Keep what stands here, over the changes of the other window. */
  async overwrite(): Promise<void> {
    if (this.conflict) this.#version = this.conflict.version;
    this.conflict = null;
    await this.now();
  }

  #hasNews(): boolean {
    const body = this.body();
    // Opening the page makes no dataset: there has to be something to keep.
    if (this.id === null && !body.files.length && !body.trigger_word && !body.subject_class && !body.name) return false;
    return !this.conflict && JSON.stringify(body) !== this.#last;
  }

  async #save(): Promise<void> {
    const body = this.body();
    try {
      if (this.id === null) {
        const made = await call<Dataset>('POST', '/v1/datasets', { body });
        this.loaded(made);
        this.onCreated(made.id);
      } else {
        const headers = { 'If-Match': String(this.#version) };
        this.loaded(await call<Dataset>('PUT', `/v1/datasets/${this.id}`, { body, headers }));
      }
      this.#last = JSON.stringify(body);
      this.problem = null;
      if (JSON.stringify(this.body()) !== this.#last) this.later();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.code === 'changed') {
        this.conflict = await call<Dataset>('GET', `/v1/datasets/${this.id ?? ''}`);
        return;
      }
      this.problem = error.message;
      if (error.isPassing) this.#timer = setTimeout(() => void this.now(), RETRY_MS);
    }
  }
}
