// One request taken apart: where its time went, what was tried, what it cost, and what that means.
import { PHASES, PHASE_NAMES, bytes, copyable, count, el, endpointOf, time, words } from "./format.js";
import { state } from "./rows.js";

// Shows `stream` in the dialog, and keeps it up to date by `refresh`.
export class Anatomy {
  constructor(dialog) {
    this.dialog = dialog;
    this.stream = null;
    dialog.addEventListener("close", () => (this.stream = null));
    // A click beside it closes it.
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  open(stream, slow) {
    this.stream = stream;
    this.shown = "";
    this.refresh(slow);
    if (!this.dialog.open) this.dialog.showModal();
  }

  refresh(slow) {
    if (!this.stream) return;
    const ended = this.stream.endedAs;
    if (ended) this.stream = ended;
    // What ended does not change: a text that is being copied stays selected.
    const shown = this.stream.record ? this.stream.key : "";
    if (shown && shown === this.shown) return;
    this.shown = shown;
    const focused = this.dialog.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
    this.dialog.replaceChildren(...this.#content(slow));
    if (focused) this.dialog.querySelector(`[data-focus="${focused}"]`)?.focus();
  }

  #content(slow) {
    const { stream } = this;
    const { facts } = stream;
    const [word, mark] = state(stream, slow);
    const close = el("button", { type: "button", class: "quiet", "data-focus": "close", autofocus: true, onclick: () => this.dialog.close() }, "Close");
    return [
      el("header", {}, el("h2", { id: "anatomy-title" }, `${facts["http.request.method"] ?? ""} ${facts["url.path"] ?? ""}`), close),
      el("p", { class: `verdict ${mark}` }, el("strong", {}, word), " ", stream.meaning ?? soFar(stream)),
      phaseBar(stream),
      phaseTable(stream),
      el("div", { class: "columns" }, numbers(stream), attempts(stream)),
      ids(facts),
    ];
  }
}

function soFar(stream) {
  if (stream.lost) return `The connection to the proxy was lost at ${stream.lost.clock}: whether it still runs is not known.`;
  const most = PHASE_NAMES.map((name, slot) => [name, stream.phases[slot] ?? 0]).sort((a, b) => b[1] - a[1])[0];
  return most && most[1] > 0 ? `Runs for ${time(stream.age / 1e3)}; most of it ${PHASES[most[0]]} (${time(most[1] / 1e3)}).` : "";
}

function shares(stream) {
  const total = stream.phases.reduce((sum, part) => sum + part, 0) || 1;
  return PHASE_NAMES.map((name, slot) => ({ name, part: stream.phases[slot] ?? 0, share: (stream.phases[slot] ?? 0) / total }));
}

function phaseBar(stream) {
  const parts = shares(stream).filter(({ share }) => share > 0.001);
  const label = parts.map(({ name, part }) => `${words(name)} ${time(part / 1e3)}`).join(", ");
  const bar = el("div", { class: "phase-bar", role: "img", "aria-label": `Where the time went: ${label}` });
  for (const { name, part, share } of parts) {
    const piece = el("span", { class: `phase ${name}`, title: `${words(name)}: ${time(part / 1e3)}` }, share > 0.12 ? el("span", {}, words(name)) : "");
    piece.style.flexGrow = share;
    bar.append(piece);
  }
  return bar;
}

function phaseTable(stream) {
  const rows = shares(stream).filter(({ part, name }) => part >= 1 || name === stream.phase);
  return el("table", { class: "phases" },
    el("caption", {}, "Where the time went"),
    el("tbody", {}, rows.map(({ name, part, share }) => el("tr", {},
      el("th", { scope: "row" }, el("span", { class: `swatch ${name}` }), words(name)),
      el("td", { class: "number" }, time(part / 1e3)),
      el("td", { class: "number" }, `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`),
      el("td", { class: "dim" }, explain(name))))),
    el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "total"), el("td", { class: "number" }, time(stream.age / 1e3)), el("td"), el("td"))));
}

function explain(name) {
  return {
    receive: "the client's upload",
    admit: "this proxy: routing, limits",
    failed_attempts: "upstreams that failed before",
    connect: "the network to the upstream",
    upstream_wait: "the upstream: queue and prefill",
    preamble: "the upstream: prefill, after its head",
    generation: "the upstream: decoding",
    client_blocked: "the client, or its network",
    proxy: "this proxy: passing on",
  }[name];
}

function list(title, pairs) {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "–");
  return el("section", {}, el("h3", {}, title), el("dl", {}, shown.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
}

function numbers(stream) {
  const { facts } = stream;
  const usage = (name) => facts[`gen_ai.usage.${name}`];
  const tokens = usage("output_tokens") === undefined ? undefined : `${usage("input_tokens") ?? "?"} in, ${usage("output_tokens")} out (${words(facts.usage_source)})`;
  const seconds = (value) => (typeof value === "number" ? time(value) : undefined);
  return list("Numbers", [
    ["first token", seconds(facts.ttft_s)],
    ["first answer", seconds(facts.first_answer_s)],
    ["per output token", seconds(facts.tpot_s)],
    ["longest gap", seconds(facts.max_gap_s)],
    ["slow gaps", facts.slow_gaps || undefined],
    ["tokens", tokens],
    ["cost", facts.cost_usd === undefined ? undefined : `$ ${facts.cost_usd}`],
    ["frames", count(stream.frames)],
    ["bytes", bytes(stream.bytes)],
    ["buffered", facts.buffered ? "yes: its tokens came in bursts" : undefined],
    ["finish reason", facts["gen_ai.response.finish_reasons"]?.join(", ")],
  ]);
}

// What the stream speaks, and whether its first token is a guess.
function dialectOf({ dialect, framing, ttft_basis: basis }) {
  return dialect && `${dialect}${framing ? ` over ${framing}` : ""}${basis === "guess" ? " (first token by guess)" : ""}`;
}

function attempts(stream) {
  const { facts } = stream;
  const limit = facts.limit && `${words(facts.limit.decision)}${facts.limit.by ? ` by ${facts.limit.by}` : ""} (${facts.limit.names.join(", ")})`;
  const section = list("Who and where", [
    ["replica", facts.replica],
    ["route", facts.route],
    ["upstream", facts.upstream],
    ["endpoint", endpointOf(facts)],
    ["variant", facts.variant === facts.upstream ? undefined : facts.variant],
    ["model", facts["gen_ai.response.model"] ?? facts["gen_ai.request.model"]],
    ["dialect", dialectOf(facts)],
    ["user", facts["user.id"]],
    ["status", facts["http.response.status_code"]],
    ["error", facts.error_type && words(facts.error_type)],
    ["limits", limit],
    ["attempts", stream.record ? undefined : stream.attempts || undefined],
  ]);
  if (stream.record?.attempts?.length > 0) {
    const tried = stream.record.attempts.map((one) => el("li", { class: one.error_type ? "bad" : "" },
      `${one.upstream} ${endpointOf(one) ?? ""}: ${one.error_type ? words(one.error_type) : (one.status ?? "broken off")}, ${time(one.duration_s)}`));
    section.append(el("h3", {}, "Attempts"), el("ol", { class: "attempts" }, tried));
  }
  return section;
}

function ids(facts) {
  const section = el("dl", { class: "ids" });
  for (const [name, key] of [["request", "request_id"], ["trace", "trace_id"]]) {
    if (facts[key]) section.append(el("dt", {}, name), el("dd", {}, copyable(facts[key], `${name} id`)));
  }
  return section;
}

