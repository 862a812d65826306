/** The mask of an inpainting: a list of strokes, so that it can be undone, kept and drawn at any size. */

export interface Stroke {
  kind: 'brush' | 'erase' | 'lasso' | 'rectangle' | 'invert';
  /** The brush's width, as a share of the image's width. */
  size: number;
  /** x and y in turn, as shares of width and height. */
  points: number[];
}

export type Tool = 'brush' | 'erase' | 'lasso';
export const SIZES = { least: 0.005, most: 0.4 };

/** Return the brush's next width; each press changes it by a fifth. */
export function resized(size: number, direction: 1 | -1): number {
  return Math.min(SIZES.most, Math.max(SIZES.least, direction > 0 ? size * 1.2 : size / 1.2));
}

/** Return the stroke for a rectangle in percent, or null where it has no area within the image. */
export function rectangle(left: number, top: number, width: number, height: number): Stroke | null {
  const values = [left, top, width, height].map((value) => value / 100);
  if (!values.every(Number.isFinite)) return null;
  const [x = 0, y = 0, w = 0, h = 0] = values;
  const [from, to] = [Math.max(0, x), Math.min(1, x + w)];
  const [above, below] = [Math.max(0, y), Math.min(1, y + h)];
  if (to <= from || below <= above) return null;
  return { kind: 'rectangle', size: 0, points: [from, above, to - from, below - above] };
}

/** Return whether anything may be painted: an erased stroke counts as nothing. */
export function hasPaint(strokes: readonly Stroke[]): boolean {
  return strokes.some((stroke) => stroke.kind !== 'erase');
}

/** Draw the mask: opaque where it is to be painted, and transparent elsewhere. */
export function draw(context: CanvasRenderingContext2D, strokes: readonly Stroke[], color: string): void {
  const { width, height } = context.canvas;
  context.clearRect(0, 0, width, height);
  context.lineCap = context.lineJoin = 'round';
  for (const stroke of strokes) {
    context.globalCompositeOperation = stroke.kind === 'erase' ? 'destination-out' : 'source-over';
    context.fillStyle = context.strokeStyle = color;
    const points = stroke.points;
    const [x = 0, y = 0, w = 0, h = 0] = points;
    if (stroke.kind === 'invert') {
      // What is opaque becomes transparent, and the rest is filled.
      context.globalCompositeOperation = 'source-out';
      context.fillRect(0, 0, width, height);
    } else if (stroke.kind === 'rectangle') {
      context.fillRect(x * width, y * height, w * width, h * height);
    } else {
      const isLasso = stroke.kind === 'lasso';
      const brush = Math.max(1, stroke.size * width);
      if (!isLasso) {
        // A press without a movement is a dot; a line without a length draws nothing.
        context.beginPath();
        context.arc(x * width, y * height, brush / 2, 0, 2 * Math.PI);
        context.fill();
      }
      context.beginPath();
      context.moveTo(x * width, y * height);
      for (let at = 2; at < points.length; at += 2) context.lineTo((points[at] ?? 0) * width, (points[at + 1] ?? 0) * height);
      context.lineWidth = brush;
      if (isLasso) context.fill();
      else context.stroke();
    }
  }
  context.globalCompositeOperation = 'source-over';
}

/** Return the mask as a PNG in base64: white is painted, black stays. */
export function pngOf(strokes: readonly Stroke[], width: number, height: number): string {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const context = canvas.getContext('2d');
  if (!context) throw new Error('This browser cannot draw the mask. Try another browser.');
  draw(context, strokes, '#fff');
  context.globalCompositeOperation = 'destination-over';
  context.fillStyle = '#000';
  context.fillRect(0, 0, width, height);
  return canvas.toDataURL('image/png').split(',')[1] ?? '';
}
