/** What New tune fills in: steps, names and sample prompts. */

export const MAX_FILES = 200;
export const MAX_STEPS = 10_000;
/** How often each image is usually shown; a step at full size shows one image. */
const BAND = [40, 200] as const;

/** Return the steps for this many images: 100 for each, at least 400, and at most 200 for each. */
export function stepsFor(images: number): number {
  const count = Math.max(1, images);
  return Math.min(MAX_STEPS, BAND[1] * count, Math.max(400, 100 * count));
}

/** Return the fewest and the most steps that usually work for this many images. */
export function bandFor(images: number): [number, number] {
  const count = Math.max(1, images);
  return [Math.min(MAX_STEPS, BAND[0] * count), Math.min(MAX_STEPS, BAND[1] * count)];
}

/** Return the text with the characters that a name may have. */
export function fitName(text: string, most = 100): string {
  return text
    .normalize('NFKD')
    .replace(/[^a-zA-Z0-9_-]+/g, '-')
    .replace(/-{2,}/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, most);
}

/** Return the name for a subject: `dog-sks1`. */
export function nameFor(subjectClass: string, triggerWord: string): string {
  return fitName([subjectClass, triggerWord].filter((part) => part.trim()).join('-'));
}

/** Return the class in a name that was made of class and trigger word, or an empty text. */
export function subjectOf(name: string, word: string): string {
  const end = `-${fitName(word)}`;
  const found = name.replace(/-\d+$/, '');
  return found.endsWith(end) ? found.slice(0, -end.length) : '';
}

export function samplePrompts(triggerWord: string, subjectClass: string): string[] {
  const subject = [triggerWord.trim(), subjectClass.trim()].filter(Boolean).join(' ');
  return subject ? [`a photo of a ${subject} on a beach`, `a photo of a ${subject} in the snow`] : [];
}
