import { expect, test } from 'vitest';
import { shapes } from './sizes';

const SIZES = [
  [384, 704],
  [448, 576],
  [512, 512],
  [512, 768],
  [576, 448],
  [768, 512],
  [640, 640],
  [1024, 1536],
  [1216, 704]
].map(([width = 0, height = 0]) => ({ width, height }));

test('shapes go from upright to wide, near the size that the engine is made for', () => {
  const found = shapes(SIZES, { width: 512, height: 512 });

  expect(found).toContainEqual({ width: 512, height: 512 });
  expect(found).not.toContainEqual({ width: 640, height: 640 });
  expect(found).not.toContainEqual({ width: 1024, height: 1536 });
  const aspects = found.map((size) => size.width / size.height);
  expect(aspects).toEqual([...aspects].sort((a, b) => a - b));
  expect(found.length).toBeLessThanOrEqual(5);
});

test('an engine without a square has no square', () => {
  expect(shapes([{ width: 512, height: 768 }], { width: 512, height: 512 })).toEqual([{ width: 512, height: 768 }]);
});
