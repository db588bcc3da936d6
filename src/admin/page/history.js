// The last 24 hours, or as much of them as there is something of: small charts of what /api/history has, by route, by upstream or all together.
import { count, el, put, shortReplica, time } from "./format.js";

// A step is five minutes long; the current one grows.
const REFRESH_MS = 30_000;

// Series that are drawn, those with the most requests; more would be no picture.
const SERIES_SHOWN = 8;

const HEIGHT = 60;

// The shortest of these that holds all there is: of a process that began just now, 24 hours would show nothing.
const HOURS = [1, 6, 24];

const QUARTERS = 4;

const SVG = "http://www.w3.org/2000/svg";

const rate = (number) => (number === 0 || number >= 10 ? count(Math.round(number)) : number.toPrecision(2));

// `values` of a step, the first of which is drawn in full colour; `gaps`: where there was no request there is no value, else it is 0.
const CHARTS = [
  { title: "First token, p95 and p50", values: [(step) => step.first_token_p95_s, (step) => step.first_token_p50_s], shown: time, gaps: true },
  { title: "Output tokens a second", values: [(step, length) => step.output_tokens / length], shown: rate },
  { title: "Failed requests", values: [(step) => step.failed], shown: count },
  { title: "Cost in $ an hour", values: [(step, length) => (step.cost_usd * 3600) / length], shown: rate },
  { title: "In flight, mean", values: [(step) => step.in_flight], shown: rate },
];

const at = (id) => document.getElementById(id);
let latest = "";

// Asks for the numbers now, and then again and again.
export function history() {
  at("history-by").addEventListener("change", refresh);
  at("history").addEventListener("toggle", refresh);
  setInterval(refresh, REFRESH_MS);
  refresh();
}

export async function refresh() {
  if (document.hidden || !at("history").open) return;
  const by = at("history-by").value;
  const scope = at("scope").value;
  try {
    const answer = await fetch(`/api/history?by=${by}${scope === "fleet" ? "&fleet" : ""}`, { cache: "no-store" });
    if (!answer.ok) return;
    const text = await answer.text();
    if (text === latest || by !== at("history-by").value || scope !== at("scope").value) return;
    latest = text;
    draw(JSON.parse(text));
  } catch {
    // The feed says that the connection is lost; what was drawn stays.
  }
}

function draw({ step_s: length, until, series }) {
  const requests = ({ steps }) => steps.reduce((sum, step) => sum + step.requests, 0);
  const sorted = series.filter(requests).sort((one, other) => requests(other) - requests(one));
  const shown = sorted.slice(0, SERIES_SHOWN).map(({ route, upstream, steps, replica }) => ({ name: [route ?? upstream ?? "all", shortReplica({ replica })].filter(Boolean).join(" "), steps: new Map(steps.map((step) => [step.at, step])) }));
  at("history").hidden = shown.length === 0;
  const oldest = Math.min(...shown.flatMap(({ steps }) => [...steps.keys()]));
  const hours = HOURS.find((hours) => oldest >= until - hours * 3_600) ?? HOURS.at(-1);
  const view = { length, until, shown, steps: (hours * 3_600) / length, span: hours === 1 ? "last hour" : `last ${hours} hours` };
  put(at("history-title"), view.span[0].toUpperCase() + view.span.slice(1));
  at("history-charts").replaceChildren(...CHARTS.map((chart) => figure(chart, view)));
  at("history-legend").replaceChildren(...shown.map(({ name }, number) => el("span", {}, el("span", { class: `swatch series-${number}` }), name)), ...(sorted.length > SERIES_SHOWN ? [el("span", {}, `${sorted.length - SERIES_SHOWN} more not drawn`)] : []));
}

// The start of a step, by its number from the left.
const startOf = (view, number) => view.until - (view.steps - number) * view.length;

function valueOf(chart, value, one, view, number) {
  const step = one.steps.get(startOf(view, number));
  return step ? value(step, view.length) : chart.gaps ? undefined : 0;
}

function figure(chart, view) {
  const numbers = [...Array(view.steps).keys()];
  const lines = view.shown.flatMap((one, series) => chart.values.map((value, rank) => ({ series, rank, values: numbers.map((number) => valueOf(chart, value, one, view, number)) })));
  const max = Math.max(0, ...lines.flatMap(({ values }) => values.filter(Number.isFinite)));
  const svg = made("svg", { viewBox: `0 0 ${view.steps} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": spoken(chart, view, lines) });
  for (let quarter = 1; quarter < QUARTERS; quarter++) svg.append(made("path", { class: "quarter", d: `M${(quarter * view.steps) / QUARTERS} 0V${HEIGHT}` }));
  // The first lies above the others.
  for (const { series, rank, values } of lines.reverse()) svg.append(made("path", { class: `line series-${series}${rank ? " faint" : ""}`, d: path(values, max) }));
  svg.addEventListener("pointermove", (event) => point(chart, view, event));
  svg.addEventListener("pointerleave", () => put(at("history-point"), ""));
  return el("figure", {}, el("figcaption", {}, el("span", {}, chart.title), el("span", { class: "number" }, chart.shown(max))), svg);
}

// Steps as they are, five minutes wide each, and not points that lines would join over what is not known.
function path(values, max) {
  let [out, joined] = ["", false];
  values.forEach((value, number) => {
    if (!Number.isFinite(value)) {
      joined = false;
      return;
    }
    const y = (HEIGHT - 1 - (max > 0 ? value / max : 0) * (HEIGHT - 2)).toFixed(1);
    out += joined ? `V${y}H${number + 1}` : `M${number} ${y}H${number + 1}`;
    joined = true;
  });
  return out;
}

// What the line below the charts tells while a pointer is on one of them.
function point(chart, view, event) {
  const box = event.currentTarget.getBoundingClientRect();
  const number = Math.min(view.steps - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * view.steps)));
  const clock = new Date(startOf(view, number) * 1e3).toISOString().slice(11, 16);
  const parts = view.shown.map((one) => `${one.name} ${chart.values.map((value) => chart.shown(valueOf(chart, value, one, view, number))).join(", ")}`);
  put(at("history-point"), `${clock} UTC · ${chart.title}: ${parts.join(" · ")}`);
}

function spoken(chart, view, lines) {
  const highest = ({ series, values }) => {
    const known = values.filter(Number.isFinite);
    return `${view.shown[series].name} at most ${known.length ? chart.shown(Math.max(...known)) : "unknown"}`;
  };
  return `${chart.title}, ${view.span}: ${lines.filter(({ rank }) => rank === 0).map(highest).join(", ")}`;
}

function made(kind, attributes) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
