/** The image to start from: read, scaled and encoded in the browser. */

import type { Start } from './kept';

/** More pixels than the largest size that an engine draws gain nothing. */
const MAX_PIXELS = 2_400_000;
const QUALITY = 0.95;

/** Return the image, scaled down where it is larger than anything that is drawn. Throws an Error with a text for the page. */
export async function startFrom(file: Blob): Promise<Start> {
  let image: ImageBitmap;
  try {
    image = await createImageBitmap(file, { imageOrientation: 'from-image' });
  } catch {
    throw new Error('This file cannot be read as an image. Choose a JPEG, a PNG or a WebP.');
  }
  try {
    const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (image.width * image.height)));
    const size = { width: Math.round(image.width * scale), height: Math.round(image.height * scale) };
    if (scale === 1 && (file.type === 'image/png' || file.type === 'image/jpeg')) return { content: file, ...size, strokes: [] };
    const canvas = Object.assign(document.createElement('canvas'), size);
    const context = canvas.getContext('2d');
    if (!context) throw new Error('This browser cannot draw the image. Try another browser.');
    context.fillStyle = '#fff';
    context.fillRect(0, 0, size.width, size.height);
    context.imageSmoothingQuality = 'high';
    context.drawImage(image, 0, 0, size.width, size.height);
    const content = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, 'image/jpeg', QUALITY));
    if (!content) throw new Error('The image cannot be converted. Choose another one.');
    return { content, ...size, strokes: [] };
  } finally {
    image.close();
  }
}

/** Return bytes in base64. */
export async function base64Of(content: Blob): Promise<string> {
  const reader = new FileReader();
  return new Promise((resolve, reject) => {
    reader.onload = () => resolve((reader.result as string).split(',')[1] ?? '');
    reader.onerror = () => reject(new Error('The image cannot be read any more. Choose it again.'));
    reader.readAsDataURL(content);
  });
}

/** Return the image behind a URL of the store. */
export async function fetched(url: string): Promise<Blob> {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error('The image is not kept any more. Choose another one.');
  return answer.blob();
}
