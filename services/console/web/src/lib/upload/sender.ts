/** Sends images three at a time, and asks for their verdicts. */

import { ApiError } from '../api/errors';
import { assets, send } from './library';
import { Item } from './item.svelte';
import { prepare } from './prepare';

const AT_ONCE = 3;
const ASK_EVERY_MS = 1000;

export class Sender {
  #queue: Item[] = [];
  #running = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;

  constructor(
    private readonly items: () => readonly Item[],
    private readonly onSent: () => void
  ) {}

  add(items: readonly Item[]): void {
    this.#queue.push(...items);
    while (this.#running < AT_ONCE && this.#queue.length) void this.#work();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async #work(): Promise<void> {
    this.#running += 1;
    for (let item = this.#queue.shift(); item && !this.#stopped; item = this.#queue.shift()) {
      // It may have been removed while it waited.
      if (this.items().includes(item)) await this.#send(item);
    }
    this.#running -= 1;
  }

  async #send(item: Item): Promise<void> {
    if (!item.file) return;
    try {
      item.state = 'preparing';
      const image = await prepare(item.file);
      item.thumbnail = image.thumbnail;
      item.note = image.note;
      item.state = 'sending';
      const asset = await send(item.fileName, image, (share) => (item.share = share));
      item.fileId = asset.id;
      item.learn(asset);
      this.onSent();
      this.ask();
    } catch (error) {
      item.state = 'failed';
      item.problem = error instanceof Error ? error.message : String(error);
      if (!(error instanceof Error)) throw error;
    }
  }

  /** Ask for the verdicts of images that are being checked, until all have one. */
  ask = (): void => {
    clearTimeout(this.#timer);
    if (!this.#stopped) this.#timer = setTimeout(() => void this.#ask(), ASK_EVERY_MS);
  };

  async #ask(): Promise<void> {
    const waiting = this.items().filter((item) => item.state === 'checking');
    if (!waiting.length) return;
    try {
      const found = new Map((await assets(waiting.map((item) => item.fileId ?? ''))).map((asset) => [asset.id, asset]));
      for (const item of waiting) item.learn(found.get(item.fileId ?? ''));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    }
    if (this.items().some((item) => item.state === 'checking')) this.ask();
  }
}
