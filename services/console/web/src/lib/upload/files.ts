/** What dropped or chosen files are: images, captions, and kohya's folders. */

import { fitName } from '../tune/rules';

export interface Found {
  images: File[];
  /** The caption of each image that has one, by the image's path without its ending. */
  captions: Map<string, string>;
  triggerWord: string;
  subjectClass: string;
  ignored: string[];
}

const IMAGE = /\.(jpe?g|png|webp|avif|bmp|gif|heic|heif|tiff?)$/i;
const CAPTION = /\.(txt|caption)$/i;

export function pathOf(file: File): string {
  return file.webkitRelativePath || file.name;
}

export function stemOf(path: string): string {
  return path.replace(/\.[^./]+$/, '');
}

/** Return trigger word and class of a folder in kohya's form, `10_sks1 dog`. */
export function kohyaFolder(path: string): { triggerWord: string; subjectClass: string } | null {
  for (const folder of path.split('/').slice(0, -1)) {
    const found = /^\d{1,3}_(\S*[a-z]\S*)(?: (.+))?$/i.exec(folder);
    if (found?.[1]) return { triggerWord: found[1], subjectClass: (found[2] ?? '').trim() };
  }
  return null;
}

/** Return the text of a caption file: UTF-8, UTF-16 with or without a mark, or Windows-1252, as editors on Windows write it. */
export function textOf(data: ArrayBuffer): string {
  const bytes = new Uint8Array(data);
  const zeros = [0, 1].map((start) => bytes.filter((byte, at) => at % 2 === start && byte === 0).length);
  const isMarked = (first: number, second: number) => bytes[0] === first && bytes[1] === second;
  // In text of plain letters every second byte of UTF-16 is zero.
  const isMost = (count = 0, others = 0) => count > bytes.length / 4 && !others;
  if (isMarked(0xff, 0xfe) || isMost(zeros[1], zeros[0])) return new TextDecoder('utf-16le').decode(data);
  if (isMarked(0xfe, 0xff) || isMost(zeros[0], zeros[1])) return new TextDecoder('utf-16be').decode(data);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(data);
  } catch {
    return new TextDecoder('windows-1252').decode(data);
  }
}

/** Sort files into images and captions. */
export async function sortFiles(files: readonly File[]): Promise<Found> {
  const found: Found = { images: [], captions: new Map(), triggerWord: '', subjectClass: '', ignored: [] };
  for (const file of files) {
    const path = pathOf(file);
    if (/(^|\/)(\.|__MACOSX\/)/.test(path)) continue;
    if (CAPTION.test(path)) {
      found.captions.set(stemOf(path), textOf(await file.arrayBuffer()).trim());
    } else if (IMAGE.test(path) || file.type.startsWith('image/')) {
      found.images.push(file);
      const folder = kohyaFolder(path);
      if (folder && !found.triggerWord) Object.assign(found, folder);
    } else {
      found.ignored.push(path);
    }
  }
  found.images.sort((a, b) => pathOf(a).localeCompare(pathOf(b), 'en', { numeric: true }));
  return found;
}

/** Return the name of an image in the library: its file's name made fit, and a mark of its content. */
export function assetName(fileName: string, mark: string): string {
  return `${fitName(stemOf(fileName), 60) || 'image'}-${mark}`;
}

/** Return 8 hex digits of the content's SHA-256; random ones on plain HTTP, where browsers have no `crypto.subtle`. */
export async function markOf(content: Blob): Promise<string> {
  const subtle = (crypto as Partial<Crypto>).subtle;
  const bytes = subtle
    ? new Uint8Array(await subtle.digest('SHA-256', await content.arrayBuffer())).slice(0, 4)
    : crypto.getRandomValues(new Uint8Array(4));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Return every file of a drop, folders included. */
export async function droppedFiles(transfer: DataTransfer): Promise<File[]> {
  // The entries have to be taken before the first await: the browser empties the list then.
  const entries = Array.from(transfer.items, (item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  if (!entries.length) return Array.from(transfer.files);
  const files: File[] = [];
  for (const entry of entries) await walk(entry, files);
  return files;
}

async function walk(entry: FileSystemEntry, files: File[]): Promise<void> {
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    Object.defineProperty(file, 'webkitRelativePath', { value: entry.fullPath.replace(/^\//, '') });
    files.push(file);
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    // A read returns at most 100 entries, and none at the end.
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const one of some) await walk(one, files);
  }
}
