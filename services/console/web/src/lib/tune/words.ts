/** What a tune does and waits for, in words. */

import type { Status, Tune } from '../api/types';
import { duration, number, plural } from '../format';

export const STATUS_WORDS: Record<Status, string> = {
  pending: 'Waiting',
  running: 'Running',
  succeeded: 'Done',
  failed: 'Failed',
  cancelled: 'Cancelled'
};

/** Return the line under a tune's name: what it waits for, how far it is, or how long it took. */
export function stateLine(tune: Tune): string {
  if (tune.phase === 'ended') return endLine(tune);
  if (tune.queue) return queueLine(tune);
  if (tune.phase === 'saving') return 'saving the LoRA';
  const progress = tune.progress;
  if (tune.phase === 'loading' || !progress) return 'the trainer loads the base';
  const done = `${number(progress.step)} / ${number(progress.steps)}`;
  return progress.eta_seconds === null ? done : `${done}, about ${duration(progress.eta_seconds)} left`;
}

function endLine(tune: Tune): string {
  if (tune.status === 'failed') return tune.status_details;
  const from = tune.started_at ?? tune.created_at;
  const took = tune.ended_at ? duration((Date.parse(tune.ended_at) - Date.parse(from)) / 1000) : '';
  if (tune.status === 'succeeded') return `${plural(tune.details.steps, 'step')}${took && ` in ${took}`}`;
  const step = tune.progress?.step ?? 0;
  return step ? `stopped at step ${number(step)}` : 'stopped before training';
}

function queueLine(tune: Tune): string {
  const queue = tune.queue;
  if (queue?.reason === 'files') {
    return `checking ${number(queue.files_unchecked)} of ${plural(tune.details.files.length, 'image')}`;
  }
  if (queue?.reason === 'no_trainer') return 'no trainer is connected';
  if (!queue?.ahead) return 'next in the queue';
  return `${plural(queue.ahead, 'tune')} before it`;
}

/** Return a sentence about an event, or null for one that says nothing to people. */
export function eventLine(type: string, data: Record<string, unknown>): string | null {
  const step = number(Number(data.step ?? 0));
  switch (type) {
    case 'tune.queued':
      return 'All images are checked. It waits for a trainer.';
    case 'tune.started':
      return `Attempt ${String(data.attempt)}: ${String(data.trainer)} began at step ${step}.`;
    case 'tune.requeued':
      return `Its trainer was lost (${String(data.reason).replaceAll('_', ' ')}). It waits for another.`;
    case 'tune.checkpointed':
      return `A checkpoint was stored at step ${step}.`;
    case 'tune.sampled':
      return `Samples were drawn at step ${step}.`;
    case 'tune.trained':
      return 'Training is done. The LoRA is being registered.';
    case 'tune.succeeded':
      return 'The LoRA is in the library.';
    case 'tune.failed':
      return `It failed: ${String(data.message)}`;
    case 'tune.cancel_requested':
      return 'A cancel was requested.';
    case 'tune.cancelled':
      return 'It was cancelled.';
    default:
      return null;
  }
}
