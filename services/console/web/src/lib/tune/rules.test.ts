import { expect, test } from 'vitest';
import { bandFor, fitName, nameFor, samplePrompts, stepsFor, subjectOf } from './rules';

test.each([
  [0, 200],
  [1, 200],
  [3, 400],
  [5, 500],
  [20, 2000],
  [200, 10_000]
])('%i images are trained for %i steps', (images, steps) => {
  expect(stepsFor(images)).toBe(steps);
});

test('the steps that usually work grow with the images, up to the most that a tune takes', () => {
  expect(bandFor(20)).toEqual([800, 4000]);
  expect(bandFor(200)).toEqual([8000, 10_000]);
});

test('a name is made of class and trigger word, in the characters that it may have', () => {
  expect(nameFor('dog', 'sks1')).toBe('dog-sks1');
  expect(nameFor('', 'sks1')).toBe('sks1');
  expect(nameFor('Übergroßer Hund!', 'sks 1')).toBe('U-bergro-er-Hund-sks-1');
  expect(fitName('--a  b--')).toBe('a-b');
  expect(fitName('x'.repeat(150))).toHaveLength(100);
});

test('there are sample prompts once there is a subject', () => {
  expect(samplePrompts('', '')).toEqual([]);
  expect(samplePrompts('sks1', 'dog')[0]).toBe('a photo of a sks1 dog on a beach');
});

test('the class is found in a name that was made of class and trigger word', () => {
  expect(subjectOf('dog-sks1', 'sks1')).toBe('dog');
  expect(subjectOf('dog-sks1-2', 'sks1')).toBe('dog');
  expect(subjectOf('holiday', 'sks1')).toBe('');
});
