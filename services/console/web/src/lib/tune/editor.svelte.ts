/** New tune: the images, their captions and the settings, and what the server says of them. */

import { call, randomKey } from '../api/client';
import { ApiError } from '../api/errors';
import type { Dataset, DatasetBody, Finding, Tune, WhatIf } from '../api/types';
import { hasWord, type Edit } from '../upload/captions';
import { pathOf, sortFiles, stemOf } from '../upload/files';
import { Item } from '../upload/item.svelte';
import { Keeper } from '../upload/keeper.svelte';
import { assets } from '../upload/library';
import { Sender } from '../upload/sender';
import { requestOf, OPTIONS, type TuneSettings } from './request';
import { MAX_FILES, nameFor, samplePrompts, stepsFor, subjectOf } from './rules';

const MOST_NUMBER = 99;

export class Editor {
  items = $state<Item[]>([]);
  triggerWord = $state('');
  subjectClass = $state('');
  /** What was typed; while it is empty, the name follows class and trigger word. */
  ownName = $state('');
  /** The number at the end of the name that is filled in: it grows while the name is taken. */
  nameNumber = $state(1);
  settings = $state<TuneSettings>({ base: 'octoai:default-sd15', steps: null, prompts: null });
  /** The images over the limit, and the files that are no images, of what was added last. */
  leftOut = $state<string[]>([]);
  ignored = $state<string[]>([]);
  whatIf = $state.raw<WhatIf | null>(null);
  whatIfError = $state.raw<ApiError | null>(null);
  startError = $state.raw<ApiError | null>(null);
  isStarting = $state(false);
  /** Whether it starts by itself once all images are sent. */
  startsLater = $state(false);
  undone = $state.raw<string[] | null>(null);
  readonly keeper: Keeper;
  readonly #sender: Sender;
  #whatIfTimer: ReturnType<typeof setTimeout> | undefined;
  #isAsking = false;
  #idempotencyKey: { key: string; request: string } | null = null;

  constructor(onCreated: (id: string) => void) {
    this.keeper = new Keeper(() => this.body(), onCreated);
    this.#sender = new Sender(
      () => this.items,
      () => this.keeper.later()
    );
  }

  get name(): string {
    const made = nameFor(this.subjectClass, this.triggerWord);
    return this.ownName || (made && this.nameNumber > 1 ? `${made}-${this.nameNumber}` : made);
  }

  get steps(): number {
    return this.settings.steps ?? stepsFor(this.items.length);
  }

  get prompts(): string[] {
    return this.settings.prompts ?? samplePrompts(this.triggerWord, this.subjectClass);
  }

  get usable(): Item[] {
    return this.items.filter((item) => item.state === 'checking' || item.state === 'ready');
  }

  get onTheWay(): number {
    return this.items.filter((item) => item.isOnTheWay).length;
  }

  get withWord(): number {
    return this.items.filter((item) => !item.caption.trim() || hasWord(item.caption, this.triggerWord)).length;
  }

  /** Why the tune cannot be started, or an empty text. */
  get obstacle(): string {
    if (!this.items.length) return 'Add at least one image.';
    const bad = this.items.find((item) => item.state === 'rejected' || item.state === 'failed');
    if (bad && !this.settings.continue_on_rejection) return `${bad.fileName} cannot be used. Remove or replace it.`;
    if (!this.triggerWord.trim()) return 'Type a trigger word.';
    if (!this.name) return 'Type a name.';
    return '';
  }

  body(): DatasetBody {
    return {
      name: this.ownName,
      trigger_word: this.triggerWord,
      subject_class: this.subjectClass,
      files: this.items.filter((item) => item.fileId).map((item) => item.kept()),
      settings: { ...$state.snapshot(this.settings) }
    };
  }

  request(): Record<string, unknown> {
    return requestOf({
      name: this.name,
      triggerWord: this.triggerWord,
      steps: this.steps,
      prompts: this.prompts,
      files: this.usable.map((item) => item.kept()),
      settings: $state.snapshot(this.settings),
      datasetId: this.keeper.id
    });
  }

  findings(item: Item): Finding[] {
    const mine = (finding: Finding) => finding.file_id === item.fileId && finding.code !== 'not_checked_yet';
    return item.fileId ? (this.whatIf?.lint.filter(mine) ?? []) : [];
  }

  async load(id: string): Promise<void> {
    const dataset = await call<Dataset>('GET', `/v1/datasets/${id}`);
    this.keeper.loaded(dataset);
    await this.take(dataset);
    this.keeper.settled();
  }

  /** Fill the form with the images and settings of an earlier tune; the images are used again. */
  async clone(tuneId: string): Promise<void> {
    const tune = await call<Tune>('GET', `/v1/tune/${tuneId}`);
    const { details } = tune;
    const settings: TuneSettings = {
      base: details.base_checkpoint.checkpoint_id,
      steps: details.steps,
      prompts: details.validation_prompts ?? []
    };
    const options = settings as unknown as Record<string, unknown>;
    for (const option of OPTIONS) if (details[option] !== null) options[option] = details[option];
    // A clone with the same seed and settings would be the same LoRA again.
    delete settings.seed;
    if (!settings.resize_images) delete settings.resize_images;
    const word = details.trigger_words[0] ?? '';
    await this.take({
      name: '',
      trigger_word: word,
      subject_class: '',
      files: details.files.map((file) => ({ file_id: file.file_id, file_name: '', caption: file.caption === word ? '' : file.caption })),
      settings: { ...settings }
    });
    this.ownName = '';
    this.subjectClass = subjectOf(tune.name, word);
  }

  /** Begin with images of the library. */
  async begin(fileIds: readonly string[]): Promise<void> {
    const files = fileIds.slice(0, MAX_FILES).map((id) => ({ file_id: id, file_name: '', caption: '' }));
    await this.take({ ...this.body(), files });
  }

  async take(body: DatasetBody): Promise<void> {
    this.triggerWord = body.trigger_word;
    this.subjectClass = body.subject_class;
    this.ownName = body.name;
    this.settings = { ...this.settings, ...body.settings };
    const known = new Map(this.items.map((item) => [item.fileId, item]));
    const items = body.files.map((file) => known.get(file.file_id) ?? Item.kept(file));
    items.forEach((item, at) => (item.caption = body.files[at]?.caption ?? ''));
    // What is still being sent has no id yet, and stays.
    this.items = [...items, ...this.items.filter((item) => !item.fileId)];
    const kept = items.filter((item) => item.fileId);
    const found = new Map((await assets(kept.map((item) => item.fileId ?? ''), true)).map((asset) => [asset.id, asset]));
    for (const item of kept) item.learn(found.get(item.fileId ?? ''));
    this.#sender.ask();
  }

  async add(files: readonly File[]): Promise<void> {
    const found = await sortFiles(files);
    const byPath = new Map(this.items.map((item) => [stemOf(item.fileName), item]));
    // A caption file that is added later belongs to an image that is there already.
    for (const [stem, caption] of found.captions) {
      const item = byPath.get(stem.split('/').at(-1) ?? stem);
      if (item) item.caption = caption;
    }
    const room = Math.max(0, MAX_FILES - this.items.length);
    const added = found.images.slice(0, room).map((file) => {
      const item = new Item(file.name, found.captions.get(stemOf(pathOf(file))) ?? '', file);
      return item;
    });
    this.leftOut = found.images.slice(room).map((file) => file.name);
    this.ignored = found.ignored.map((path) => path.split('/').at(-1) ?? path);
    this.items.push(...added);
    if (!this.triggerWord) this.triggerWord = found.triggerWord;
    if (!this.subjectClass) this.subjectClass = found.subjectClass;
    this.keeper.later();
    this.#sender.add(this.items.slice(-added.length || this.items.length));
  }

  again(item: Item): void {
    item.problem = '';
    item.state = 'waiting';
    this.#sender.add([item]);
  }

  remove(item: Item): void {
    this.items = this.items.filter((one) => one !== item);
  }

  /** Change captions at once; `undo` takes it back whole. */
  edit(edit: Edit, items: readonly Item[]): void {
    this.undone = this.items.map((item) => item.caption);
    for (const item of items) item.caption = edit(item.caption);
  }

  undo(): void {
    this.undone?.forEach((caption, at) => {
      const item = this.items[at];
      if (item) item.caption = caption;
    });
    this.undone = null;
  }

  /** Ask what the tune would take, half a second after the last change. */
  ask(): void {
    clearTimeout(this.#whatIfTimer);
    if (this.obstacle || !this.usable.length) return;
    this.#whatIfTimer = setTimeout(() => void this.#ask(), 500);
  }

  async #ask(): Promise<void> {
    // The server measures images for two questions at a time: the next one waits for the answer to this.
    if (this.#isAsking) {
      this.#whatIfTimer = setTimeout(() => void this.#ask(), 500);
      return;
    }
    this.#isAsking = true;
    try {
      this.whatIf = await call<WhatIf>('POST', '/v1/tune', { body: this.request(), query: { whatif: true } });
      this.whatIfError = null;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.code === 'name_taken' && !this.ownName && this.nameNumber < MOST_NUMBER) {
        // The name is a part of the request, so the next question follows by itself.
        this.nameNumber += 1;
        return;
      }
      this.whatIfError = error;
      if (error.isPassing) this.#whatIfTimer = setTimeout(() => void this.#ask(), (error.retryAfterS ?? 5) * 1000);
    } finally {
      this.#isAsking = false;
    }
  }

  /** Start the tune and return it; null if it was refused. Two clicks, or a lost answer, make one tune. */
  async start(): Promise<Tune | null> {
    this.isStarting = true;
    this.startError = null;
    try {
      await this.keeper.now();
      const body = this.request();
      const request = JSON.stringify(body);
      if (this.#idempotencyKey?.request !== request) this.#idempotencyKey = { key: randomKey(), request };
      const headers = { 'Idempotency-Key': this.#idempotencyKey.key };
      return await call<Tune>('POST', '/v1/tune', { body, headers });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.startError = error;
      return null;
    } finally {
      this.isStarting = false;
      this.startsLater = false;
    }
  }

  stop(): void {
    this.#sender.stop();
    clearTimeout(this.#whatIfTimer);
    void this.keeper.now();
  }
}
