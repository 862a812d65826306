import { expect, test } from 'vitest';
import { endpointOf, misfit, modelOf, type Model } from './models';

const CHECKPOINT: Model = { key: 'octoai:default-sd15', id: 'a', label: 'default-sd15', engine: 'image/stable-diffusion-v1-5', shape: 'sd15', words: [], aliasOf: null };
const LORA: Model = { ...CHECKPOINT, key: 'dog', label: 'dog', words: ['sks1'] };

test('a LoRA of another engine, or of another shape, does not fit', () => {
  expect(misfit(LORA, CHECKPOINT)).toBe('');
  expect(misfit(LORA, undefined)).toBe('');
  expect(misfit({ ...LORA, shape: null }, CHECKPOINT)).toBe('');
  expect(misfit({ ...LORA, shape: 'small' }, CHECKPOINT)).toContain('another architecture');
  expect(misfit({ ...LORA, engine: 'image/stable-diffusion-xl-v1-0' }, CHECKPOINT)).toContain('another kind');
});

test('a public model is named by its owner', () => {
  const asset = { id: 'a', asset_type: 'lora', name: 'dog', description: '', size_bytes: 1, status: 'ready', status_details: '', created_at: '', data: {}, is_public: true } as const;

  expect(modelOf(asset).key).toBe('octoai:dog');
  expect(modelOf({ ...asset, is_public: false }).key).toBe('dog');
  expect(endpointOf({ ...CHECKPOINT, engine: 'image/stable-diffusion-xl-v1-0' })).toBe('sdxl');
  expect(endpointOf(undefined)).toBe('sd');
});
