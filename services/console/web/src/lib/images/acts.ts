/** What can be done with an image; the page does it. */

import type { Generation } from '../api/generations';

export interface Acts {
  view: (generation: Generation, number: number) => void;
  reuse: (generation: Generation, number: number) => void;
  again: (generation: Generation) => void;
  withAndWithout: (generation: Generation, number: number) => void;
  startFrom: (generation: Generation, number: number) => void;
  star: (generation: Generation) => void;
  cancel: (generation: Generation) => void;
  remove: (generation: Generation) => void;
  code: (generation: Generation) => void;
}
