/** What the API answers, as far as the pages read it. `/openapi.json` describes it whole. */

export interface Login {
  account: { id: string; name: string };
  key: { id: string; name: string; hint: string; expires_at: string | null };
  scopes: string[];
}

export interface Part {
  name: string;
  task: string;
  ready: boolean;
  problem: string;
}

export interface System {
  public_url: string;
  terms_url: string | null;
  parts: Part[];
}

export type Status = 'pending' | 'running' | 'succeeded' | 'failed' | 'cancelled';
export type Phase = 'files' | 'queue' | 'loading' | 'training' | 'saving' | 'ended';

export interface Progress {
  step: number;
  steps: number;
  loss: number | null;
  steps_per_second: number | null;
  eta_seconds: number | null;
}

export interface Queue {
  reason: 'files' | 'ahead' | 'no_trainer';
  ahead: number;
  files_unchecked: number;
}

export interface Finding {
  code: string;
  message: string;
  file_id: string | null;
}

export interface TuneDetails {
  base_checkpoint: { checkpoint_id: string; engine: string; name: string };
  files: { file_id: string; caption: string; regularization?: boolean }[];
  steps: number;
  seed: number;
  trigger_words: string[];
  resize_images: boolean;
  validation_prompts: string[] | null;
  rank: number | null;
  alpha: number | null;
  learning_rate: number | null;
  optimizer: string | null;
  batch_size: number | null;
  resolution: number | null;
  prior: string | null;
  clip_skip: number | null;
  train_text_encoder: boolean | null;
  text_encoder_learning_rate: number | null;
  checkpoint_every_steps: number | null;
}

export interface Tune {
  id: string;
  name: string;
  description: string;
  details: TuneDetails;
  status: Status;
  status_details: string;
  output_lora_ids: string[];
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
  progress: Progress | null;
  warnings: Finding[];
  webhook: string | null;
  sequence: number;
  phase: Phase;
  error_code: string | null;
  queue: Queue | null;
  attempt: number;
  max_attempts: number;
  dataset_id: string | null;
  thumbnail_urls: string[];
}

export interface Page<T> {
  data: T[];
  has_more: boolean;
  total: number;
}

export interface TuneEvent {
  sequence: number;
  type: string;
  data: Record<string, unknown>;
  occurred_at: string;
}

export interface Sample {
  step: number;
  number: number;
  prompt: string;
  seed: number;
  url: string;
}

export interface Losses {
  first_step: number;
  losses: (number | null)[];
  resumed_at: number[];
  sequence: number;
}

export interface DatasetFile {
  file_id: string;
  file_name: string;
  caption: string;
}

export interface DatasetBody {
  name: string;
  trigger_word: string;
  subject_class: string;
  files: DatasetFile[];
  settings: Record<string, unknown>;
}

export interface Dataset extends DatasetBody {
  id: string;
  version: number;
  created_at: string;
  updated_at: string;
  tunes: { id: string; name: string; status: Status }[];
}

export interface Asset {
  id: string;
  asset_type: string;
  name: string;
  description: string;
  size_bytes: number;
  status: 'ready_to_upload' | 'uploaded' | 'ready' | 'rejected' | 'error';
  status_details: string;
  created_at: string;
  data: Record<string, unknown> & { preview_url?: string | null; engine?: string; alias_of?: string };
  is_public: boolean;
}

export interface Transfer {
  type: string;
  put_url?: string;
  get_url?: string;
}

export interface WhatIf {
  lint: Finding[];
  estimate: Record<string, unknown>;
}
