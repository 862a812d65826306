import { expect, test } from 'vitest';
import { weigh } from './prompt';

test('a word at the caret is weighed, more and more', () => {
  const once = weigh('a red dog', 3, 3, 1);
  expect(once).toEqual({ text: 'a (red:1.1) dog', from: 2, to: 11 });
  expect(weigh(once?.text ?? '', once?.from ?? 0, once?.to ?? 0, 1)?.text).toBe('a (red:1.2) dog');
});

test('a caret within a weighed word changes its weight', () => {
  expect(weigh('a (red:1.1) dog', 4, 4, 1)?.text).toBe('a (red:1.2) dog');
});

test('the weight 1 needs no parentheses', () => {
  expect(weigh('a (red:1.1) dog', 2, 11, -1)?.text).toBe('a red dog');
});

test('there is an end on both sides, and nothing to weigh between words', () => {
  expect(weigh('(red:2)', 0, 7, 1)).toBeNull();
  expect(weigh('(red:0.1)', 0, 9, -1)).toBeNull();
  expect(weigh('', 0, 0, 1)).toBeNull();
});
