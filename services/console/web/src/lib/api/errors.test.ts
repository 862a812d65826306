import { expect, test } from 'vitest';
import { ApiError, errorOf } from './errors';

test('a text is shown as a sentence, and each field gets its own', () => {
  const detail = [{ loc: ['body', 'details', 'steps'], msg: 'steps: 0 is too few; send 1 to 10000', type: 'value_error' }];
  const error = errorOf(422, { detail, code: 'invalid' }, new Headers({ 'X-User-Request-ID': 'req_1' }));

  expect(error.message).toBe('0 is too few; send 1 to 10000');
  expect(error.field('details', 'steps')).toBe('0 is too few; send 1 to 10000');
  expect(error.field('name')).toBeNull();
  expect(error.requestId).toBe('req_1');
});

test('an answer that is no JSON is still an error with words', () => {
  expect(errorOf(500, null, new Headers()).message).toBe('The server answered 500. Try again.');
});

test('a rate and an outage pass by themselves, a wrong request does not', () => {
  expect(errorOf(429, {}, new Headers({ 'Retry-After': '7' }))).toMatchObject({ isPassing: true, retryAfterS: 7 });
  expect(new ApiError(0, 'offline', '').isPassing).toBe(true);
  expect(new ApiError(409, 'conflict', '').isPassing).toBe(false);
});
