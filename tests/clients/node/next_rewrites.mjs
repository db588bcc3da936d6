// Streams through Next.js as a browser asks for them, compressed if you please. Usage: next_rewrites.mjs NEXT_URL
import assert from "node:assert/strict";
import http from "node:http";
import zlib from "node:zlib";

const next = process.argv[2];
const PACE = 0.1;

// Asks as browsers do; when each event came, in milliseconds, and how the answer was coded.
function stream(path) {
  return new Promise((resolve, reject) => {
    const asks = { headers: { "accept-encoding": "gzip, deflate, br, zstd", accept: "text/event-stream" } };
    http
      .get(`${next}${path}?pace=${PACE}`, asks, (answer) => {
        const coding = answer.headers["content-encoding"];
        const plain = coding === "gzip" ? answer.pipe(zlib.createGunzip()) : answer;
        const events = [];
        let text = "";
        plain.on("data", (piece) => {
          text += piece;
          const whole = text.split("\n\n").length - 1;
          while (events.length < whole) events.push(performance.now());
        });
        plain.on("end", () => resolve({ status: answer.statusCode, headers: answer.headers, events }));
        plain.on("error", reject);
      })
      .on("error", reject);
  });
}

const spread = ({ events }) => Math.round(events.at(-1) - events[0]);

const gauged = await stream("/gauged/api/v1/stream");
assert.equal(gauged.status, 200);
assert.match(gauged.headers["cache-control"], /no-transform/);
assert.ok(gauged.events.length >= 12, `${gauged.events.length} events`);
// Twelve tokens at 100 ms: a stream that was collected on the way would arrive within a few.
assert.ok(spread(gauged) > 800, `all events came within ${spread(gauged)} ms: ${JSON.stringify(gauged.headers)}`);
const pauses = gauged.events.slice(1).map((at, number) => at - gauged.events[number]);
assert.ok(pauses.filter((pause) => pause > 50).length >= 9, `they came in clumps: ${pauses.map(Math.round)}`);

// The same app without Streamgauge before it, to show what it saves from.
const bare = await stream("/bare/api/v1/stream");
assert.equal(bare.status, 200);
const coding = bare.headers["content-encoding"] ?? "identity";
console.log(`Next.js rewrites: events over ${spread(gauged)} ms one by one; without Streamgauge over ${spread(bare)} ms (${coding})`);
