// A browser's EventSource on a page of another origin, through the proxy. Usage: event_source.mjs PROXY_URL
import assert from "node:assert/strict";
import { withPage } from "./browser.mjs";

const proxy = process.argv[2];
await withPage("<h1>page</h1>", async (tab) => {
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
});
