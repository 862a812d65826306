/** Assets of the library: sending one, and finding those that exist. */

import { call } from '../api/client';
import { ApiError } from '../api/errors';
import type { Asset, Page, Transfer } from '../api/types';
import { assetName, markOf } from './files';
import type { Prepared } from './prepare';

interface Made {
  asset: Asset;
  transfer_api: Transfer;
}

const TRIES = 3;

/** Send an image and return its asset, which the server has still to check. The same file is found and used again. */
export async function send(fileName: string, image: Prepared, onProgress: (share: number) => void): Promise<Asset> {
  const name = assetName(fileName, await markOf(image.content));
  let made = await createOrFind(name, image.format);
  if (made.asset.status === 'rejected' || made.asset.status === 'error') {
    await call('DELETE', `/v1/assets/${made.asset.id}`);
    made = await createOrFind(name, image.format);
  }
  if (made.asset.status !== 'ready_to_upload') return made.asset;
  for (let tries = 1; ; tries += 1) {
    try {
      await put(made.transfer_api.put_url ?? '', image.content, onProgress);
      await call('POST', `/v1/assets/${made.asset.id}/complete-upload`, { body: { token: '' } });
      return { ...made.asset, status: 'uploaded' };
    } catch (error) {
      if (tries === TRIES) throw error;
      // The URL may have expired, so each try gets a fresh one.
      made = await call<Made>('GET', `/v1/assets/${made.asset.id}`);
      if (made.asset.status !== 'ready_to_upload') return made.asset;
    }
  }
}

async function createOrFind(name: string, format: 'jpg' | 'png'): Promise<Made> {
  const body = { name, asset_type: 'file', data: { asset_type: 'file', file_format: format } };
  try {
    return await call<Made>('POST', '/v1/assets', { body });
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== 'name_taken') throw error;
    return call<Made>('GET', `/v1/assets/${name}`);
  }
}

/** Send bytes to a presigned URL. `fetch` reports no progress of what it sends. */
function put(url: string, content: Blob, onProgress: (share: number) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open('PUT', url);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    const refused = () => {
      const cause = request.status ? `The store answered ${request.status}` : 'The connection was lost';
      reject(new ApiError(request.status, 'upload_failed', `${cause}. Try again.`));
    };
    request.onload = () => (request.status < 300 ? resolve() : refused());
    request.onerror = refused;
    request.send(content);
  });
}

const PAGE = 100;

/** Return the assets with these ids; one that was deleted is left out. */
export async function assets(ids: readonly string[], withPreview = false): Promise<Asset[]> {
  const found: Asset[] = [];
  for (let at = 0; at < ids.length; at += PAGE) {
    const query = { asset_ids: ids.slice(at, at + PAGE).join(','), get_preview_urls: withPreview, limit: PAGE };
    found.push(...(await call<Page<Asset>>('GET', '/v1/assets', { query })).data);
  }
  return found;
}

const TUNABLE = ['image/stable-diffusion-v1-5', 'image/stable-diffusion-xl-v1-0'];

export interface Base {
  /** What a request names it by: `octoai:NAME`, or its asset's id. */
  id: string;
  assetId: string;
  label: string;
  engine: string;
  aliasOf: string | null;
}

/** Return the checkpoints that can be tuned: public ones first, with the defaults before the others. */
export async function bases(): Promise<Base[]> {
  const query = { asset_type: 'checkpoint', limit: PAGE };
  const [open, own] = await Promise.all([
    call<Page<Asset>>('GET', '/v1/assets', { query: { ...query, owner: 'octoai', is_public: true } }),
    call<Page<Asset>>('GET', '/v1/assets', { query })
  ]);
  const baseOf = (asset: Asset, id: string): Base => ({
    id,
    assetId: asset.id,
    label: asset.name,
    engine: asset.data.engine ?? '',
    aliasOf: asset.data.alias_of ?? null
  });
  const found = [
    ...open.data.map((asset) => ({ asset, base: baseOf(asset, `octoai:${asset.name}`) })),
    ...own.data.filter((asset) => !asset.is_public).map((asset) => ({ asset, base: baseOf(asset, asset.id) }))
  ];
  return found
    .filter(({ asset, base }) => asset.status === 'ready' && TUNABLE.includes(base.engine))
    .map(({ base }) => base)
    .sort((a, b) => Number(isDefault(b)) - Number(isDefault(a)) || a.label.localeCompare(b.label));
}

function isDefault(base: Base): boolean {
  return base.id.startsWith('octoai:default-');
}
