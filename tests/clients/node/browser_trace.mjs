// A page in a browser, of another origin, that traces its calls. Prints the ids of its span.
// Usage: browser_trace.mjs PROXY_URL COLLECTOR_URL
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { withPage } from "./browser.mjs";

const [proxy, collector] = process.argv.slice(2);
const source = fileURLToPath(new URL("traced_page.mjs", import.meta.url));
const bundle = await build({ entryPoints: [source], bundle: true, write: false, format: "iife", platform: "browser" });
const html = `<!doctype html><h1>page</h1><script>${bundle.outputFiles[0].text.replaceAll("</script", "<\\/script")}</script>`;

await withPage(html, async (tab) => {
  const { text, status, ...ids } = await tab.evaluate(([proxy, collector]) => ask(proxy, collector), [proxy, collector]);
  assert.equal(status, 200);
  assert.ok(text.endsWith("data: [DONE]\n\n"), text);
  console.log(JSON.stringify(ids));
});
