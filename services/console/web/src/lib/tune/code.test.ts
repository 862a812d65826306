import { expect, test } from 'vitest';
import { LANGUAGES, sample } from './code';

const BODY = { name: "it's", details: { files: [{ file_id: 'asset_1' }], resize_images: true, seed: null, trigger_words: [] } };

test('no sample has a key in it', () => {
  for (const language of LANGUAGES) expect(sample(language, 'http://x', 'POST', '/v1/tune', BODY)).toMatch(/OCTOAI_TOKEN/);
});

test('a quote in a text does not end the argument of curl', () => {
  expect(sample('curl', 'http://x', 'POST', '/v1/tune', BODY)).toContain(String.raw`"it'\''s"`);
});

test('Python has its own words for true and null', () => {
  const code = sample('Python', 'http://x', 'POST', '/v1/tune', BODY);

  expect(code).toContain('"resize_images": True');
  expect(code).toContain('"seed": None');
  expect(code).toContain('"trigger_words": []');
});

test('a request without a body says nothing of JSON', () => {
  for (const language of LANGUAGES) expect(sample(language, 'http://x', 'GET', '/v1/tunes')).not.toContain('application/json');
});
