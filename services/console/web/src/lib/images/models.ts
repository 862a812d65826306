/** The models of the library that images can be drawn with. */

import { call } from '../api/client';
import type { Asset, Page } from '../api/types';

export interface Model {
  /** What a request names it by: its name, or `octoai:NAME` for a public one. */
  key: string;
  id: string;
  label: string;
  engine: string;
  shape: string | null;
  words: string[];
  aliasOf: string | null;
}

type Kind = 'checkpoint' | 'lora' | 'vae';
const PAGE = 100;
/** The endpoint for each engine that a checkpoint can have. */
const ENDPOINTS: Record<string, string> = {
  'image/stable-diffusion-v1-5': 'sd',
  'image/stable-diffusion-xl-v1-0': 'sdxl',
  'image/stable-diffusion-ssd': 'ssd'
};

export function modelOf(asset: Asset): Model {
  return {
    key: asset.is_public ? `octoai:${asset.name}` : asset.name,
    id: asset.id,
    label: asset.name,
    engine: asset.data.engine ?? '',
    shape: (asset.data.shape_class as string | null | undefined) ?? null,
    words: (asset.data.trigger_words as string[] | null | undefined) ?? [],
    aliasOf: asset.data.alias_of ?? null
  };
}

/** Return the endpoint that draws with a checkpoint. */
export function endpointOf(checkpoint: Model | undefined): string {
  return ENDPOINTS[checkpoint?.engine ?? ''] ?? 'sd';
}

/** Return the ready models of a kind, the account's own first; with a text, those that it is found in. */
export async function models(kind: Kind, q = '', limit = PAGE): Promise<Model[]> {
  const query = { asset_type: kind, status: 'ready', q, limit };
  const [own, open] = await Promise.all([
    call<Page<Asset>>('GET', '/v1/assets', { query }),
    call<Page<Asset>>('GET', '/v1/assets', { query: { ...query, owner: 'octoai', is_public: true } })
  ]);
  const found = new Map([...own.data, ...open.data].map((asset) => [asset.id, modelOf(asset)]));
  return [...found.values()];
}

/** Return the checkpoints that images can be drawn with: the defaults first. */
export async function checkpoints(): Promise<Model[]> {
  const found = (await models('checkpoint')).filter((model) => model.engine in ENDPOINTS);
  const isDefault = (model: Model) => model.key.startsWith('octoai:default-');
  return found.sort((a, b) => Number(isDefault(b)) - Number(isDefault(a)) || a.label.localeCompare(b.label));
}

/** Return why a model does not fit a checkpoint, or an empty text. */
export function misfit(model: Model, checkpoint: Model | undefined): string {
  if (!checkpoint) return '';
  if (model.engine !== checkpoint.engine) return `It is for another kind of checkpoint than ${checkpoint.label}.`;
  if (model.shape && model.shape !== checkpoint.shape) return `It was trained on another architecture than ${checkpoint.label}.`;
  return '';
}
