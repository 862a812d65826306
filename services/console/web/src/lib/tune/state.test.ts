import { expect, test } from 'vitest';
import type { Tune, TuneEvent } from '../api/types';
import { apply, begin, smooth, type TuneState } from './state';

const TUNE = { sequence: 1, status: 'pending', phase: 'queue', queue: { reason: 'ahead', ahead: 0, files_unchecked: 0 }, progress: null, started_at: null } as unknown as Tune;

function state(): TuneState {
  return begin(TUNE, { first_step: 1, losses: [], resumed_at: [], sequence: 1 }, { data: [], sequence: 1 }, []);
}

function event(sequence: number, type: string, data: Record<string, unknown>): TuneEvent {
  return { sequence, type: `tune.${type}`, data, occurred_at: '2026-01-01T00:00:00Z' };
}

const STARTED = event(2, 'started', { attempt: 1, step: 0, trainer: 'a' });
const PROGRESSED = event(3, 'progressed', { step: 3, steps: 10, losses: [0.5, 0.4, 0.3], loss: 0.4, steps_per_second: 2 });

test('events make a waiting tune run, with its losses and the time that is left', () => {
  const now = [STARTED, PROGRESSED].reduce(apply, state());

  expect(now.tune).toMatchObject({ status: 'running', phase: 'training', queue: null, started_at: '2026-01-01T00:00:00Z' });
  expect(now.losses).toEqual([0.5, 0.4, 0.3]);
  expect(now.tune.progress).toMatchObject({ step: 3, steps: 10, eta_seconds: 3.5 });
});

test('an event that comes twice, or late, changes nothing', () => {
  const once = [STARTED, PROGRESSED].reduce(apply, state());

  expect(apply(once, PROGRESSED)).toBe(once);
  expect(apply(once, STARTED)).toBe(once);
});

test('another attempt repeats the steps after its checkpoint', () => {
  const now = [
    STARTED,
    PROGRESSED,
    event(4, 'requeued', { reason: 'lease_expired', attempt: 1 }),
    event(5, 'started', { attempt: 2, step: 2, trainer: 'b' }),
    event(6, 'progressed', { step: 4, steps: 10, losses: [0.9, 0.8], loss: 0.8, steps_per_second: null })
  ].reduce(apply, state());

  expect(now.losses).toEqual([0.5, 0.4, 0.9, 0.8]);
  expect(now.resumedAt).toEqual([2]);
  expect(now.tune.attempt).toBe(2);
  expect(now.tune.progress?.eta_seconds).toBeNull();
});

test('losses that were not reported are a gap', () => {
  const now = apply(state(), event(2, 'progressed', { step: 4, steps: 10, losses: [0.1], loss: 0.1, steps_per_second: 1 }));

  expect(now.losses).toEqual([null, null, null, 0.1]);
});

test('samples of a step that is drawn again replace the earlier ones', () => {
  const drawn = (sequence: number, step: number, url: string | null) =>
    event(sequence, 'sampled', { step, samples: [{ number: 0, prompt: 'p', seed: 1, url }] });
  const now = [drawn(2, 5, '/a'), drawn(3, 10, '/b'), drawn(4, 5, '/c'), drawn(5, 15, null)].reduce(apply, state());

  expect(now.samples.map((sample) => [sample.step, sample.url])).toEqual([
    [5, '/c'],
    [10, '/b']
  ]);
});

test('the state begins with the earliest of what was read, so that no event is missed', () => {
  const read = begin(TUNE, { first_step: 3, losses: [0.1], resumed_at: [], sequence: 9 }, { data: [], sequence: 7 }, [2]);

  expect(read.sequence).toBe(1);
  expect(read.losses).toEqual([null, null, 0.1]);
});

test('the end is read from the tune again', () => {
  expect(apply(state(), event(2, 'succeeded', {})).hasEnded).toBe(true);
});

test('smoothing is corrected for its start, and a gap stays one', () => {
  expect(smooth([1, 1, 1], 0.9).map((loss) => loss?.toFixed(6))).toEqual(['1.000000', '1.000000', '1.000000']);
  expect(smooth([1, null, 2], 0)).toEqual([1, null, 2]);
});
