/** One call of a program as people paste it: the key is read from where it belongs and never written down. */

const KEY = "DSPYSERVE_KEY";

export function curl(address, inputs) {
  const body = quoted(JSON.stringify({ inputs }));
  return [
    `curl -s ${quoted(address)} \\`,
    `  -H "Authorization: Bearer $${KEY}" \\`,
    `  -H 'Content-Type: application/json' \\`,
    `  -d ${body}`,
  ].join("\n");
}

export function python(address, inputs) {
  return [
    "import os",
    "",
    "import httpx",
    "",
    "response = httpx.post(",
    `    ${JSON.stringify(address)},`,
    `    headers={"Authorization": f"Bearer {os.environ['${KEY}']}"},`,
    `    json={"inputs": ${literal(inputs, 1)}},`,
    "    timeout=120,",
    ")",
    'print(response.raise_for_status().json()["outputs"])',
  ].join("\n");
}

export function javascript(address, inputs) {
  return [
    `const response = await fetch(${JSON.stringify(address)}, {`,
    '  method: "POST",',
    `  headers: { Authorization: \`Bearer \${process.env.${KEY}}\`, "Content-Type": "application/json" },`,
    `  body: JSON.stringify({ inputs: ${JSON.stringify(inputs, null, 2).replaceAll("\n", "\n  ")} }),`,
    "});",
    "if (!response.ok) throw new Error(await response.text());",
    "console.log((await response.json()).outputs);",
  ].join("\n");
}

/** `text` as one word of a POSIX shell. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** JSON as a Python expression. */
function literal(value, depth) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const isList = Array.isArray(value);
  const [open, close] = isList ? "[]" : "{}";
  const parts = isList
    ? value.map((item) => literal(item, depth + 1))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, depth + 1)}`);
  if (!parts.length) return open + close;
  const indent = "    ".repeat(depth);
  return `${open}\n${parts.map((part) => `${indent}    ${part},`).join("\n")}\n${indent}${close}`;
}
