// The loop of the Node drivers: each line in is a verb as JSON, each line out what the SDK returned or raised.
"use strict";
const readline = require("node:readline");

function kindsOf(error) {
  const kinds = [];
  for (let kind = error.constructor; kind && kind.name; kind = Object.getPrototypeOf(kind)) kinds.push(kind.name);
  return kinds;
}

exports.serve = async (verbs, version) => {
  const send = (message) => process.stdout.write(JSON.stringify(message) + "\n");
  send({ version, offers: Object.keys(verbs).sort() });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { verb, args } = JSON.parse(line);
    try {
      send({ value: (await verbs[verb](args)) ?? null });
    } catch (error) {
      send({ error: { kinds: kindsOf(error), status: error.statusCode ?? null, text: String(error.message) } });
    }
  }
};
