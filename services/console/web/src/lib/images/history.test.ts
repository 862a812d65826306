import { expect, test } from 'vitest';
import { byDay, cellsOf, dayOf, differences, merged, settingsOf } from './history';
import { GENERATION } from './example';

const NOW = new Date(2026, 7, 3, 12);
const older = { ...GENERATION, id: 'gen_0', created_at: '2026-07-01T10:00:00Z' };

test('an answer that comes late does not open a request again', () => {
  const late = { ...GENERATION, status: 'running' as const, images: [] };

  expect(merged([GENERATION], [late])).toEqual([GENERATION]);
  expect(merged([late], [GENERATION])).toEqual([GENERATION]);
  expect(merged([older], [GENERATION]).map((one) => one.id)).toEqual(['gen_1', 'gen_0']);
});

test('days have names', () => {
  expect(dayOf(new Date(2026, 7, 3, 1).toISOString(), NOW)).toBe('Today');
  expect(dayOf(new Date(2026, 7, 2, 23).toISOString(), NOW)).toBe('Yesterday');
  expect(dayOf(new Date(2026, 7, 1, 23).toISOString(), NOW)).toBe('Saturday, August 1');
  expect(byDay([GENERATION, { ...GENERATION, id: 'b' }, older], NOW).map(({ data }) => data.length)).toEqual([2, 1]);
});

test('two images of one request differ in the seed alone', () => {
  const [left, right] = cellsOf([GENERATION]);
  if (!left || !right) throw new Error('there are two images');

  expect(differences(left, right)).toEqual([{ label: 'Seed', left: '7', right: '8' }]);
  expect(settingsOf(left)).toContainEqual(['LoRAs', 'dog-sks1 0.8, gone 1']);
});

test('a setting that only one has is a difference', () => {
  const [left] = cellsOf([GENERATION]);
  const [right] = cellsOf([{ ...older, request: { ...older.request, loras: null } }]);
  if (!left || !right) throw new Error('there are images');

  expect(differences(left, right)).toEqual([{ label: 'LoRAs', left: 'dog-sks1 0.8, gone 1', right: 'none' }]);
});
