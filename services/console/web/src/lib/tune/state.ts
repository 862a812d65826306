/** A tune as its page shows it: what was read, with the events since. */

import type { Losses, Phase, Sample, Tune, TuneEvent } from '../api/types';

export interface TuneState {
  tune: Tune;
  /** The loss at step i + 1. */
  losses: (number | null)[];
  resumedAt: number[];
  checkpoints: number[];
  samples: Sample[];
  /** The sequence number of the last event that is in it. */
  sequence: number;
  /** Whether the tune has ended with an event, and has to be read again for its result. */
  hasEnded: boolean;
}

/** Put together what three requests answered. Events after the earliest of them come by the stream. */
export function begin(tune: Tune, losses: Losses, samples: { data: Sample[]; sequence: number }, checkpoints: number[]): TuneState {
  const all: (number | null)[] = Array.from({ length: losses.first_step - 1 }, () => null);
  return {
    tune,
    losses: losses.losses.length ? [...all, ...losses.losses] : [],
    resumedAt: losses.resumed_at,
    checkpoints,
    samples: samples.data,
    sequence: Math.min(tune.sequence, losses.sequence, samples.sequence),
    hasEnded: tune.phase === 'ended'
  };
}

const PHASES: Record<string, Phase> = {
  'tune.queued': 'queue',
  'tune.requeued': 'queue',
  'tune.started': 'loading',
  'tune.progressed': 'training',
  'tune.trained': 'saving',
  'tune.succeeded': 'ended',
  'tune.failed': 'ended',
  'tune.cancelled': 'ended'
};

/** Return the state after an event. An event that is in it already changes nothing. */
export function apply(state: TuneState, event: TuneEvent): TuneState {
  if (event.sequence <= state.sequence) return state;
  const next: TuneState = { ...state, sequence: event.sequence, tune: { ...state.tune, sequence: event.sequence } };
  const data = event.data;
  const phase = PHASES[event.type];
  if (phase) next.tune.phase = phase;
  if (phase && phase !== 'queue') next.tune.queue = null;
  switch (event.type) {
    case 'tune.started':
      next.tune.status = 'running';
      next.tune.attempt = Number(data.attempt);
      next.tune.started_at ??= event.occurred_at;
      if (Number(data.step) > 0) {
        next.losses = state.losses.slice(0, Number(data.step));
        next.resumedAt = [...new Set([...state.resumedAt, Number(data.step)])];
      }
      break;
    case 'tune.progressed': {
      const step = Number(data.step);
      const reported = (data.losses as number[] | undefined) ?? [];
      next.losses = withLosses(state.losses, step - reported.length, reported);
      next.tune.progress = progressOf(data, step);
      break;
    }
    case 'tune.checkpointed':
      next.checkpoints = [...new Set([...state.checkpoints, Number(data.step)])].sort((a, b) => a - b);
      break;
    case 'tune.sampled':
      next.samples = withSamples(state.samples, Number(data.step), data.samples as (Omit<Sample, 'step'> & { url: string | null })[]);
      break;
    case 'tune.succeeded':
    case 'tune.failed':
    case 'tune.cancelled':
      next.hasEnded = true;
      break;
  }
  return next;
}

function progressOf(data: Record<string, unknown>, step: number): Tune['progress'] {
  const steps = Number(data.steps);
  const speed = data.steps_per_second as number | null;
  return {
    step,
    steps,
    loss: data.loss as number | null,
    steps_per_second: speed,
    eta_seconds: speed ? (steps - step) / speed : null
  };
}

function withLosses(losses: (number | null)[], after: number, reported: number[]): (number | null)[] {
  if (!reported.length) return losses;
  const next = losses.slice();
  while (next.length < after) next.push(null);
  reported.forEach((loss, place) => (next[after + place] = loss));
  return next;
}

function withSamples(samples: Sample[], step: number, drawn: (Omit<Sample, 'step'> & { url: string | null })[]): Sample[] {
  const added = drawn.filter((sample) => sample.url).map((sample) => ({ ...sample, step, url: sample.url ?? '' }));
  const isNew = (sample: Sample) => !added.some((one) => one.step === sample.step && one.number === sample.number);
  return [...samples.filter(isNew), ...added].sort((a, b) => a.step - b.step || a.number - b.number);
}

/** Return exponentially smoothed losses, corrected for the bias of the first ones. A gap stays a gap. */
export function smooth(losses: readonly (number | null)[], weight: number): (number | null)[] {
  let mean = 0;
  let share = 1;
  return losses.map((loss) => {
    if (loss === null) return null;
    mean = weight * mean + (1 - weight) * loss;
    share *= weight;
    return mean / (1 - share);
  });
}
