/** Requests to the API, with the cookie of the sign-in. */

import { ApiError, errorOf } from './errors';
import { session } from '../session.svelte';

interface Options {
  body?: unknown;
  query?: Record<string, string | number | boolean | readonly string[] | undefined>;
  headers?: Record<string, string>;
  /** Whether a 401 is an answer rather than the end of the sign-in. */
  quiet?: boolean;
  signal?: AbortSignal;
}

/** Send a request and return its JSON. Throws ApiError; status 0 means that there is no connection. */
export async function call<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const headers: Record<string, string> = { Accept: 'application/json', 'X-Tunesmith-Console': '1', ...options.headers };
  const init: RequestInit = { method, headers, credentials: 'same-origin' };
  if (options.signal) init.signal = options.signal;
  if (options.body !== undefined) {
    headers['Content-Type'] = 'application/json';
    init.body = JSON.stringify(options.body);
  }
  let answer: Response;
  try {
    answer = await fetch(path + query(options.query), init);
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    session.setOffline(true);
    throw new ApiError(0, 'offline', 'There is no connection to the server. Check that it runs, then try again.');
  }
  session.setOffline(false);
  if (answer.status === 204) return undefined as T;
  const body: unknown = await answer.json().catch(() => null);
  if (answer.ok) return body as T;
  if (answer.status === 401 && !options.quiet) session.ended();
  throw errorOf(answer.status, body, answer.headers);
}

function query(values: Options['query']): string {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(values ?? {})) {
    if (value === undefined || value === '') continue;
    for (const one of Array.isArray(value) ? (value as string[]) : [value]) found.append(name, String(one));
  }
  const text = found.toString();
  return text && `?${text}`;
}

/** Return a random key for `Idempotency-Key`. `crypto.randomUUID` is missing on plain HTTP. */
export function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

const KEPT_MS = 40 * 60_000;
const kept = new Map<string, { url: string; at: number }>();

/**
 * Return the URL under which this file was shown first, while that is valid.
 *
 * A file has another signature with each answer, and with another URL the browser would load the file again.
 */
export function steady(url: string): string {
  const path = url.split('?')[0] ?? url;
  const known = kept.get(path);
  if (known && Date.now() - known.at < KEPT_MS) return known.url;
  kept.set(path, { url, at: Date.now() });
  return url;
}
