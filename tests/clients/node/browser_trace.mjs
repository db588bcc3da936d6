// A page in a browser, of another origin, that traces its calls. Prints the ids of its span.
// Usage: browser_trace.mjs PROXY_URL COLLECTOR_URL
import assert from "node:assert/strict";
import http from "node:http";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const [proxy, collector] = process.argv.slice(2);
const source = fileURLToPath(new URL("traced_page.mjs", import.meta.url));
const bundle = await build({ entryPoints: [source], bundle: true, write: false, format: "iife", platform: "browser" });
const html = `<!doctype html><h1>page</h1><script>${bundle.outputFiles[0].text.replaceAll("</script", "<\\/script")}</script>`;
const page = http.createServer((_, answer) => answer.setHeader("content-type", "text/html").end(html));
await new Promise((ready) => page.listen(0, "127.0.0.1", ready));

const browser = await chromium.launch({
  // Without a name Playwright takes its own.
  executablePath: process.env.CHROMIUM || undefined,
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  const tab = await browser.newPage();
  tab.on("console", (line) => console.error(line.text()));
  await tab.goto(`http://127.0.0.1:${page.address().port}/`);
  const { text, status, ...ids } = await tab.evaluate(([proxy, collector]) => ask(proxy, collector), [proxy, collector]);
  assert.equal(status, 200);
  assert.ok(text.endsWith("data: [DONE]\n\n"), text);
  console.log(JSON.stringify(ids));
} finally {
  await browser.close();
  page.close();
}
