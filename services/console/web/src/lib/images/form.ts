/** The form of Generate, and the request that it stands for. */

import type { Engine, Generation, ImageRequest } from '../api/generations';

export type Mode = 'text' | 'image' | 'inpaint';
export const MODES: [Mode, string][] = [
  ['text', 'Text to image'],
  ['image', 'Image to image'],
  ['inpaint', 'Inpaint']
];

export interface LoraChoice {
  /** What a request names it by. */
  key: string;
  weight: number;
  /** Whether it is used: a LoRA that is turned off keeps its weight. */
  on: boolean;
  words: string[];
}

export interface Form {
  prompt: string;
  negative: string;
  /** What a request names the checkpoint by; the empty text is the engine's default. */
  checkpoint: string;
  loras: LoraChoice[];
  width: number | null;
  height: number | null;
  count: number;
  /** Null is a random one. */
  seed: number | null;
  /** Where these are null, the engine's recommended values are sent. */
  steps: number | null;
  guidance: number | null;
  sampler: string | null;
  style: string;
  vae: string;
  clipSkip: number | null;
  refiner: boolean;
  format: 'jpeg' | 'png';
  strength: number;
  onlyMasked: boolean;
  padding: number;
}

export const EMPTY_FORM: Form = {
  prompt: '',
  negative: '',
  checkpoint: '',
  loras: [],
  width: null,
  height: null,
  count: 1,
  seed: null,
  steps: null,
  guidance: null,
  sampler: null,
  style: '',
  vae: '',
  clipSkip: null,
  refiner: false,
  format: 'png',
  strength: 0.6,
  onlyMasked: true,
  padding: 32
};

export const MAX_SEED = 2 ** 32 - 1;
export const MAX_COUNT = 16;
export const MAX_LORAS = 16;

/** Return what was kept, with the defaults for what it lacks; a kept form may be of an older version of the page. */
export function restored(kept: unknown): Form {
  const found = typeof kept === 'object' && kept !== null ? (kept as Record<string, unknown>) : {};
  const known = Object.entries(EMPTY_FORM).filter(([name, value]) => {
    const other = found[name];
    return value === null ? other === null || ['number', 'string'].includes(typeof other) : typeof other === typeof value;
  });
  const form = { ...EMPTY_FORM, ...Object.fromEntries(known.map(([name]) => [name, found[name]])) } as Form;
  if (!Array.isArray(form.loras)) form.loras = [];
  return form;
}

/** Return the image's size: the one chosen while this engine has it, else the recommended one. */
export function sizeOf(form: Form, engine: Engine): { width: number; height: number } {
  const chosen = engine.sizes.find((size) => size.width === form.width && size.height === form.height);
  return chosen ?? engine.recommended;
}

/** Return the request, without the image to start from and its mask. */
export function requestOf(form: Form, mode: Mode, engine: Engine): ImageRequest {
  const { recommended } = engine;
  const used = form.loras.filter((lora) => lora.on);
  const request: ImageRequest = {
    prompt: form.prompt.trim(),
    ...sizeOf(form, engine),
    steps: form.steps ?? recommended.steps,
    cfg_scale: form.guidance ?? recommended.cfg_scale,
    sampler: form.sampler ?? recommended.sampler,
    num_images: form.count,
    image_encoding: form.format
  };
  if (form.negative.trim()) request.negative_prompt = form.negative.trim();
  if (form.checkpoint) request.checkpoint = form.checkpoint;
  if (form.vae) request.vae = form.vae;
  if (used.length) request.loras = Object.fromEntries(used.map((lora) => [lora.key, lora.weight]));
  if (form.seed !== null) request.seed = form.seed;
  if (form.clipSkip !== null) request.clip_skip = form.clipSkip;
  if (form.style && engine.style_presets.includes(form.style)) request.style_preset = form.style;
  // A server with a refiner uses it unless a request says no.
  if (engine.has_refiner) request.use_refiner = form.refiner;
  if (mode !== 'text') request.strength = form.strength;
  if (mode === 'inpaint' && form.onlyMasked) {
    request.inpaint_full_res = true;
    request.inpaint_full_res_padding = form.padding;
  }
  return request;
}

/** Return the mode that a request was made in. */
export function modeOf(generation: Generation): Mode {
  if (generation.inputs.mask_url) return 'inpaint';
  return generation.inputs.init_image_url ? 'image' : 'text';
}

/** Return the form that makes this image again, with its seed. LoRAs that were deleted are left out. */
export function formOf(generation: Generation, number: number, known: readonly LoraChoice[] = []): Form {
  const { request, models } = generation;
  const missing = new Set(models.filter((model) => !model.exists).map((model) => model.name));
  const words = new Map(known.map((lora) => [lora.key, lora.words]));
  return {
    ...EMPTY_FORM,
    prompt: request.prompt,
    negative: request.negative_prompt ?? '',
    checkpoint: request.checkpoint && !missing.has(request.checkpoint) ? request.checkpoint : '',
    loras: Object.entries(request.loras ?? {})
      .filter(([key]) => !missing.has(key))
      .map(([key, weight]) => ({ key, weight, on: true, words: words.get(key) ?? [] })),
    width: request.width ?? null,
    height: request.height ?? null,
    count: 1,
    seed: generation.images[number]?.seed ?? null,
    steps: request.steps ?? null,
    guidance: request.cfg_scale ?? null,
    sampler: request.sampler ?? null,
    style: request.style_preset ?? '',
    vae: request.vae && !missing.has(request.vae) ? request.vae : '',
    clipSkip: request.clip_skip ?? null,
    refiner: request.use_refiner ?? false,
    format: request.image_encoding ?? 'jpeg',
    strength: request.strength ?? EMPTY_FORM.strength,
    onlyMasked: request.inpaint_full_res ?? false,
    padding: request.inpaint_full_res_padding ?? EMPTY_FORM.padding
  };
}

/** Return the words of LoRAs that are on and whose prompt has none of them, with the LoRA's name. */
export function missingWords(form: Form): { key: string; word: string }[] {
  const prompt = form.prompt.toLowerCase();
  return form.loras
    .filter((lora) => lora.on && lora.words.length && !lora.words.some((word) => prompt.includes(word.toLowerCase())))
    .map((lora) => ({ key: lora.key, word: lora.words[0] ?? '' }));
}

/** Return the prompt with a word that it lacks. */
export function withWord(prompt: string, word: string): string {
  const text = prompt.trim();
  return text ? `${text}, ${word}` : `a photo of a ${word}`;
}
