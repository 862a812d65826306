import { expect, test } from 'vitest';
import { ENGINE, GENERATION } from './example';
import { EMPTY_FORM, formOf, missingWords, modeOf, requestOf, restored, sizeOf, withWord } from './form';

const LORA = { key: 'dog-sks1', weight: 0.8, on: true, words: ['sks1'] };

test('what is not chosen is sent as the engine recommends it, not as old clients need it', () => {
  const request = requestOf({ ...EMPTY_FORM, prompt: ' a dog ' }, 'text', ENGINE);

  expect(request).toEqual({
    prompt: 'a dog',
    width: 512,
    height: 512,
    steps: 25,
    cfg_scale: 7,
    sampler: 'DPM_PLUS_PLUS_2M_KARRAS',
    num_images: 1,
    image_encoding: 'png'
  });
});

test('a LoRA that is off is not sent, and keeps its weight', () => {
  const form = { ...EMPTY_FORM, loras: [LORA, { ...LORA, key: 'other', on: false }] };

  expect(requestOf(form, 'text', ENGINE).loras).toEqual({ 'dog-sks1': 0.8 });
  expect(form.loras[1]?.weight).toBe(0.8);
});

test('fields of image to image are not sent with text', () => {
  const form = { ...EMPTY_FORM, strength: 0.4 };

  expect(requestOf(form, 'text', ENGINE)).not.toHaveProperty('strength');
  expect(requestOf(form, 'image', ENGINE)).toMatchObject({ strength: 0.4 });
  expect(requestOf(form, 'image', ENGINE)).not.toHaveProperty('inpaint_full_res');
  expect(requestOf(form, 'inpaint', ENGINE)).toMatchObject({ inpaint_full_res: true, inpaint_full_res_padding: 32 });
});

test('a size that the engine does not have gives way to the recommended one', () => {
  expect(sizeOf({ ...EMPTY_FORM, width: 1024, height: 1024 }, ENGINE)).toMatchObject({ width: 512, height: 512 });
  expect(sizeOf({ ...EMPTY_FORM, width: 512, height: 768 }, ENGINE)).toEqual({ width: 512, height: 768 });
});

test('the settings of an image make it again: its own seed, and no LoRA that was deleted', () => {
  const form = formOf(GENERATION, 1, [LORA]);

  expect(form).toMatchObject({ prompt: 'a sks1 dog', seed: 8, count: 1, width: 512, height: 768, guidance: 7, steps: 20 });
  expect(form.loras).toEqual([LORA]);
});

test('a mask makes it an inpainting', () => {
  expect(modeOf(GENERATION)).toBe('text');
  expect(modeOf({ ...GENERATION, inputs: { init_image_url: '/i', mask_url: null } })).toBe('image');
  expect(modeOf({ ...GENERATION, inputs: { init_image_url: '/i', mask_url: '/m' } })).toBe('inpaint');
});

test('a prompt without the trigger word is found, in any case of letters', () => {
  expect(missingWords({ ...EMPTY_FORM, prompt: 'a dog', loras: [LORA] })).toEqual([{ key: 'dog-sks1', word: 'sks1' }]);
  expect(missingWords({ ...EMPTY_FORM, prompt: 'a SKS1 dog', loras: [LORA] })).toEqual([]);
  expect(missingWords({ ...EMPTY_FORM, prompt: 'a dog', loras: [{ ...LORA, on: false }] })).toEqual([]);
  expect(withWord('a dog', 'sks1')).toBe('a dog, sks1');
  expect(withWord(' ', 'sks1')).toBe('a photo of a sks1');
});

test('a kept form of another version, or a broken one, is filled with the defaults', () => {
  expect(restored(null)).toEqual(EMPTY_FORM);
  expect(restored({ prompt: 'a dog', steps: 12, count: 'many', gone: 1 })).toEqual({ ...EMPTY_FORM, prompt: 'a dog', steps: 12 });
  expect(restored({ loras: {} }).loras).toEqual([]);
});
