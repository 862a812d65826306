/** Edits of many captions at once. Each returns the new captions; the caller shows what changes, and applies it. */

export type Edit = (caption: string) => string;

export function hasWord(caption: string, word: string): boolean {
  return !word.trim() || caption.toLowerCase().includes(word.trim().toLowerCase());
}

/** Put trigger word and class at the start where the trigger word is missing. */
export function insertWord(word: string, subjectClass: string): Edit {
  const subject = [word.trim(), subjectClass.trim()].filter(Boolean).join(' ');
  return (caption) => {
    // A caption may be left empty: the server uses the trigger word alone for it.
    if (!word.trim() || hasWord(caption, word)) return caption;
    const rest = caption.trim();
    return rest ? `${subject}, ${rest}` : subject;
  };
}

/** Fill a template; `{rest}` is the caption as it stands. */
export function fill(template: string, word: string, subjectClass: string): Edit {
  return (caption) =>
    template
      .replaceAll('{trigger}', word.trim())
      .replaceAll('{class}', subjectClass.trim())
      .replaceAll('{rest}', caption.trim())
      .replace(/\s+/g, ' ')
      .replace(/[\s,]+$/, '')
      .trim();
}

/** Replace a text, or what a regular expression finds. Throws SyntaxError for a wrong expression. */
export function replace(find: string, by: string, isExpression: boolean): Edit {
  if (!find) return (caption) => caption;
  if (!isExpression) return (caption) => caption.replaceAll(find, by);
  const expression = new RegExp(find, 'gu');
  return (caption) => caption.replace(expression, by);
}

export function append(text: string): Edit {
  const added = text.trim();
  return (caption) => (added ? [caption.trim(), added].filter(Boolean).join(', ') : caption);
}

export const clear: Edit = () => '';
