import { expect, test } from 'vitest';
import { GENERATION } from './example';
import { cellsOf } from './history';
import { changed, indexOf, nameOf, placeOf } from './place';

test('the address is read back as it was written', () => {
  const url = changed(new URL('http://x/images'), { mode: 'inpaint', view: 'gen_1:0', lora: 'dog', starred: true });

  expect(url.search).toBe('?mode=inpaint&view=gen_1%3A0&by=dog&starred=1');
  expect(placeOf(url.searchParams)).toMatchObject({ mode: 'inpaint', view: 'gen_1:0', lora: 'dog', starred: true, q: '' });
});

test('defaults leave the address', () => {
  const url = changed(new URL('http://x/images?mode=image&starred=1&view=a'), { mode: 'text', starred: false, view: null });

  expect(url.search).toBe('');
  expect(placeOf(new URLSearchParams('mode=other')).mode).toBe('text');
});

test('an image is found by its name, and one that is gone is none', () => {
  const cells = cellsOf([GENERATION]);
  const [, second] = cells;

  expect(indexOf(cells, second ? nameOf(second) : null)).toBe(1);
  expect(indexOf(cells, 'gen_9:0')).toBeNull();
  expect(indexOf(cells, null)).toBeNull();
});
