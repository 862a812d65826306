/** Weights of words in a prompt: `(word:1.1)`. */

export interface Edited {
  text: string;
  from: number;
  to: number;
}

const STEP = 0.1;
const WEIGHED = /^\((.*):(\d+(?:\.\d+)?)\)$/s;

/** Return the text with the selection, or the word at the caret, weighed more or less; null where there is no word. */
export function weigh(text: string, from: number, to: number, direction: 1 | -1): Edited | null {
  let [start, end] = [from, to];
  if (start === end) {
    while (start > 0 && /[^\s,()]/.test(text[start - 1] ?? '')) start -= 1;
    while (end < text.length && /[^\s,()]/.test(text[end] ?? '')) end += 1;
    // The caret may stand within a word that is weighed already.
    const weight = /^:\d+(?:\.\d+)?\)/.exec(text.slice(end));
    const inside = /[^\s,():]+(?=:\d)/.exec(text.slice(start, end));
    if (text[start - 1] === '(' && inside) {
      start -= 1;
      end = text.indexOf(')', end) + 1;
    } else if (text[start - 1] === '(' && weight) {
      start -= 1;
      end += weight[0].length;
    }
  }
  const part = text.slice(start, end);
  if (!part.trim()) return null;
  const known = WEIGHED.exec(part);
  const words = known?.[1] ?? part;
  const weight = Math.round(10 * (Number(known?.[2] ?? 1) + direction * STEP)) / 10;
  if (weight < STEP || weight > 2) return null;
  const next = weight === 1 ? words : `(${words}:${weight})`;
  return { text: text.slice(0, start) + next + text.slice(end), from: start, to: start + next.length };
}
