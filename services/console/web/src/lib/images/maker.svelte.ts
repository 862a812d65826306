/** The form of Generate with the models that it chooses from, kept over a reload. */

import { call, randomKey } from '../api/client';
import { ApiError } from '../api/errors';
import type { Ask, Engine, Generation, ImageRequest } from '../api/generations';
import { EMPTY_FORM, formOf, missingWords, requestOf, withWord, type Form, type LoraChoice, type Mode } from './form';
import { keepForm, keepStart, keepStrokes, keptForm, keptStart, type Start } from './kept';
import { hasPaint, pngOf, type Stroke } from './mask';
import { checkpoints, endpointOf, misfit, models, type Model } from './models';
import { base64Of, fetched, startFrom } from './start';

const KEEP_AFTER_MS = 300;

export class Maker {
  form = $state<Form>({ ...EMPTY_FORM });
  start = $state.raw<Start | null>(null);
  startUrl = $state('');
  strokes = $state.raw<Stroke[]>([]);
  engines = $state.raw<Engine[]>([]);
  checkpoints = $state.raw<Model[]>([]);
  vaes = $state.raw<Model[]>([]);
  loras = $state.raw<Model[]>([]);
  /** Why the form cannot be filled: the models, or the image to start from, could not be read. */
  problem = $state('');
  error = $state.raw<ApiError | null>(null);
  isSending = $state(false);
  #timer: ReturnType<typeof setTimeout> | undefined;
  #key: { key: string; request: string } | null = null;

  constructor(private readonly account: string) {
    this.form = keptForm(account);
  }

  readonly checkpoint = $derived(
    this.checkpoints.find((model) => model.key === this.form.checkpoint || model.id === this.form.checkpoint) ?? this.checkpoints[0]
  );
  readonly engine = $derived(this.engines.find((engine) => engine.name === endpointOf(this.checkpoint)));
  readonly missing = $derived(missingWords(this.form));

  /** Read what the form chooses from, and the image that was kept. */
  load = async (): Promise<void> => {
    try {
      const [engines, found, vaes, loras] = await Promise.all([
        call<{ data: Engine[] }>('GET', '/v1/engines'),
        checkpoints(),
        models('vae'),
        models('lora')
      ]);
      this.engines = engines.data;
      this.checkpoints = found;
      this.vaes = vaes;
      this.loras = loras;
      this.problem = found.length ? '' : 'There is no checkpoint to draw with. `tunesmith doctor` says how to add one.';
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.problem = error.message;
    }
    const kept = await keptStart(this.account);
    if (kept && !this.start) this.#setStart(kept);
  };

  /** Why nothing can be drawn in this mode, or an empty text. */
  obstacle(mode: Mode): string {
    if (!this.form.prompt.trim()) return 'Describe an image first.';
    if (mode !== 'text' && !this.start) return 'Add the image to start from.';
    if (mode === 'inpaint' && !hasPaint(this.strokes)) return 'Paint over the part that is to change.';
    const bad = this.form.loras.find((lora) => lora.on && this.fit(lora.key));
    if (bad) return `${bad.key.replace('octoai:', '')} does not fit the checkpoint. Turn it off, or choose another checkpoint.`;
    return this.engine ? '' : 'The models are not known yet.';
  }

  /** Why a LoRA does not fit the checkpoint, or an empty text. */
  fit(key: string): string {
    const model = this.loras.find((one) => one.key === key);
    return model ? misfit(model, this.checkpoint) : '';
  }

  /** Keep the form in a moment: not every letter is worth a write. */
  keep(): void {
    clearTimeout(this.#timer);
    const form = $state.snapshot(this.form);
    this.#timer = setTimeout(() => keepForm(this.account, form), KEEP_AFTER_MS);
  }

  /** Keep the form now: the page may be gone before the moment has passed. */
  keepNow(): void {
    clearTimeout(this.#timer);
    keepForm(this.account, $state.snapshot(this.form));
  }

  stop(): void {
    this.keepNow();
    URL.revokeObjectURL(this.startUrl);
  }

  async setStart(file: Blob): Promise<void> {
    this.problem = '';
    try {
      this.#setStart(await startFrom(file));
      await keepStart(this.account, this.start);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      this.problem = error.message;
    }
  }

  #setStart(start: Start): void {
    URL.revokeObjectURL(this.startUrl);
    this.start = start;
    this.startUrl = URL.createObjectURL(start.content);
    this.strokes = start.strokes;
  }

  clearStart(): void {
    this.start = null;
    this.strokes = [];
    void keepStart(this.account, null);
  }

  paint(strokes: Stroke[]): void {
    this.strokes = strokes;
    keepStrokes(this.account, strokes);
  }

  /** Add a LoRA with the weight that most are made for. */
  add(model: Model, weight = 0.8): void {
    if (this.form.loras.some((lora) => lora.key === model.key)) return;
    this.form.loras.push({ key: model.key, weight, on: true, words: model.words });
  }

  insert(word: string): void {
    this.form.prompt = withWord(this.form.prompt, word);
  }

  /** Fill the form with the settings of an image that was drawn, and with the image that it started from. */
  async reuse(generation: Generation, number: number): Promise<void> {
    const known: LoraChoice[] = this.loras.map((model) => ({ key: model.key, weight: 1, on: true, words: model.words }));
    this.form = formOf(generation, number, known);
    const url = generation.inputs.init_image_url;
    if (!url) return;
    try {
      await this.setStart(await fetched(url));
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      this.problem = error.message;
    }
  }

  /** Return the request as it stands; images are named and not encoded, for people to read. */
  shown(mode: Mode): Ask {
    const engine = this.engine;
    if (!engine) return { engine: 'sd', request: { prompt: this.form.prompt } };
    const request = requestOf($state.snapshot(this.form), mode, engine);
    if (mode !== 'text') request.init_image = 'BASE64_OF_THE_IMAGE';
    if (mode === 'inpaint') request.mask_image = 'BASE64_OF_THE_MASK';
    return { engine: engine.name, request };
  }

  async #request(mode: Mode): Promise<ImageRequest> {
    const request = this.shown(mode).request;
    if (mode !== 'text' && this.start) request.init_image = await base64Of(this.start.content);
    if (mode === 'inpaint' && this.start) request.mask_image = pngOf(this.strokes, this.start.width, this.start.height);
    return request;
  }

  /** Send the form, and return what was made of it; null if it was refused. A lost answer makes no second request. */
  async send(mode: Mode, ask: (wanted: Ask, key: string) => Promise<Generation[]>): Promise<Generation[] | null> {
    const engine = this.engine?.name ?? 'sd';
    return this.guard(async () => ask(...this.#keyed({ engine, request: await this.#request(mode) })));
  }

  /** Send another request than the form's, with the form's way of showing errors. */
  async sendOther(wanted: Ask, ask: (wanted: Ask, key: string) => Promise<Generation[]>): Promise<Generation[] | null> {
    return this.guard(() => ask(...this.#keyed(wanted)));
  }

  #keyed(wanted: Ask): [Ask, string] {
    const request = JSON.stringify(wanted);
    if (this.#key?.request !== request) this.#key = { key: randomKey(), request };
    return [wanted, this.#key.key];
  }

  async guard(act: () => Promise<Generation[]>): Promise<Generation[] | null> {
    this.isSending = true;
    this.error = null;
    try {
      const made = await act();
      // The same form again is another request.
      this.#key = null;
      return made;
    } catch (error) {
      if (error instanceof ApiError) this.error = error;
      else if (error instanceof Error) this.problem = error.message;
      else throw error;
      return null;
    } finally {
      this.isSending = false;
    }
  }
}
