/** An image of the dataset that is being made, and how far its upload is. */

import type { Asset, DatasetFile } from '../api/types';
import { bytes } from '../format';

export type ItemState = 'waiting' | 'preparing' | 'sending' | 'checking' | 'ready' | 'rejected' | 'failed';

let lastKey = 0;

export class Item {
  readonly key = (lastKey += 1);
  fileName: string;
  file: File | null;
  fileId = $state<string | null>(null);
  caption = $state('');
  state = $state<ItemState>('waiting');
  share = $state(0);
  problem = $state('');
  note = $state('');
  thumbnail = $state<string | null>(null);
  size = $state('');

  constructor(fileName: string, caption: string, file: File | null) {
    this.fileName = fileName;
    this.caption = caption;
    this.file = file;
  }

  /** Return an image that was kept on the server; `learn` tells how its asset is. */
  static kept(file: DatasetFile): Item {
    const item = new Item(file.file_name, file.caption, null);
    item.fileId = file.file_id;
    item.state = 'checking';
    return item;
  }

  get isSent(): boolean {
    return this.fileId !== null && (this.state === 'checking' || this.state === 'ready' || this.state === 'rejected');
  }

  get isOnTheWay(): boolean {
    return this.state === 'waiting' || this.state === 'preparing' || this.state === 'sending';
  }

  get words(): string {
    switch (this.state) {
      case 'waiting':
        return 'waiting';
      case 'preparing':
        return 'being prepared';
      case 'sending':
        return `sending, ${Math.round(this.share * 100)} %`;
      case 'checking':
        return 'being checked';
      case 'ready':
        return this.size;
      case 'rejected':
      case 'failed':
        return this.problem;
    }
  }

  /** Take over what the library says of the asset; undefined where it has none any more. */
  learn(asset: Asset | undefined): void {
    if (!asset) {
      this.state = 'rejected';
      this.problem = 'The image was deleted from the library. Remove it here.';
      return;
    }
    this.fileName ||= asset.name;
    if (asset.data.preview_url) this.thumbnail ??= asset.data.preview_url;
    if (asset.status === 'ready') {
      this.state = 'ready';
      const { width, height } = asset.data as { width?: number; height?: number };
      this.size = [width && height ? `${width} × ${height}` : '', bytes(asset.size_bytes)].filter(Boolean).join(', ');
    } else if (asset.status === 'uploaded') {
      this.state = 'checking';
    } else {
      this.state = 'rejected';
      this.problem = asset.status_details || 'The upload was never completed. Remove it, and add the file again.';
    }
  }

  kept(): DatasetFile {
    return { file_id: this.fileId ?? '', file_name: this.fileName.slice(0, 200), caption: this.caption };
  }
}
