/** An engine and a request with its images, for tests. */

import type { Engine, Generation } from '../api/generations';

export const ENGINE: Engine = {
  name: 'sd',
  family: 'image/stable-diffusion-v1-5',
  default_checkpoint: 'octoai:default-sd15',
  available: true,
  has_refiner: false,
  sizes: [
    { width: 512, height: 512 },
    { width: 512, height: 768 }
  ],
  samplers: ['DDIM'],
  style_presets: [],
  recommended: { sampler: 'DPM_PLUS_PLUS_2M_KARRAS', steps: 25, cfg_scale: 7, width: 512, height: 512 }
};

export const GENERATION: Generation = {
  id: 'gen_1',
  group_id: null,
  group: null,
  cell: null,
  engine: 'sd',
  status: 'succeeded',
  request: { prompt: 'a sks1 dog', loras: { 'dog-sks1': 0.8, gone: 1 }, num_images: 2, seed: 7, steps: 20, cfg_scale: 7, width: 512, height: 768 },
  inputs: { init_image_url: null, mask_url: null },
  images: [
    { number: 0, seed: 7, url: '/a', thumbnail_url: '/a', width: 512, height: 768, removed_for_safety: false },
    { number: 1, seed: 8, url: '/b', thumbnail_url: '/b', width: 512, height: 768, removed_for_safety: false }
  ],
  notices: [],
  error: null,
  models: [
    { name: 'dog-sks1', kind: 'lora', weight: 0.8, exists: true },
    { name: 'gone', kind: 'lora', weight: 1, exists: false }
  ],
  ahead: null,
  created_at: '2026-08-01T10:00:00Z',
  finished_at: '2026-08-01T10:00:09Z',
  kept_until: null,
  starred: false
};
