/** The history of images: its order, its days, and what differs between two. */

import type { DrawnImage, Generation } from '../api/generations';

export interface Cell {
  generation: Generation;
  image: DrawnImage;
}

export const isOpen = (generation: Generation): boolean => generation.status === 'queued' || generation.status === 'running';

/** Return the list with what is newer of each: newest first, each once. */
export function merged(list: readonly Generation[], news: readonly Generation[]): Generation[] {
  const found = new Map(list.map((one) => [one.id, one]));
  for (const one of news) {
    const known = found.get(one.id);
    // An answer that was on the way when the images were done must not open the request again.
    if (!known || !(isOpen(one) && !isOpen(known))) found.set(one.id, one);
  }
  return [...found.values()].sort((a, b) => b.created_at.localeCompare(a.created_at) || b.id.localeCompare(a.id));
}

/** Return the images, newest first; those of one request in their order. */
export function cellsOf(list: readonly Generation[]): Cell[] {
  return list.flatMap((generation) => generation.images.map((image) => ({ generation, image })));
}

const DAY = new Intl.DateTimeFormat('en', { weekday: 'long', day: 'numeric', month: 'long' });

/** Return the day of a time, in words. */
export function dayOf(iso: string, now: Date): string {
  const date = new Date(iso);
  const days = Math.round((startOf(now) - startOf(date)) / 86_400_000);
  if (days === 0) return 'Today';
  return days === 1 ? 'Yesterday' : DAY.format(date);
}

function startOf(date: Date): number {
  return new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
}

/** Return the requests by day, newest first. */
export function byDay(list: readonly Generation[], now: Date): { day: string; data: Generation[] }[] {
  const days: { day: string; data: Generation[] }[] = [];
  for (const one of list) {
    const day = dayOf(one.created_at, now);
    if (days.at(-1)?.day === day) days.at(-1)?.data.push(one);
    else days.push({ day, data: [one] });
  }
  return days;
}

const LABELS: [string, string][] = [
  ['prompt', 'Prompt'],
  ['negative_prompt', 'Negative prompt'],
  ['checkpoint', 'Checkpoint'],
  ['loras', 'LoRAs'],
  ['textual_inversions', 'Embeddings'],
  ['vae', 'VAE'],
  ['size', 'Size'],
  ['seed', 'Seed'],
  ['steps', 'Steps'],
  ['cfg_scale', 'Guidance'],
  ['sampler', 'Sampler'],
  ['style_preset', 'Style'],
  ['strength', 'Strength'],
  ['clip_skip', 'Clip skip'],
  ['controlnet', 'ControlNet']
];

/** Return the settings of an image by their labels, without those that were not set. */
export function settingsOf({ generation, image }: Cell): [string, string][] {
  const values: Record<string, unknown> = { ...generation.request, seed: image.seed, size: `${image.width} × ${image.height}` };
  const base = generation.models.find((model) => model.kind === 'checkpoint');
  values.checkpoint ??= base?.name;
  return LABELS.flatMap(([name, label]) => {
    const text = wordsFor(values[name]);
    return text ? [[label, text] as [string, string]] : [];
  });
}

function wordsFor(value: unknown): string {
  if (value === null || value === undefined || value === '') return '';
  if (typeof value === 'object') {
    return Object.entries(value)
      .map(([name, one]) => `${name.replace('octoai:', '')} ${String(one)}`)
      .join(', ');
  }
  return String(value).replace('octoai:', '');
}

export interface Difference {
  label: string;
  left: string;
  right: string;
}

/** Return the settings in which two images differ. */
export function differences(left: Cell, right: Cell): Difference[] {
  const [mine, theirs] = [new Map(settingsOf(left)), new Map(settingsOf(right))];
  return LABELS.map(([, label]) => ({ label, left: mine.get(label) ?? 'none', right: theirs.get(label) ?? 'none' })).filter(
    (one) => one.left !== one.right
  );
}
