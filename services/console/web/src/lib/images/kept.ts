/** What Generate keeps in the browser over a reload: the form, and the image to start from with its mask. */

import { restored, type Form } from './form';
import type { Stroke } from './mask';

const FORM = 'tunesmith.generate';
const STORE = 'images';

function read(name: string): unknown {
  try {
    return JSON.parse(localStorage.getItem(name) ?? 'null');
  } catch {
    // Browsers that keep nothing throw, and so does a text that is no JSON.
    return null;
  }
}

function write(name: string, value: unknown): void {
  try {
    localStorage.setItem(name, JSON.stringify(value));
  } catch {
    // A browser may keep nothing, or be full; the page works without.
  }
}

export const keptForm = (account: string): Form => restored(read(`${FORM}.${account}`));

export const keepForm = (account: string, form: Form): void => write(`${FORM}.${account}`, form);

/** The strokes are written at once: the image's store is asynchronous, and a reload could be faster. */
export const keepStrokes = (account: string, strokes: Stroke[]): void => write(`${FORM}.mask.${account}`, strokes);

function keptStrokes(account: string): Stroke[] {
  const found = read(`${FORM}.mask.${account}`);
  return Array.isArray(found) ? (found as Stroke[]) : [];
}

export interface Start {
  content: Blob;
  width: number;
  height: number;
  strokes: Stroke[];
}

function store(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(FORM, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error('no store'));
  });
}

async function within<T>(mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest<T>): Promise<T | null> {
  try {
    const database = await store();
    try {
      return await new Promise((resolve, reject) => {
        const request = act(database.transaction(STORE, mode).objectStore(STORE));
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error ?? new Error('refused'));
      });
    } finally {
      database.close();
    }
  } catch {
    // Private windows refuse it; the image is then lost with a reload, and nothing else.
    return null;
  }
}

/** Return the image to start from as it was kept, or null. */
export async function keptStart(account: string): Promise<Start | null> {
  const found = await within<Start | undefined>('readonly', (images) => images.get(account));
  return found ? { ...found, strokes: keptStrokes(account) } : null;
}

export async function keepStart(account: string, start: Start | null): Promise<void> {
  keepStrokes(account, start?.strokes ?? []);
  await within('readwrite', (images) => (start ? images.put(start, account) : images.delete(account)) as IDBRequest<unknown>);
}
