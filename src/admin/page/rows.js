// The list of streams: one row each, chosen by arrows or j and k, opened by Enter or a click.
import { PHASES, count, el, isBad, isGood, put, shortReplica, time, words } from "./format.js";
import { draw } from "./timeline.js";

export class Rows {
  // `open(stream)` is called for the row that is opened.
  constructor(list, open) {
    this.list = list;
    this.open = open;
    this.rows = new Map();
    this.streams = [];
    this.visible = new Set();
    this.chosen = null;
    this.sight = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) this.visible.add(target.dataset.key);
        else this.visible.delete(target.dataset.key);
      }
    }, { rootMargin: "100px" });
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("click", (event) => {
      const key = event.target.closest("li")?.dataset.key;
      if (!key) return;
      this.choose(key);
      this.openChosen();
    });
    list.addEventListener("focus", () => this.chosen ?? this.choose(this.streams[0]?.key));
  }

  // Shows these streams in this order.
  show(streams, slow) {
    this.streams = streams;
    const wanted = new Set(streams.map((stream) => stream.key));
    for (const [key, row] of this.rows) {
      if (wanted.has(key)) continue;
      this.sight.unobserve(row.line);
      row.line.remove();
      this.rows.delete(key);
      this.visible.delete(key);
    }
    this.#follow(streams, wanted);
    let place = this.list.firstElementChild;
    for (const stream of streams) {
      const row = this.rows.get(stream.key) ?? this.#add(stream.key);
      row.stream = stream;
      if (row.line === place) place = place.nextElementSibling;
      else this.list.insertBefore(row.line, place);
      fill(row, stream, slow);
    }
  }

  // Draws the timelines that are in sight.
  draw(view) {
    for (const key of this.visible) {
      const row = this.rows.get(key);
      if (row) draw(row.canvas, row.stream, view);
    }
  }

  choose(key) {
    if (!key || !this.rows.has(key)) return;
    this.rows.get(this.chosen)?.line.setAttribute("aria-selected", "false");
    this.chosen = key;
    const { line } = this.rows.get(key);
    line.setAttribute("aria-selected", "true");
    this.list.setAttribute("aria-activedescendant", line.id);
    line.scrollIntoView({ block: "nearest" });
  }

  // The next row in a direction; in none, the first.
  move(by) {
    const at = this.streams.findIndex((stream) => stream.key === this.chosen);
    const next = at < 0 ? 0 : Math.min(this.streams.length - 1, Math.max(0, at + by));
    this.choose(this.streams[next]?.key);
  }

  openChosen() {
    const row = this.rows.get(this.chosen);
    if (row) this.open(row.stream);
  }

  // The chosen stream ended: its record is chosen in its place.
  #follow(streams, wanted) {
    if (this.chosen === null || wanted.has(this.chosen)) return;
    const heir = this.last?.endedAs?.key;
    this.chosen = null;
    this.list.removeAttribute("aria-activedescendant");
    if (heir && wanted.has(heir)) this.heir = heir;
  }

  #add(key) {
    const cell = (name) => el("span", { class: name });
    const row = { title: cell("title"), detail: cell("detail"), state: cell("state"), ttft: cell("number"), age: cell("number"), frames: cell("number"), canvas: el("canvas", { "aria-hidden": true }) };
    const numbers = el("span", { class: "numbers" }, row.ttft, row.age, row.frames);
    row.line = el("li", { role: "option", id: `row-${key}`, "data-key": key, "aria-selected": "false" }, el("span", { class: "what" }, row.title, row.detail), row.canvas, row.state, numbers);
    this.rows.set(key, row);
    this.sight.observe(row.line);
    if (this.heir === key) queueMicrotask(() => this.choose(key));
    return row;
  }

  #key(event) {
    const page = 10;
    const moves = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -1e6, End: 1e6 };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (moves[event.key]) this.move(moves[event.key]);
    else if (event.key === "Enter" || event.key === " ") this.openChosen();
    else return;
    this.last = this.rows.get(this.chosen)?.stream;
    event.preventDefault();
  }
}

// What a stream does at the moment, or how it ended; and how that is to be marked.
export function state(stream, slow) {
  if (stream.record) {
    const { outcome } = stream.record;
    return [words(outcome), isGood(outcome) ? "good" : isBad(outcome) ? "bad" : "dim"];
  }
  // The proxy may be dead, or only far away: nobody knows.
  if (stream.lost) return [`lost at ${stream.lost.clock}`, "dim"];
  const here = stream.here / 1e3;
  const quiet = stream.phase === "generation" ? here > slow.gap : here > slow.first;
  // Each write takes a moment: that is no blocking yet.
  if (stream.phase === "client_blocked" && here < 0.3) return [PHASES.generation, ""];
  if (stream.phase === "generation" && here > 1) return [`silent for ${time(here)}`, quiet ? "bad" : ""];
  return [here > 1 ? `${PHASES[stream.phase]}, ${time(here)}` : PHASES[stream.phase], quiet || stream.phase === "client_blocked" ? "bad" : ""];
}

function fill(row, stream, slow) {
  const { facts } = stream;
  const [word, mark] = state(stream, slow);
  const title = facts.route ?? `${facts["http.request.method"] ?? ""} ${facts["url.path"] ?? ""}`;
  const detail = [facts.upstream, facts["gen_ai.response.model"] ?? facts["gen_ai.request.model"], facts["user.id"], shortReplica(facts)].filter(Boolean);
  put(row.title, title);
  put(row.detail, detail.join(" · ") || (facts["url.path"] ?? ""));
  put(row.state, word);
  put(row.ttft, typeof facts.ttft_s === "number" ? time(facts.ttft_s) : "–");
  put(row.age, time(stream.age / 1e3));
  put(row.frames, count(stream.frames));
  const className = `${stream.record ? "ended" : stream.lost ? "lost" : "live"} ${mark}`.trim();
  if (row.line.className !== className) row.line.className = className;
  const label = `${title}, ${detail.join(", ")}: ${word}`;
  if (row.line.getAttribute("aria-label") !== label) row.line.setAttribute("aria-label", label);
}
