/** The address of Generate: the mode, what is shown, and the filters of the history. */

import type { Mode } from './form';
import type { Cell } from './history';

export interface Place {
  mode: Mode;
  /** The request on the stage; null is the newest. */
  show: string | null;
  view: string | null;
  with: string | null;
  q: string;
  lora: string;
  starred: boolean;
}

export function placeOf(values: Pick<URLSearchParams, 'get'>): Place {
  const mode = values.get('mode');
  return {
    mode: mode === 'image' || mode === 'inpaint' ? mode : 'text',
    show: values.get('show'),
    view: values.get('view'),
    with: values.get('with'),
    q: values.get('q') ?? '',
    lora: values.get('by') ?? '',
    starred: values.get('starred') === '1'
  };
}

/** Return the address with these changes; what has its default is left out. */
export function changed(url: { href: string }, changes: Partial<Place>): URL {
  const next = new URL(url.href);
  for (const [name, value] of Object.entries(changes)) {
    const key = name === 'lora' ? 'by' : name;
    const text = value === true ? '1' : value;
    if (text && text !== 'text') next.searchParams.set(key, text);
    else next.searchParams.delete(key);
  }
  return next;
}

export const nameOf = (cell: Cell): string => `${cell.generation.id}:${cell.image.number}`;

/** Return the place of the image with this name; null where it is not in the list. */
export function indexOf(cells: readonly Cell[], name: string | null): number | null {
  const at = name === null ? -1 : cells.findIndex((cell) => nameOf(cell) === name);
  return at < 0 ? null : at;
}
