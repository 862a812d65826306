// Drives @octoai/sdk 1.11 as its users did. Only the line with `environment` points it at another server.
"use strict";
const fs = require("node:fs");
const { createRequire } = require("node:module");
const { serve } = require("./serve.js");

const fromSdk = createRequire(process.argv[2] + "/package.json");
const { OctoAIClient } = fromSdk("@octoai/sdk");

const BASE = process.env.SERVER;
const client = new OctoAIClient({
  environment: { default: BASE, imageGen: BASE, textGen: BASE },
  apiKey: process.env.OCTOAI_TOKEN,
});

// The SDK's fields are in camel case, the tests' in the API's snake case.
const camel = (value) => convert(value, (key) => key.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase()));
const snake = (value) => convert(value, (key) => key.replace(/[A-Z]/g, (letter) => "_" + letter.toLowerCase()));
function convert(value, rename) {
  if (Array.isArray(value)) return value.map((item) => convert(item, rename));
  if (value instanceof Date) return value.toISOString();
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [rename(key), convert(item, rename)]));
}

const describe = ({ path, name, description }) => ({
  assetType: "file",
  name,
  description,
  data: { assetType: "file", fileFormat: path.split(".").pop() },
});

// The SDK's own upload always uses credentials for S3.
const uploadAndWait = async (request) => {
  const { asset } = await client.assetLibrary.upload(request.path, describe(request));
  return snake((await client.assetLibrary.get(asset.id)).asset);
};

serve(
  {
    upload: async (request) => {
      const { asset, transferApi } = await client.assetLibrary.create({
        ...describe(request),
        transferApiType: "presigned-url",
      });
      const put = await fetch(transferApi.putUrl, { method: "PUT", body: fs.readFileSync(request.path) });
      if (!put.ok) throw new Error(`PUT: ${put.status}`);
      await client.assetLibrary.completeUpload(asset.id);
      return snake((await client.assetLibrary.get(asset.id)).asset);
    },
    upload_by_sts: uploadAndWait,
    upload_and_wait: uploadAndWait,
    upload_from_url: async ({ url, name }) => {
      const data = { assetType: "file", fileFormat: "png" };
      const { asset } = await client.assetLibrary.create({ assetType: "file", name, data, url });
      return snake((await client.assetLibrary.get(asset.id)).asset);
    },
    asset: async ({ key }) => snake((await client.assetLibrary.get(key)).asset),
    assets: async (filters) => snake(await client.assetLibrary.list(camel(filters))),
    assets_by_type: async (filters) => snake(await client.assetLibrary.list(camel(filters))),
    assets_by_format: async (filters) => snake(await client.assetLibrary.list(camel(filters))),
    delete_asset: async ({ asset_id }) => snake(await client.assetLibrary.delete(asset_id)),
    create_tune: async ({ name, base, files, trigger_word, steps }) =>
      snake(
        await client.fineTuning.create({
          name,
          details: {
            tuneType: "lora_tune",
            baseCheckpoint: { checkpointId: base },
            files: Object.entries(files).map(([fileId, caption]) => ({ fileId, caption })),
            triggerWords: [trigger_word],
            steps,
          },
        }),
      ),
    tune: async ({ tune_id }) => snake(await client.fineTuning.get(tune_id)),
    tunes: async ({ base_checkpoint, ...filters }) =>
      snake(await client.fineTuning.list({ ...camel(filters), baseCheckpointId: base_checkpoint })),
    cancel_tune: async ({ tune_id }) => snake(await client.fineTuning.cancel(tune_id)),
    delete_tune: async ({ tune_id }) => snake(await client.fineTuning.delete(tune_id)),
    generate: async ({ engine, loras, ...request }) => {
      const method = "generate" + engine[0].toUpperCase() + engine.slice(1);
      const made = await client.imageGen[method]({ ...camel(request), loras }, { timeoutInSeconds: 300 });
      return {
        images: made.images.filter((image) => !image.removedForSafety).map((image) => image.imageB64),
        removed_for_safety: made.images.filter((image) => image.removedForSafety).length,
        seeds: made.images.map((image) => image.seed),
      };
    },
  },
  fromSdk("@octoai/sdk/package.json").version,
);
