// Reads the feed of server-sent events. Not by EventSource: that would not tell why it is refused.

const RETRY_MS = 1000;

// Calls `on[event](data)` for each event, and `on.state(word, message)` when the connection changes. Returns a function
// that ends it.
export function follow(path, on) {
  const ended = new AbortController();
  read(path, on, ended.signal);
  return () => ended.abort();
}

async function read(path, on, signal) {
  while (!signal.aborted) {
    let message = "The proxy does not answer; trying again every second.";
    try {
      const answer = await fetch(path, { cache: "no-store", signal });
      if (answer.status === 401) {
        location.reload();
        return;
      }
      if (answer.ok) {
        on.state("live");
        if ((await parse(answer.body, on)) === "log in again") {
          location.reload();
          return;
        }
        message = "The proxy ended the feed: it exits or restarts. Trying again every second.";
      } else {
        message = `${(await answer.json()).error} (trying again every second)`;
      }
    } catch {
      if (signal.aborted) return;
    }
    on.state("lost", message);
    await new Promise((wake) => setTimeout(wake, RETRY_MS));
  }
}

// Reads events until the connection ends; why it ended, if that was told.
async function parse(body, on) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let why = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return why;
    rest += value;
    const events = rest.split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const [, name, data] = /^event: (\w+)\ndata: (.*)$/s.exec(event) ?? [];
      if (!name) continue;
      const parsed = JSON.parse(data);
      if (name === "end") why = parsed.why;
      else on[name]?.(parsed);
    }
  }
}
