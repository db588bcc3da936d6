// Requests of every kind through a proxy, for the live view.
import http from "node:http";

// Streams one answer. `knobs` go to the demo backend; a `slow` client stops reading for so many milliseconds. Resolves with the
// status when the answer is over, however it ended.
export function stream(proxy, { path = "/v1/chat/completions", knobs = {}, user = "alice", model = "demo", slow = 0, abort = 0 } = {}) {
  const headers = { "content-type": "application/json", "x-user-id": user };
  for (const [name, value] of Object.entries(knobs)) headers[`x-demo-${name.replaceAll("_", "-")}`] = String(value);
  return new Promise((resolve) => {
    const request = http.request(`${proxy}${path}`, { method: "POST", headers, agent: false }, (answer) => {
      const over = () => resolve(answer.statusCode);
      answer.on("data", () => {
        if (!slow) return;
        answer.pause();
        setTimeout(() => answer.resume(), slow);
        slow = 0;
      });
      answer.on("close", over);
      answer.on("error", over);
      if (abort) setTimeout(() => request.destroy(), abort);
    });
    request.on("error", () => resolve(0));
    request.end(JSON.stringify({ model, stream: true, max_tokens: 200, messages: [{ role: "user", content: "hello" }] }));
  });
}

// Opens `number` streams that run for a minute or until `close()`; resolves when all have answered.
export async function many(proxy, number, knobs) {
  const agent = new http.Agent({ maxSockets: Infinity });
  const headers = { "content-type": "application/json" };
  for (const [name, value] of Object.entries(knobs)) headers[`x-demo-${name.replaceAll("_", "-")}`] = String(value);
  const opened = Array.from({ length: number }, () => new Promise((resolve, reject) => {
    const request = http.request(`${proxy}/api/chat`, { method: "POST", headers, agent }, (answer) => {
      answer.resume();
      answer.on("error", () => {});
      resolve(request);
    });
    request.on("error", reject);
    request.end(JSON.stringify({ model: "demo", stream: true, messages: [] }));
  }));
  const requests = await Promise.all(opened);
  return () => requests.forEach((request) => request.destroy());
}

// A mix as a busy morning has it, until the returned function is called.
export function morning(proxy) {
  const users = ["alice", "bob", "carol", "dave", "erin"];
  const kinds = [
    () => ({}),
    () => ({ knobs: { gap_ms: 30 + Math.random() * 60 } }),
    () => ({ path: "/v1/messages", model: "demo-large" }),
    () => ({ path: "/api/v1/chat", model: "demo-search" }),
    () => ({ knobs: { reasoning: 20, gap_ms: 80 } }),
    () => ({ path: "/v1/messages", model: "demo-large", knobs: { silent_at: 22 } }),
    () => ({ knobs: { pad: 150_000, tokens: 120, gap_ms: 5 }, slow: 6_000 }),
    () => ({ knobs: { cut_at: 40 } }),
    () => ({ knobs: { error_at: 25 } }),
    () => ({ abort: 2_500 }),
  ];
  let number = 0;
  const next = () => {
    number += 1;
    const kind = kinds[number % 3 ? number % 5 : (number / 3) % kinds.length];
    void stream(proxy, { user: users[number % users.length], ...kind() });
  };
  for (let first = 0; first < 6; first++) next();
  const timer = setInterval(next, 420);
  return () => clearInterval(timer);
}
