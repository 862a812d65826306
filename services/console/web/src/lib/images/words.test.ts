import { expect, test } from 'vitest';
import { GENERATION } from './example';
import { altOf, keptLine, stateOf } from './words';

const NOW = new Date(2026, 7, 3, 12);
const at = (day: number, hour: number) => new Date(2026, 7, day, hour, 2).toISOString();

test('the state says what is waited for', () => {
  expect(stateOf({ ...GENERATION, status: 'queued', ahead: 2 }, undefined)).toBe('2 requests before it');
  expect(stateOf({ ...GENERATION, status: 'queued', ahead: 0 }, undefined)).toBe('next in the queue');
  expect(stateOf({ ...GENERATION, status: 'running' }, undefined)).toBe('loading the models');
  expect(stateOf({ ...GENERATION, status: 'running' }, { id: '', status: 'running', ahead: null, step: 3, steps: 20, preview: null })).toBe('step 3 of 20');
  expect(stateOf({ ...GENERATION, status: 'failed', error: { code: 'x', message: 'out of memory' } }, undefined)).toBe('out of memory');
});

test('it says how long an image is kept', () => {
  expect(keptLine({ ...GENERATION, kept_until: at(3, 14) }, NOW)).toBe('Kept until today 14:02; a star keeps it longer.');
  expect(keptLine({ ...GENERATION, kept_until: at(4, 10) }, NOW)).toBe('Kept until tomorrow 10:02; a star keeps it longer.');
  expect(keptLine({ ...GENERATION, kept_until: at(6, 14) }, NOW)).toBe('Kept for 4 days; a star keeps it longer.');
  expect(keptLine({ ...GENERATION, kept_until: at(3, 1) }, NOW)).toContain('at any time');
  expect(keptLine({ ...GENERATION, starred: true, kept_until: null }, NOW)).toBe('Starred: it is kept.');
});

test('one of several images has its number', () => {
  expect(altOf(GENERATION, 1)).toBe('a sks1 dog (image 2)');
  expect(altOf({ ...GENERATION, images: GENERATION.images.slice(0, 1) }, 0)).toBe('a sks1 dog');
});
