// Teaches a subject with OctoAI's SDK, and draws it with fetch and the types of the API.
//
//   npm install @octoai/sdk@1.11.0 openapi-typescript@7 typescript @types/node
//   npx openapi-typescript $TUNESMITH_URL/openapi.json --default-non-nullable false -o tunesmith.d.ts
//   node tune.ts photos/*.png
import { readFileSync, writeFileSync } from "node:fs";
import { basename, extname } from "node:path";
import { OctoAIClient } from "@octoai/sdk";
import type { components } from "./tunesmith.d.ts";

type GenerateRequest = components["schemas"]["GenerateRequest"];
type GenerateAnswer = components["schemas"]["GenerateAnswer"];

const BASE = process.env.TUNESMITH_URL!;
const apiKey = process.env.OCTOAI_TOKEN!;
const steps = Number(process.env.STEPS ?? "500");
const photos = process.argv.slice(2);
const client = new OctoAIClient({ environment: { default: BASE, imageGen: BASE, textGen: BASE }, apiKey });

async function upload(path: string): Promise<string> {
  const name = basename(path, extname(path));
  const data = { assetType: "file" as const, fileFormat: "png" as const };
  const { asset, transferApi } = await client.assetLibrary.create({
    assetType: "file",
    name,
    data,
    transferApiType: "presigned-url",
  });
  if (transferApi.type !== "presigned-url") throw new Error(`no address to upload ${path} to`);
  const put = await fetch(transferApi.putUrl, { method: "PUT", body: readFileSync(path) });
  if (!put.ok) throw new Error(`${path}: the store answers ${put.status}`);
  await client.assetLibrary.completeUpload(asset.id);
  return asset.id;
}

const base = (await client.assetLibrary.get("octoai:default-sd15")).asset.id;
const files = await Promise.all(photos.map(async (path) => ({ fileId: await upload(path), caption: "a photo of a sks1 star" })));
let tune = await client.fineTuning.create({
  name: "my-star-ts",
  details: { tuneType: "lora_tune", baseCheckpoint: { checkpointId: base }, files, triggerWords: ["sks1"], steps },
});
while (!["succeeded", "failed", "cancelled"].includes(tune.status)) {
  await new Promise((resolve) => setTimeout(resolve, 1000));
  tune = await client.fineTuning.get(tune.id);
}
if (tune.status !== "succeeded") throw new Error(`the tune ${tune.status}`);

// The SDK has no Stable Diffusion 1.5 any more. A repeated request with the same key does nothing twice.
const request: GenerateRequest = { prompt: "a sks1 star in the snow", loras: { [tune.name]: 0.9 }, seed: 1, image_encoding: "png" };
const answer = await fetch(`${BASE}/generate/sd`, {
  method: "POST",
  headers: { Authorization: `Bearer ${apiKey}`, "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID() },
  body: JSON.stringify(request),
});
if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
const { images } = (await answer.json()) as GenerateAnswer;
writeFileSync("star.png", Buffer.from(images[0].image_b64 ?? "", "base64"));
console.log(`star.png, seed ${images[0].seed}`);
