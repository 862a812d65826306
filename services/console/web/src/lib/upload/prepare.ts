/** Makes an image fit for the server: JPEG or PNG, upright, within its limits. */

export interface Prepared {
  content: Blob;
  format: 'jpg' | 'png';
  width: number;
  height: number;
  /** A copy of 320 px for the tile: the full image is never shown small. */
  thumbnail: string;
  /** What was changed, in words; empty where the file is sent as it is. */
  note: string;
}

const MAX_PIXELS = 16_000_000;
const MAX_BYTES = 32 * 1024 * 1024;
const THUMBNAIL_PX = 320;
const QUALITY = 0.95;

/** Return what is to be sent of a file. Throws an Error with a text for the tile. */
export async function prepare(file: File): Promise<Prepared> {
  let image: ImageBitmap;
  try {
    image = await createImageBitmap(file, { imageOrientation: 'from-image' });
  } catch {
    const isHeic = /\.hei[cf]$/i.test(file.name);
    throw new Error(
      isHeic ? 'This browser cannot read HEIC. Save it as JPEG, and add that.' : 'This file cannot be read as an image. Replace it.'
    );
  }
  try {
    const thumbnail = await thumbnailOf(image);
    const { width, height } = image;
    const isKnown = file.type === 'image/jpeg' || file.type === 'image/png';
    const isTooLarge = width * height > MAX_PIXELS;
    if (isKnown && !isTooLarge && file.size <= MAX_BYTES) {
      return { content: file, format: file.type === 'image/png' ? 'png' : 'jpg', width, height, thumbnail, note: '' };
    }
    const scale = Math.min(1, Math.sqrt(MAX_PIXELS / (width * height)));
    const size = { width: Math.floor(width * scale), height: Math.floor(height * scale) };
    const content = await drawn(image, size.width, size.height, 'image/jpeg');
    const notes = [isKnown ? '' : 'converted to JPEG', isTooLarge ? `scaled to ${size.width} × ${size.height}` : ''];
    return { content, format: 'jpg', ...size, thumbnail, note: notes.filter(Boolean).join(', ') || 'saved as a smaller JPEG' };
  } finally {
    image.close();
  }
}

async function thumbnailOf(image: ImageBitmap): Promise<string> {
  const scale = Math.min(1, THUMBNAIL_PX / Math.min(image.width, image.height));
  const small = await drawn(image, Math.ceil(image.width * scale), Math.ceil(image.height * scale), 'image/jpeg', 0.85);
  return URL.createObjectURL(small);
}

async function drawn(image: ImageBitmap, width: number, height: number, type: string, quality = QUALITY): Promise<Blob> {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d');
  if (!context) throw new Error('This browser cannot draw the image. Try another browser.');
  // JPEG has no transparency.
  context.fillStyle = '#fff';
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = 'high';
  context.drawImage(image, 0, 0, width, height);
  return new Promise((resolve, reject) =>
    canvas.toBlob((made) => (made ? resolve(made) : reject(new Error('The image cannot be converted. Replace it.'))), type, quality)
  );
}
