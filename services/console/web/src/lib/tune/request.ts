/** The request for a tune, from the form as it stands. */

import type { DatasetFile } from '../api/types';

/** The settings of New tune, as they are kept with the dataset. A field that is left out has the server's default. */
export interface TuneSettings {
  base: string;
  steps: number | null;
  prompts: string[] | null;
  description?: string;
  seed?: number;
  rank?: number;
  alpha?: number;
  learning_rate?: number;
  optimizer?: string;
  batch_size?: number;
  resolution?: number;
  train_text_encoder?: boolean;
  text_encoder_learning_rate?: number;
  prior?: string;
  clip_skip?: number;
  checkpoint_every_steps?: number;
  resize_images?: boolean;
  continue_on_rejection?: boolean;
  webhook?: string;
}

export const OPTIONS = [
  'seed',
  'rank',
  'alpha',
  'learning_rate',
  'optimizer',
  'batch_size',
  'resolution',
  'train_text_encoder',
  'text_encoder_learning_rate',
  'prior',
  'clip_skip',
  'checkpoint_every_steps',
  'resize_images'
] as const;

export interface TuneForm {
  name: string;
  triggerWord: string;
  steps: number;
  prompts: string[];
  files: DatasetFile[];
  settings: TuneSettings;
  datasetId: string | null;
}

export function requestOf(form: TuneForm): Record<string, unknown> {
  const { settings } = form;
  const details: Record<string, unknown> = {
    base_checkpoint: { checkpoint_id: settings.base },
    files: form.files.map((file) => (file.caption.trim() ? { file_id: file.file_id, caption: file.caption.trim() } : { file_id: file.file_id })),
    steps: form.steps,
    trigger_words: [form.triggerWord.trim()]
  };
  const prompts = form.prompts.map((prompt) => prompt.trim()).filter(Boolean);
  if (prompts.length) details.validation_prompts = prompts;
  for (const option of OPTIONS) if (settings[option] !== undefined) details[option] = settings[option];
  const request: Record<string, unknown> = { name: form.name, details };
  if (settings.description?.trim()) request.description = settings.description.trim();
  if (settings.continue_on_rejection) request.continue_on_rejection = true;
  if (settings.webhook?.trim()) request.webhook = settings.webhook.trim();
  if (form.datasetId) request.dataset_id = form.datasetId;
  return request;
}
