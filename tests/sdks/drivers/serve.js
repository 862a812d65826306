// The loop of the Node drivers: a verb a line comes in as JSON, what the SDK gave or raised goes out.
"use strict";
const readline = require("node:readline");

function kindsOf(error) {
  const kinds = [];
  for (let kind = error.constructor; kind && kind.name; kind = Object.getPrototypeOf(kind)) kinds.push(kind.name);
  return kinds;
}

exports.serve = async (verbs, version) => {
  const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
  say({ version, offers: Object.keys(verbs).sort() });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { verb, args } = JSON.parse(line);
    try {
      say({ value: (await verbs[verb](args)) ?? null });
    } catch (error) {
      say({ error: { kinds: kindsOf(error), status: error.statusCode ?? null, text: String(error.message) } });
    }
  }
};
