// Drives @octoai/client 0.5 as its users did. Only the lines with BASE point it at another server.
"use strict";
const { createRequire } = require("node:module");
const { serve } = require("./serve.js");

const fromSdk = createRequire(process.argv[2] + "/package.json");
const { AssetLibrary, Client, FineTuningClient, LIB_VERSION } = fromSdk("@octoai/client");

const BASE = process.env.SERVER;
const client = new Client(process.env.OCTOAI_TOKEN);
client.asset = new AssetLibrary(client, BASE + "/v1/assets");
client.tune = new FineTuningClient(client, BASE + "/v1");

const shown = ({ images }) => ({
  images: images.filter((image) => !image.removed_for_safety).map((image) => image.image_b64),
  removed_for_safety: images.filter((image) => image.removed_for_safety).length,
  seeds: images.map((image) => image.seed),
});

const upload = ({ path, ...request }) =>
  client.asset.create({
    file: path,
    asset_type: "file",
    data: { asset_type: "file", file_format: path.split(".").pop() },
    ...request,
  });

serve(
  {
    upload,
    upload_by_sts: (request) => upload({ ...request, transfer_api_type: "sts" }),
    upload_and_wait: async (request) => client.asset.waitForReady(await upload(request), { pollIntervalMs: 500 }),
    upload_from_url: async ({ url, name }) => {
      const data = { asset_type: "file", file_format: "png" };
      const asset = await client.asset.create({ url, asset_type: "file", data, name });
      return client.asset.waitForReady(asset, { pollIntervalMs: 500 });
    },
    asset: ({ key }) => client.asset.get(key.startsWith("asset_") ? { id: key } : { name: key }),
    assets: (filters) => client.asset.list(filters),
    assets_by_type: (filters) => client.asset.list(filters),
    assets_by_format: (filters) => client.asset.list(filters),
    delete_asset: ({ asset_id }) => client.asset.delete(asset_id),
    create_tune: ({ name, base, files, trigger_word, steps }) =>
      client.tune.create({
        name,
        details: {
          base_checkpoint: { checkpoint_id: base },
          files: Object.entries(files).map(([file_id, caption]) => ({ file_id, caption })),
          trigger_words: [trigger_word],
          steps,
        },
      }),
    tune: ({ tune_id }) => client.tune.get(tune_id),
    tunes: (filters) => client.tune.list(filters),
    cancel_tune: ({ tune_id }) => client.tune.cancel(tune_id),
    delete_tune: ({ tune_id }) => client.tune.delete(tune_id),
    generate: async ({ engine, ...request }) => shown(await client.infer(`${BASE}/generate/${engine}`, request)),
    start: ({ engine, ...request }) => client.inferAsync(`${BASE}/generate/${engine}`, request),
    is_ready: ({ future }) => client.isFutureReady(future),
    fetch: async ({ future }) => shown(await client.getFutureResult(future)),
  },
  LIB_VERSION,
);
