// What stands beside the streams: first tokens, what is out of service, upstreams, canaries, shadows, limits, failures, refusals, hints.
import { breakable, copyable, count, el, endpointOf, shortReplica, time, words } from "./format.js";

// Of failures and of refusals each: what goes on, and the last ones.
const TROUBLES_SHOWN = 6;
const LAST_SHOWN = 4;

// A panel is built anew only when what it shows has changed, so that nothing is taken from under a pointer or a focus.
const shown = new Map();

function show(id, data, build) {
  const text = JSON.stringify(data);
  if (shown.get(id) === text) return;
  shown.set(id, text);
  const content = build();
  const section = document.getElementById(id);
  section.hidden = content === null;
  section.querySelector(".content").replaceChildren(...(content ?? []));
}

// `open(record)` is called for a request that is opened.
export function panels({ proxy, live, fleet }, open) {
  show("first-tokens", live.first_tokens, () => firstTokens(live.first_tokens));
  show("levers", proxy.levers, () => (proxy.levers?.levers.length ? levers(proxy.levers) : null));
  show("upstreams", proxy.upstreams, () => upstreams(proxy.upstreams));
  show("canaries", proxy.canaries, () => (proxy.canaries?.length ? proxy.canaries.flatMap(canary) : null));
  show("shadows", live.shadows, () => (live.shadows?.length ? live.shadows.flatMap(shadow) : null));
  show("limits", proxy.limits, () => (proxy.limits.holders.length ? [limits(proxy.limits)] : null));
  const troubles = (kind) => (live.troubles ?? []).filter((one) => one.kind === kind).slice(0, TROUBLES_SHOWN);
  show("failures", [troubles("failure"), live.failed], () => ended(troubles("failure"), live.failed, "None: nothing failed lately.", open));
  show("refusals", [troubles("refusal"), live.refused], () => ended(troubles("refusal"), live.refused, "None: nobody was refused lately.", open));
  const absent = (fleet?.replicas ?? []).filter((one) => one.answered === false);
  const notes = [...absent.map((absent) => ({ absent })), ...live.hints, ...(proxy.draining ? [{ draining: true }] : []), ...(proxy.levers?.unserved_routes ?? []).map((unserved) => ({ unserved })), ...(proxy.last_error ? [{ config: proxy.last_error }] : [])];
  show("hints", notes, () => (notes.length ? notes.map(hint) : null));
}

function firstTokens(rows) {
  if (rows.length === 0) return [el("p", { class: "dim" }, "No stream had a first token in these minutes.")];
  const head = ["p50", "p95", "p99"].map((name) => el("th", { scope: "col", class: "number" }, name));
  const body = rows.map((row) => el("tr", { title: `${row.requests} requests, ${row.failed} failed, ${row.output_tokens} output tokens` },
    el("th", { scope: "row" }, breakable(row.route), " ", el("span", { class: "dim" }, breakable(row.upstream)), whose(row)),
    ["p50_s", "p95_s", "p99_s"].map((key) => el("td", { class: "number" }, time(row[key]))),
    el("td", { class: "number" }, count(row.requests)),
    el("td", { class: row.failed ? "number bad" : "number" }, count(row.failed))));
  return [el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "route, upstream"), head, el("th", { scope: "col", class: "number" }, "req."), el("th", { scope: "col", class: "number" }, "failed"))), el("tbody", {}, body))];
}

const HEALTH = { up: "● up", probing: "◐ on trial", down: "✕ down, in service", ejected: "✕ ejected", unresolved: "✕ name not resolved", drained: "◌ drained", disabled: "◌ disabled" };

// What people took out of service, since when, who and why; and the routes that nobody serves for it.
function levers(all) {
  const lines = all.levers.map((one) => el("li", {}, el("strong", {}, breakable(one.words), ` ${one.setting}`), whose(one), el("span", { class: "dim under" }, `since ${clock(one.since)}, by ${one.by}`), one.reason ? el("span", { class: "under" }, one.reason) : ""));
  return [el("ul", { class: "troubles" }, lines), ...all.unserved_routes.map((route) => el("p", { class: "bad" }, el("strong", {}, `Nobody serves route ${route}: `), "its clients get 503."))];
}

function upstreams(all) {
  const rows = all.flatMap(({ name, endpoints, replica }) => endpoints.flatMap((one) => [...endpoint(name, one.endpoint, { ...one, replica }), ...(one.each_address ?? []).flatMap((each) => endpoint("", each.address, each))]));
  const title = (text, about) => el("th", { scope: "col", class: "number", title: about }, text);
  const minutes = all[0]?.endpoints[0]?.measured.minutes ?? 5;
  const measured = `first tokens of the last ${minutes} minutes, as this endpoint's attempts had them`;
  return [el("table", { class: "endpoints" }, el("thead", {}, el("tr", {}, title("running"), title("p50", measured), title("p95", measured), title("failed", `of its attempts in the last ${minutes} minutes`))), rows)];
}

// Two lines: what it is and how it fares, and below that its numbers. Then what there is to say of it.
function endpoint(name, at, one) {
  const { measured, failures, lever } = one;
  const good = one.state === "up" || one.state === "probing";
  const since = one.down_since ? ` since ${clock(one.down_since)}` : "";
  const why = [
    lever && `by ${lever.by}, since ${clock(lever.since)}${lever.reason ? `: ${lever.reason}` : ""}`,
    lever && one.health !== "up" && `health: ${words(one.health)}`,
    one.reason && words(one.reason) + since,
    one.serving_meanwhile && `meanwhile: ${one.serving_meanwhile.join(", ")}`,
    failures && `failed ${times(failures)}`,
  ].filter(Boolean);
  const score = typeof one.balancer_score_s === "number" ? `balancer's score: ${time(one.balancer_score_s)} (a peak that fades, no measurement)` : undefined;
  const health = el("span", { class: lever ? "dim" : good ? "good" : "bad" }, HEALTH[one.state] ?? one.state);
  return [el("tbody", { title: score },
    el("tr", {}, el("th", { scope: "rowgroup", colspan: 4 }, el("span", { class: "holder" }, el("span", {}, breakable(name), name ? " " : "", el("span", { class: "dim" }, breakable(at)), whose(one)), el("span", { class: "health" }, health)))),
    el("tr", {},
      el("td", { class: "number" }, count(one.in_flight)),
      el("td", { class: "number" }, time(measured.p50_s), el("span", { class: "dim" }, ` of ${count(measured.first_tokens)}`)),
      el("td", { class: "number" }, time(measured.p95_s)),
      el("td", { class: measured.failed ? "number bad" : "number" }, `${count(measured.failed)} of ${count(measured.attempts)}`)),
    why.map((line) => el("tr", {}, el("td", { colspan: 4, class: "dim under-row" }, breakable(line)))))];
}

// What goes on, each once with how often and since when, and below it the last of them.
function ended(troubles, last, nothing, open) {
  if (troubles.length === 0 && last.length === 0) return [el("p", { class: "dim" }, nothing)];
  return [
    troubles.length ? el("ul", { class: "troubles" }, troubles.map(trouble)) : "",
    last.length ? el("ol", { class: "errors" }, last.slice(0, LAST_SHOWN).map((one) => error(one, open))) : "",
  ];
}

// What fails, where, or who is refused what; how often, and since when.
function trouble(one) {
  const where = [one.limit && ["limit ", name(one.limit)], ...[one.route, one.upstream, one.endpoint].filter(Boolean).map(name)].filter(Boolean);
  const when = one.count === 1 ? `once, at ${clock(one.first)}` : `${count(one.count)} times since ${clock(one.first)}, last ${clock(one.last)}`;
  const who = one.who ? [el("span", { class: "who" }, name(one.who)), " "] : "";
  return el("li", {}, who, el("strong", {}, words(one.what)), " ", listed(where), whose(one), " ", el("span", { class: "dim under" }, when));
}

// A name in a text: it goes to the next line as a whole, and is broken only where it is wider than the panel.
function name(text) {
  return el("span", { class: "name" }, text);
}

function listed(parts) {
  return parts.flatMap((part, at) => (at === 0 ? part : [" · ", part])).flat();
}

function times({ count: number, first, last }) {
  return number === 1 ? `once, at ${clock(first)}` : `${count(number)} times from ${clock(first)} to ${clock(last)}`;
}

// What the copies of a route's requests showed.
function shadow(one) {
  const differences = Object.entries(one.differences).filter(([, seen]) => seen.count > 0);
  const rows = [["same", one.same, ""], ["differ", one.differs, ""], ["failed", one.failed, one.failed ? "bad" : ""], ["not made", one.skipped, "dim"]];
  const side = (name, key) => el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: "number" }, time(one[key].first_token_p50_s)), el("td", { class: "number" }, count(one[key].output_tokens)));
  return [
    el("p", {}, el("strong", {}, breakable(one.route)), ": copies to ", el("strong", {}, breakable(one.variant)), whose(one), one.last ? `, last ${clock(one.last)}` : ""),
    el("p", {}, rows.flatMap(([name, number, mark], at) => [at ? " · " : "", el("span", { class: mark }, `${count(number)} ${name}`)])),
    ...differences.map(([what, seen]) => el("p", { class: "dim" }, `${words(what)} differs: ${times(seen)}`)),
    el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "of the pairs"), el("th", { scope: "col", class: "number" }, "1st token p50"), el("th", { scope: "col", class: "number" }, "output tokens"))), el("tbody", {}, side("clients'", "primary"), side("copies'", "shadow"))),
  ];
}

function clock(timestamp) {
  return timestamp.slice(11, 19);
}

function canary(one) {
  const steps = one.steps.map((step) => el("span", { class: step === one.percent ? "step here" : "step" }, `${step} %`));
  const facts = one.facts.map((fact) => el("tr", { class: fact.evidence >= fact.needed ? "bad" : "" },
    el("th", { scope: "row" }, words(fact.fact)),
    el("td", { class: "number" }, `${fact.canary.yes} of ${fact.canary.of}`),
    el("td", { class: "number" }, `${fact.baseline.yes} of ${fact.baseline.of}`),
    el("td", { class: "number" }, fact.evidence >= 1000 ? "≥ 1000" : fact.evidence.toFixed(2))));
  const seen = one.facts.filter((fact) => fact.seen).map((fact) => el("p", { class: fact.worse_since ? "bad" : "dim" }, `${words(fact.fact)}: ${fact.worse_since ? `worse since ${clock(fact.worse_since)}, ` : ""}${times(fact.seen)}`));
  const needed = one.facts[0]?.needed;
  return [
    el("p", {}, el("strong", {}, one.route), whose(one), `: ${one.canary} at `, el("strong", {}, `${one.percent} %`), `, ${words(one.state)}`),
    el("p", { class: "steps" }, steps),
    el("p", { class: "dim" }, one.next),
    el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "fact"), el("th", { scope: "col", class: "number" }, "canary"), el("th", { scope: "col", class: "number" }, "baseline"), el("th", { scope: "col", class: "number", title: needed ? `rolled back at ${needed.toFixed(0)}` : "" }, needed ? `evidence (of ${needed.toFixed(0)})` : "evidence"))), el("tbody", {}, facts)),
    ...seen,
    ...(one.decisions[0] ? [el("p", { class: "dim" }, `Last: ${one.decisions[0].words}`)] : []),
  ];
}

function limits({ holders }) {
  return el("ul", { class: "limits" }, holders.map((one) => {
    const share = Math.min(1, one.utilization);
    const bar = el("span", { class: share > 0.9 || one.refused ? "fill bad" : "fill" });
    bar.style.width = `${(share * 100).toFixed(1)}%`;
    const parts = [];
    if (one.tokens) parts.push(`${count(one.tokens.remaining)} of ${count(one.tokens.limit)} tokens left, ${count(one.tokens_spent)} spent, ${count(one.tokens_held)} held`);
    if (one.requests) parts.push(`${count(one.requests.remaining)} of ${count(one.requests.limit)} requests left`);
    if (one.running) parts.push(`${one.running} running`);
    parts.push(...money(one));
    return el("li", {}, el("span", { class: "holder" }, el("strong", {}, one.holder), " ", el("span", { class: "dim" }, one.limit), whose(one), el("span", { class: "number" }, `${Math.round(one.utilization * 100)} %`)),
      el("span", { class: "gauge", "aria-hidden": true }, bar), el("span", { class: "dim under" }, parts.join(" · ")),
      one.refused ? el("span", { class: "bad under" }, `full since ${clock(one.refused.first)}: ${count(one.refused.count)} refused (${words(one.refused.reason)}), last ${clock(one.refused.last)}`) : "");
  }));
}

// Of each budget: what is spent, and what is only held for requests that run.
function money(one) {
  const budgets = [[one.cost_usd_24h, one.budget_usd_24h, "24 h"], [one.cost_usd_30d, one.budget_usd_30d, "30 d"]].filter(([, budget]) => typeof budget === "number");
  return budgets.map(([spent, budget, window]) => `$ ${dollars(spent)} spent, $ ${dollars(one.cost_usd_held)} held of $ ${dollars(budget)} in ${window}`);
}

function dollars(amount) {
  return amount === 0 || amount >= 0.01 ? amount.toFixed(2) : amount.toPrecision(2);
}

function error(record, open) {
  const button = el("button", { type: "button", class: "link", onclick: () => open(record) }, words(record.error_type ?? record.outcome));
  const where = listed([record.route, record.upstream, endpointOf(record), record["user.id"], shortReplica(record)].filter(Boolean).map(name));
  return el("li", {}, el("span", { class: "dim" }, clock(record.timestamp), " "), button, ` ${record["http.response.status_code"] ?? ""} `, el("span", { class: "dim" }, where), el("span", { class: "under" }, "trace ", copyable(record.trace_id, "trace id")));
}

// Its replica, in the view of a fleet.
function whose(row) {
  return row.replica ? el("span", { class: "dim", title: `replica ${row.replica}` }, ` ${shortReplica(row)}`) : "";
}

function hint(one) {
  if (one.absent) {
    const { replica, admin, trouble, absent_since: since } = one.absent;
    return el("p", {}, el("strong", {}, `Replica ${replica} is not shown`, since ? ` since ${clock(since)}` : "", ". "), `${trouble[0].toUpperCase()}${trouble.slice(1)}${admin && admin !== replica ? ` (${admin})` : ""}.`);
  }
  if (one.unserved) return el("p", {}, el("strong", {}, `Nobody serves route ${one.unserved}. `), "All that could is out of service by hand: its clients get 503.");
  if (one.draining) return el("p", {}, el("strong", {}, "Draining. "), "The proxy takes no new requests and exits when the last stream has ended.");
  if (one.config) return el("p", {}, el("strong", {}, "The configuration file has an error; the last good one is in effect. "), one.config);
  const about = one.upstream ? `${one.upstream}${one.replica ? ` ${shortReplica(one)}` : ""}: ${one.streams} streams were held back. ` : `${one.peer}: `;
  return el("p", {}, el("strong", {}, about), `${one.hint[0].toUpperCase()}${one.hint.slice(1)}.`);
}
