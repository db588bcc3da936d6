// A browser's EventSource on a page of another origin, through the proxy. Usage: event_source.mjs PROXY_URL
import assert from "node:assert/strict";
import http from "node:http";
import { chromium } from "playwright-core";

const proxy = process.argv[2];
const page = http.createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<h1>page</h1>"));
await new Promise((ready) => page.listen(0, "127.0.0.1", ready));

const browser = await chromium.launch({
  // Without a name Playwright takes its own.
  executablePath: process.env.CHROMIUM || undefined,
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  const tab = await browser.newPage();
  await tab.goto(`http://127.0.0.1:${page.address().port}/`);
  const seen = await tab.evaluate(
    (url) =>
      new Promise((resolve, reject) => {
        const source = new EventSource(url);
        const tokens = [];
        const times = [];
        source.onmessage = (event) => {
          tokens.push(JSON.parse(event.data).token);
          times.push(performance.now());
        };
        source.addEventListener("end", () => {
          source.close();
          resolve({ tokens, spread: times.at(-1) - times[0] });
        });
        source.onerror = () => reject(new Error(`EventSource failed after ${tokens.length} events`));
      }),
    `${proxy}/api/v1/stream?pace=0.1`,
  );
  assert.match(seen.tokens.join(""), /^A stream gauge/);
  // Twelve tokens at 100 ms: a stream that was collected on the way would arrive within a few.
  assert.ok(seen.spread > 500, `all events came within ${seen.spread} ms`);
  console.log("EventSource: events come one by one, across origins");
} finally {
  await browser.close();
  page.close();
}
