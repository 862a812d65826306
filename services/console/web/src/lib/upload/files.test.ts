import { expect, test } from 'vitest';
import { assetName, kohyaFolder, markOf, sortFiles, textOf } from './files';

function file(path: string, content = ''): File {
  const made = new File([content], path.split('/').at(-1) ?? '');
  Object.defineProperty(made, 'webkitRelativePath', { value: path });
  return made;
}

test('a folder gives images with their captions, in the order of their numbers', async () => {
  const found = await sortFiles([
    file('dogs/10.jpg'),
    file('dogs/2.PNG'),
    file('dogs/2.txt', ' a dog \n'),
    file('dogs/notes.json'),
    file('dogs/.DS_Store')
  ]);

  expect(found.images.map((image) => image.name)).toEqual(['2.PNG', '10.jpg']);
  expect(found.captions).toEqual(new Map([['dogs/2', 'a dog']]));
  expect(found.ignored).toEqual(['dogs/notes.json']);
});

test('a caption is read in each encoding that editors write, and whole', async () => {
  const text = 'sks1, a caf\u00e9';
  const utf16 = (order: 'le' | 'be') => {
    const view = new DataView(new ArrayBuffer(2 * text.length));
    Array.from(text, (letter, at) => view.setUint16(2 * at, letter.charCodeAt(0), order === 'le'));
    return new Uint8Array(view.buffer);
  };
  const of = (...parts: (number[] | Uint8Array)[]) => new Uint8Array(parts.flatMap((part) => [...part])).buffer;
  const utf8 = new TextEncoder().encode(text);
  const files = {
    'UTF-8': of(utf8),
    'UTF-8 with a mark': of([0xef, 0xbb, 0xbf], utf8),
    'UTF-16': of([0xff, 0xfe], utf16('le')),
    'UTF-16 the other way': of([0xfe, 0xff], utf16('be')),
    'UTF-16 without a mark': of(utf16('le')),
    'Windows-1252': of(Array.from(text, (letter) => letter.charCodeAt(0)))
  };

  for (const [name, data] of Object.entries(files)) expect(textOf(data), name).toBe(text);
  expect((await sortFiles([file('a.txt', 'word '.repeat(400))])).captions.get('a')?.length).toBe(1999);
});

test("a kohya folder's name gives trigger word and class", async () => {
  expect(kohyaFolder('star/10_sks1 dog/a.png')).toEqual({ triggerWord: 'sks1', subjectClass: 'dog' });
  expect(kohyaFolder('10_sks1/a.png')).toEqual({ triggerWord: 'sks1', subjectClass: '' });
  expect(kohyaFolder('2024_08/a.png')).toBeNull();
  expect(kohyaFolder('photos/a.png')).toBeNull();
  expect(await sortFiles([file('10_sks1 dog/a.png')])).toMatchObject({ triggerWord: 'sks1', subjectClass: 'dog' });
});

test('the same content has the same name, and another one does not', async () => {
  const [one, same, other] = await Promise.all([markOf(new Blob(['a'])), markOf(new Blob(['a'])), markOf(new Blob(['b']))]);

  expect(one).toBe(same);
  expect(one).not.toBe(other);
  expect(assetName('Mein Hund (1).jpg', one)).toBe(`Mein-Hund-1-${one}`);
});
