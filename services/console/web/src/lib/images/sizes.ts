/** The sizes that are offered as shapes: one for each aspect, near the size that the engine was made for. */

export interface Size {
  width: number;
  height: number;
}

const MOST = 5;

/** Return up to five sizes from upright to wide, each close to the recommended area. */
export function shapes(sizes: readonly Size[], recommended: Size): Size[] {
  const area = recommended.width * recommended.height;
  const near = (size: Size) => Math.abs(Math.log((size.width * size.height) / area));
  const best = new Map<string, Size>();
  for (const size of [...sizes].sort((a, b) => near(a) - near(b))) {
    const aspect = (size.width / size.height).toFixed(1);
    if (!best.has(aspect) && near(size) < 0.7) best.set(aspect, size);
  }
  const square = best.get('1.0');
  const others = [...best.values()].filter((size) => size !== square).sort((a, b) => near(a) - near(b));
  const upright = others.filter((size) => size.width < size.height).slice(0, (MOST - 1) / 2);
  const wide = others.filter((size) => size.width > size.height).slice(0, (MOST - 1) / 2);
  return [...upright, ...(square ? [square] : []), ...wide].sort((a, b) => a.width / a.height - b.width / b.height);
}
