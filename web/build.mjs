// Builds web/dist: bundled styles and scripts with hashed names, the sprite of the icons that templates use, the page of
// third-party licences, and manifest.json, which maps the plain names to the hashed ones. Runs on Node 18 and later.
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const web = path.dirname(fileURLToPath(import.meta.url));
const dist = path.join(web, "dist");
const templates = path.join(web, "..", "templates");
const icons = path.join(web, "node_modules", "@tabler", "icons");

/** What no script may exceed when compressed. */
const SCRIPT_LIMIT_BYTES = 100_000;

/** Packages that are published without the text of their licence: who holds the rights, as their own files say. */
const HOLDERS = {
  "@tabler/core": [
    "Copyright 2018-2026 The Tabler Authors",
    "Copyright 2018-2026 codecalm.net Paweł Kuna",
    "Contains Bootstrap, Copyright 2011-2026 The Bootstrap Authors (MIT)",
  ],
};

const manifest = {};

/** Writes `text` under a name that carries its hash and notes it in the manifest. */
async function emit(name, text) {
  const { name: stem, ext } = path.parse(name);
  const hash = createHash("sha256").update(text).digest("hex").slice(0, 10);
  const hashed = `${stem}-${hash}${ext}`;
  await writeFile(path.join(dist, hashed), text);
  manifest[name] = hashed;
}

/** Bundles css/app.css, js/app.js and js/theme.js; returns the files that went in. */
async function bundle() {
  const result = await build({
    absWorkingDir: web,
    entryPoints: { app: "js/app.js", theme: "js/theme.js", style: "css/app.css" },
    outdir: "dist",
    entryNames: "[name]-[hash]",
    bundle: true,
    minify: true,
    metafile: true,
    format: "iife",
    target: ["chrome123", "firefox121", "safari17.5"],
    legalComments: "none",
    logLevel: "warning",
  });
  for (const [output, { entryPoint }] of Object.entries(result.metafile.outputs)) {
    if (!entryPoint) throw new Error(`${output} belongs to no entry point`);
    manifest[path.basename(entryPoint)] = path.basename(output);
    if (!output.endsWith(".js")) continue;
    const bytes = gzipSync(await readFile(path.join(web, output))).length;
    if (bytes > SCRIPT_LIMIT_BYTES) throw new Error(`${output}: ${bytes} bytes, compressed, is too much script`);
  }
  return Object.keys(result.metafile.inputs);
}

/** Every icon that a template names, as in `icon("server")`. */
async function usedIcons() {
  const found = new Set();
  for (const entry of await readdir(templates, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !entry.name.endsWith(".html")) continue;
    // `parentPath` came with Node 20.12; 18 has `path`, which there is the entry's folder.
    const text = await readFile(path.join(entry.parentPath ?? entry.path, entry.name), "utf8");
    for (const [, name] of text.matchAll(/\bicon\("([a-z0-9-]+)"/g)) found.add(name);
  }
  return [...found].sort();
}

/** One SVG file with a symbol per used icon; pages refer to them by `<use href="…#name">`. */
async function sprite() {
  const symbols = [];
  for (const name of await usedIcons()) {
    const svg = await readFile(path.join(icons, "icons", "outline", `${name}.svg`), "utf8");
    const shapes = svg.slice(svg.indexOf(">", svg.indexOf("<svg")) + 1, svg.lastIndexOf("</svg>"));
    const drawn = shapes.replace(/<path stroke="none" d="M0 0h24v24H0z" fill="none"\s*\/>/, "").replace(/\s+/g, " ").trim();
    symbols.push(
      `<symbol id="${name}" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.75" ` +
        `stroke-linecap="round" stroke-linejoin="round">${drawn}</symbol>`,
    );
  }
  await emit("icons.svg", `<svg xmlns="http://www.w3.org/2000/svg">${symbols.join("")}</svg>\n`);
  return symbols.length;
}

/** The licence text of every package of which something is shipped. */
async function licences(inputs) {
  const packages = new Set(["@tabler/icons"]);
  for (const input of inputs) {
    const match = input.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//);
    if (match) packages.add(match[1]);
  }
  const parts = ["Ostiary's pages contain parts of these packages.\n"];
  for (const name of [...packages].sort()) {
    const folder = path.join(web, "node_modules", name);
    const about = JSON.parse(await readFile(path.join(folder, "package.json"), "utf8"));
    const text = await licenceText(name, folder, about);
    parts.push(`${"=".repeat(78)}\n${name} ${about.version} (${about.license})\n${about.homepage ?? ""}\n\n${text.trim()}\n`);
  }
  await emit("third-party.txt", parts.join("\n"));
}

async function licenceText(name, folder, about) {
  const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
  if (file) return readFile(path.join(folder, file), "utf8");
  const holders = HOLDERS[name];
  if (!holders) throw new Error(`${name} ships no licence text: name its holders in build.mjs`);
  const text = await readFile(path.join(web, "licences", `${about.license}.txt`), "utf8");
  return `${holders.join("\n")}\n\n${text}`;
}

await rm(dist, { recursive: true, force: true });
await mkdir(dist, { recursive: true });
const inputs = await bundle();
const count = await sprite();
await licences(inputs);
await emit("favicon.svg", await readFile(path.join(web, "favicon.svg"), "utf8"));
const sorted = Object.fromEntries(Object.entries(manifest).sort());
await writeFile(path.join(dist, "manifest.json"), `${JSON.stringify(sorted, null, 2)}\n`);
console.log(`web/dist: ${Object.keys(sorted).length} files, ${count} icons`);
