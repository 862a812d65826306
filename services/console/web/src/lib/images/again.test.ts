import { expect, test } from 'vitest';
import { withAndWithout, withNewSeed } from './again';
import { GENERATION } from './example';

test('a new seed is left to the server', async () => {
  const ask = await withNewSeed(GENERATION);

  expect(ask.request).not.toHaveProperty('seed');
  expect(ask).toMatchObject({ engine: 'sd', request: { prompt: 'a sks1 dog', num_images: 2 } });
  expect(GENERATION.request.seed).toBe(7);
});

test('A and B have the seed of the image, and differ in the weights alone', async () => {
  const ask = await withAndWithout(GENERATION, 1);

  expect(ask.request).toMatchObject({ seed: 8, num_images: 1 });
  expect(ask.variants).toEqual([{ loras: { 'dog-sks1': 0, gone: 0 } }, { loras: { 'dog-sks1': 0.8, gone: 1 } }]);
  expect(ask.group).toEqual({ kind: 'ab' });
});
