/** What the API of the images answers, as far as the pages read it. */

export type GenerationStatus = 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled';

export interface Engine {
  name: string;
  family: string;
  default_checkpoint: string;
  /** Whether the default checkpoint is registered. */
  available: boolean;
  has_refiner: boolean;
  sizes: { width: number; height: number }[];
  samplers: string[];
  style_presets: string[];
  recommended: { sampler: string; steps: number; cfg_scale: number; width: number; height: number };
}

export type Value = string | number | boolean | null | Record<string, number> | Record<string, string> | (number | null)[];

/** The fields of a request, as `POST /generate/ENGINE` takes them. */
export interface ImageRequest {
  prompt: string;
  negative_prompt?: string | null;
  checkpoint?: string | null;
  vae?: string | null;
  loras?: Record<string, number> | null;
  textual_inversions?: Record<string, string> | null;
  sampler?: string | null;
  width?: number | null;
  height?: number | null;
  cfg_scale?: number | null;
  steps?: number | null;
  num_images?: number | null;
  seed?: number | (number | null)[] | null;
  init_image?: string | null;
  strength?: number | null;
  mask_image?: string | null;
  inpaint_full_res?: boolean | null;
  inpaint_full_res_padding?: number | null;
  clip_skip?: number | null;
  use_refiner?: boolean | null;
  style_preset?: string | null;
  image_encoding?: 'jpeg' | 'png' | null;
}

export interface DrawnImage {
  number: number;
  seed: number;
  url: string | null;
  thumbnail_url: string | null;
  width: number;
  height: number;
  removed_for_safety: boolean;
}

export interface UsedModel {
  name: string;
  kind: string;
  weight: number | null;
  exists: boolean;
}

export interface Generation {
  id: string;
  group_id: string | null;
  group: Group | null;
  cell: number[] | null;
  engine: string;
  status: GenerationStatus;
  request: ImageRequest;
  inputs: { init_image_url: string | null; mask_url: string | null };
  images: DrawnImage[];
  notices: string[];
  error: { code: string; message: string } | null;
  models: UsedModel[];
  ahead: number | null;
  created_at: string;
  finished_at: string | null;
  kept_until: string | null;
  starred: boolean;
}

export interface Group {
  kind: 'ab' | 'grid';
  axes?: { field: string; values: unknown[] }[];
}

export interface Ask {
  engine: string;
  request: ImageRequest;
  variants?: Partial<ImageRequest>[];
  group?: Group;
}

export interface Asked {
  group_id: string | null;
  data: Generation[];
}

export interface Progressed {
  id: string;
  status: GenerationStatus;
  /** Of all images together; `steps` is 0 while it is not known. */
  step: number;
  steps: number;
  ahead: number | null;
  preview: string | null;
}

export interface History {
  data: Generation[];
  has_more: boolean;
}
