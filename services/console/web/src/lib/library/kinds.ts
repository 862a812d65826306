/** The kinds of assets, as the library's tabs name them. */

import type { Asset } from '../api/types';

export type Kind = 'lora' | 'checkpoint' | 'file' | 'vae' | 'textual_inversion';

export const KINDS: [Kind, string][] = [
  ['lora', 'LoRAs'],
  ['checkpoint', 'Checkpoints'],
  ['file', 'Images'],
  ['vae', 'VAEs'],
  ['textual_inversion', 'Embeddings']
];

export const EMPTY: Record<Kind, string> = {
  lora: 'Your LoRAs appear here when a tune is done.',
  checkpoint: 'There is no checkpoint of your own. Public ones are listed under Public.',
  file: 'Images that New tune has uploaded appear here.',
  vae: 'There is no VAE yet. `tunesmith asset upload` adds one.',
  textual_inversion: 'There is no embedding yet. `tunesmith asset upload` adds one.'
};

const FAMILIES: Record<string, string> = {
  'image/stable-diffusion-v1-5': 'SD 1.5',
  'image/stable-diffusion-xl-v1-0': 'SDXL'
};

export function kindOf(text: string | null): Kind {
  return KINDS.find(([kind]) => kind === text)?.[0] ?? 'lora';
}

export function engineOf(asset: Asset): string {
  const engine = asset.data.engine ?? '';
  return FAMILIES[engine] ?? engine.replace('image/', '');
}

export function wordsOf(asset: Asset): string {
  return ((asset.data.trigger_words as string[] | null | undefined) ?? []).join(', ');
}

/** Return what stands for the status: nothing for an asset that is ready. */
export function stateOf(asset: Asset): string {
  switch (asset.status) {
    case 'ready':
      return '';
    case 'ready_to_upload':
      return 'not uploaded';
    case 'uploaded':
      return 'being checked';
    default:
      return asset.status_details || asset.status;
  }
}
