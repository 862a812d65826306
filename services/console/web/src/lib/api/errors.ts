/** Errors of the API, in the form that pages show. */

export interface FieldError {
  loc: (string | number)[];
  msg: string;
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly fields: FieldError[] = [],
    readonly requestId: string | null = null,
    readonly retryAfterS: number | null = null
  ) {
    super(message);
    this.name = 'ApiError';
  }

  /** Whether the same request may succeed later. */
  get isPassing(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 502;
  }

  /** The text for a field, by the end of its `loc`. */
  field(...path: (string | number)[]): string | null {
    const found = this.fields.find((error) => path.every((part, at) => error.loc.at(at - path.length) === part));
    return found ? readable(found.msg) : null;
  }
}

/** Return a field's text without the field's name at its start, which the page shows already. */
export function readable(message: string): string {
  const text = message.replace(/^Value error, /, '').replace(/^[a-z_]+: /, '');
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Return the error of an answer that is no success. */
export function errorOf(status: number, body: unknown, headers: Headers): ApiError {
  const requestId = headers.get('X-User-Request-ID');
  const retryAfter = Number(headers.get('Retry-After')) || null;
  const { detail, code } = (body ?? {}) as { detail?: unknown; code?: string };
  if (Array.isArray(detail)) {
    const fields = detail as FieldError[];
    const message = fields.map((field) => readable(field.msg)).join('. ');
    return new ApiError(status, code ?? 'invalid', message, fields, requestId, retryAfter);
  }
  const message = typeof detail === 'string' ? detail : `The server answered ${status}. Try again.`;
  return new ApiError(status, code ?? 'internal', message.charAt(0).toUpperCase() + message.slice(1), [], requestId, retryAfter);
}

const FAILED: Record<string, string> = {
  files_rejected: 'Some images cannot be trained on. Start it again without them, or with others in their place.',
  bad_image: 'An image cannot be read. Start it again without that image.',
  out_of_memory: 'The GPU has not enough memory for these settings. Start it again with half the batch size, or a lower resolution.',
  loss_not_finite: 'The loss became infinite. Start it again with half the learning rate.',
  attempts_exhausted: 'Every attempt was lost. Start it again as it is; if that fails too, ask the operator to read the trainer’s log.',
  trainer_crashed: 'The trainer crashed. Start it again as it is.',
  trainer_stalled: 'The trainer stopped responding. Start it again as it is.',
  lora_not_registered: 'The LoRA was trained, and the library refused it. Ask the operator to read the log.'
};

/** Return what a user can do about a failed tune. */
export function adviceFor(code: string | null): string {
  return FAILED[code ?? ''] ?? 'Start it again as it is, or copy the report and ask the operator.';
}
