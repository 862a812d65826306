/** Requests that are made of an image that was drawn: with a new seed, and without its LoRAs. */

import type { Ask, Generation, ImageRequest } from '../api/generations';
import { base64Of, fetched } from './start';

/** Return the request as it was made, with its images, which answers do not repeat. Throws an Error where they are gone. */
async function whole(generation: Generation): Promise<ImageRequest> {
  const request = { ...generation.request };
  const { init_image_url: start, mask_url: mask } = generation.inputs;
  if (start) request.init_image = await base64Of(await fetched(start));
  if (mask) request.mask_image = await base64Of(await fetched(mask));
  return request;
}

/** Return the same request with seeds that are new. */
export async function withNewSeed(generation: Generation): Promise<Ask> {
  const request = await whole(generation);
  delete request.seed;
  return { engine: generation.engine, request };
}

/** Return the request that draws an image twice with one seed: with its LoRAs at weight 0, and at their weights. */
export async function withAndWithout(generation: Generation, number: number): Promise<Ask> {
  const request = await whole(generation);
  const seed = generation.images[number]?.seed;
  if (seed !== undefined) request.seed = seed;
  const loras = request.loras ?? {};
  const none = Object.fromEntries(Object.keys(loras).map((key) => [key, 0]));
  return { engine: generation.engine, request: { ...request, num_images: 1 }, variants: [{ loras: none }, { loras }], group: { kind: 'ab' } };
}
