/** The same request as code, with the key as a variable. */

export type Language = 'curl' | 'Python' | 'TypeScript';
export const LANGUAGES: Language[] = ['curl', 'Python', 'TypeScript'];

export function sample(language: Language, origin: string, method: string, path: string, body?: unknown): string {
  const json = body === undefined ? null : JSON.stringify(body, null, 2);
  if (language === 'curl') {
    const lines = [`curl -X ${method} ${origin}${path}`, '-H "Authorization: Bearer $OCTOAI_TOKEN"'];
    if (json) lines.push("-H 'Content-Type: application/json'", `-d '${json.replaceAll("'", `'\\''`)}'`);
    return lines.join(' \\\n  ');
  }
  if (language === 'Python') {
    const lines = ['import os', '', 'import httpx', '', `answer = httpx.${method.toLowerCase()}(`, `    "${origin}${path}",`];
    lines.push(`    headers={"Authorization": f"Bearer {os.environ['OCTOAI_TOKEN']}"},`);
    if (body !== undefined) lines.push(`    json=${python(body, 1)},`);
    return [...lines, ')', 'print(answer.raise_for_status().json())'].join('\n');
  }
  const headers = ['    Authorization: `Bearer ${process.env.OCTOAI_TOKEN}`'];
  if (json) headers.push("    'Content-Type': 'application/json'");
  const lines = [`const answer = await fetch('${origin}${path}', {`, `  method: '${method}',`, '  headers: {', headers.join(',\n')];
  lines.push(json ? `  },\n  body: JSON.stringify(${json.replaceAll('\n', '\n  ')})` : '  }');
  return [...lines, '});', 'console.log(await answer.json());'].join('\n');
}

/** Return a value as a Python expression; JSON's `true` and `null` are none. */
function python(value: unknown, depth: number): string {
  const pad = '    '.repeat(depth + 1);
  const end = '    '.repeat(depth);
  if (value === null || value === undefined) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (Array.isArray(value)) {
    return value.length ? `[\n${value.map((one) => `${pad}${python(one, depth + 1)},\n`).join('')}${end}]` : '[]';
  }
  if (typeof value === 'object') {
    const items = Object.entries(value).map(([name, one]) => `${pad}${JSON.stringify(name)}: ${python(one, depth + 1)},\n`);
    return `{\n${items.join('')}${end}}`;
  }
  return JSON.stringify(value);
}
