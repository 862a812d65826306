import { expect, test } from 'vitest';
import { hasPaint, rectangle, resized, SIZES } from './mask';

test('a rectangle is cut at the image’s edges', () => {
  expect(rectangle(-10, 50, 60, 100)).toEqual({ kind: 'rectangle', size: 0, points: [0, 0.5, 0.5, 0.5] });
});

test('a rectangle beside the image, or without an area, is none', () => {
  expect(rectangle(120, 0, 10, 10)).toBeNull();
  expect(rectangle(10, 10, 0, 10)).toBeNull();
  expect(rectangle(NaN, 10, 10, 10)).toBeNull();
});

test('the brush has a least and a most', () => {
  expect(resized(0.1, 1)).toBeCloseTo(0.12);
  expect(resized(resized(0.1, 1), -1)).toBeCloseTo(0.1);
  expect(resized(SIZES.most, 1)).toBe(SIZES.most);
  expect(resized(SIZES.least, -1)).toBe(SIZES.least);
});

test('erasing alone paints nothing', () => {
  const stroke = { kind: 'erase' as const, size: 0.1, points: [0, 0] };

  expect(hasPaint([stroke])).toBe(false);
  expect(hasPaint([stroke, { ...stroke, kind: 'invert' }])).toBe(true);
});
