import { expect, test } from 'vitest';
import { assetName, kohyaFolder, markOf, sortFiles } from './files';

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
