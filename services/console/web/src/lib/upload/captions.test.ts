import { expect, test } from 'vitest';
import { append, fill, hasWord, insertWord, replace } from './captions';

test('the word is put in where it is missing, whatever its case', () => {
  const edit = insertWord('sks1', 'dog');

  expect(edit('on a beach')).toBe('sks1 dog, on a beach');
  expect(edit('a photo of SKS1')).toBe('a photo of SKS1');
  expect(edit('')).toBe('sks1 dog');
  expect(hasWord('anything', '')).toBe(true);
});

test('a template keeps the rest, and ends without a comma where there is none', () => {
  const edit = fill('a photo of a {trigger} {class}, {rest}', 'sks1', 'dog');

  expect(edit('on a beach')).toBe('a photo of a sks1 dog, on a beach');
  expect(edit('')).toBe('a photo of a sks1 dog');
});

test('a text is found as it is, an expression as one', () => {
  expect(replace('a.b', 'x', false)('a.b acb')).toBe('x acb');
  expect(replace('a.b', 'x', true)('a.b acb')).toBe('x x');
  expect(replace('', 'x', false)('as it is')).toBe('as it is');
  expect(() => replace('(', '', true)).toThrow(SyntaxError);
});

test('a text is added with a comma', () => {
  expect(append('blurred')('a dog')).toBe('a dog, blurred');
  expect(append('blurred')('')).toBe('blurred');
  expect(append(' ')('a dog')).toBe('a dog');
});
