// Shows /api/streams once a second. Everything is put in as text, never as HTML.
"use strict";

const ROWS_MAX = 100;

const seconds = (value) => (typeof value === "number" ? value.toFixed(3) : "");

// What a column shows: its title, the value in a row, and whether it is a number.
const COLUMNS = [
  ["started", (row) => row.timestamp ?? ""],
  ["request", (row) => `${row["http.request.method"] ?? ""} ${row["url.path"] ?? ""}`],
  ["route", (row) => row.route ?? ""],
  ["upstream", (row) => row.upstream ?? ""],
  ["model", (row) => row["gen_ai.response.model"] ?? row["gen_ai.request.model"] ?? ""],
  ["status", (row) => row["http.response.status_code"] ?? "", true],
  ["outcome", (row) => row.outcome ?? ""],
  ["first token, s", (row) => seconds(row.ttft_s), true],
  ["longest gap, s", (row) => seconds(row.max_gap_s), true],
  ["total, s", (row) => seconds(row.duration_s), true],
  ["tokens out", (row) => row["gen_ai.usage.output_tokens"] ?? "", true],
];

function cell(kind, text, isNumber) {
  const made = document.createElement(kind);
  made.textContent = String(text);
  if (isNumber) made.className = "number";
  return made;
}

function fill(id, rows) {
  const table = document.getElementById(id);
  const titles = document.createElement("tr");
  titles.replaceChildren(...COLUMNS.map(([title, , isNumber]) => cell("th", title, isNumber)));
  table.tHead.replaceChildren(titles);
  table.tBodies[0].replaceChildren(
    ...rows.slice(0, ROWS_MAX).map((row) => {
      const line = document.createElement("tr");
      if (row.outcome && row.outcome !== "completed") line.className = "bad";
      line.replaceChildren(...COLUMNS.map(([, value, isNumber]) => cell("td", value(row), isNumber)));
      return line;
    }),
  );
}

function advise(hints) {
  document.getElementById("hints").replaceChildren(
    ...hints.map((hint) => {
      const line = document.createElement("li");
      const held = hint.upstream && `${hint.upstream}: ${hint.streams} streams were held back`;
      line.textContent = `${held ?? hint.peer}: ${hint.hint}.`;
      return line;
    }),
  );
}

async function show() {
  const state = document.getElementById("state");
  try {
    const answer = await fetch("/api/streams", { cache: "no-store" });
    if (!answer.ok) throw new Error(`the answer was ${answer.status}`);
    const streams = await answer.json();
    fill("live", streams.live ?? []);
    fill("recent", streams.recent ?? []);
    advise(streams.hints ?? []);
    state.textContent = `${(streams.live ?? []).length} live`;
  } catch (error) {
    state.textContent = `Cannot read the streams: ${error.message}`;
  }
  setTimeout(show, 1000);
}

show();
