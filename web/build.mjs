// Build the page: src/ -> ../src/tiepoint/service/view/page/, or the folder given as argument.
import { build } from "esbuild";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(process.argv[2] ?? join(here, "../src/tiepoint/service/view/page"));
const shared = { bundle: true, minify: true, legalComments: "none", charset: "utf8", logLevel: "warning" };

await mkdir(out, { recursive: true });
await build({
  ...shared,
  entryPoints: [join(here, "src/main.ts")],
  outfile: join(out, "view.js"),
  format: "esm",
  target: "es2022",
});
// With OpenSeadragon and the style sheet inside, because a cell of a notebook loads one file.
await build({
  ...shared,
  entryPoints: [join(here, "src/notebook.ts")],
  outfile: join(out, "notebook.js"),
  format: "esm",
  target: "es2022",
  loader: { ".css": "text" },
});
await build({ ...shared, entryPoints: [join(here, "src/view.css")], outfile: join(out, "view.css") });
await copyFile(join(here, "src/index.html"), join(out, "index.html"));

const vendor = join(here, "node_modules/openseadragon");
const library = await readFile(join(vendor, "build/openseadragon/openseadragon.min.js"), "utf8");
// Without its source map, which is not shipped.
await writeFile(join(out, "openseadragon.js"), library.replace(/\n?\/\/# sourceMappingURL=.*\s*$/, "\n"));
await copyFile(join(vendor, "LICENSE.txt"), join(out, "openseadragon.LICENSE.txt"));
