/** Sentences about image requests. */

import type { Generation, Progressed } from '../api/generations';
import { clock, number, plural } from '../format';

/** Return how far a request is. */
export function stateOf(generation: Generation, progress: Progressed | undefined): string {
  if (generation.status === 'queued') {
    return generation.ahead ? `${plural(generation.ahead, 'request')} before it` : 'next in the queue';
  }
  if (generation.status === 'running') return progress?.steps ? `step ${number(progress.step)} of ${number(progress.steps)}` : 'loading the models';
  if (generation.status === 'cancelled') return 'cancelled';
  return generation.status === 'failed' ? (generation.error?.message ?? 'It failed.') : '';
}

/** Return until when the images are kept. */
export function keptLine(generation: Generation, now: Date): string {
  if (generation.starred) return 'Starred: it is kept.';
  if (!generation.kept_until) return '';
  const until = new Date(generation.kept_until);
  if (until <= now) return 'It may be deleted at any time; a star keeps it.';
  const day = until.toDateString() === now.toDateString() ? 'today' : 'tomorrow';
  const days = Math.ceil((until.getTime() - now.getTime()) / 86_400_000);
  return `Kept ${days > 1 ? `for ${days} days` : `until ${day} ${clock(until)}`}; a star keeps it longer.`;
}

/** Return what an image is called where it cannot be seen. */
export function altOf(generation: Generation, place: number): string {
  const words = generation.request.prompt;
  const text = words.length > 120 ? `${words.slice(0, 120)}…` : words;
  return generation.images.length > 1 ? `${text} (image ${place + 1})` : text;
}

/** Return the address of an image as a PNG that names its settings. */
export function downloadOf(generation: Generation, place: number): string {
  return `/v1/generations/${generation.id}/images/${place}/png`;
}
