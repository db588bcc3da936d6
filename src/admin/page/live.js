// The live view: joins the feed, the list of streams, the panels and the anatomy.
import { Anatomy } from "./anatomy.js";
import { follow } from "./feed.js";
import { history, refresh } from "./history.js";
import { PHASE_NAMES, clockOf, count, el, put, words } from "./format.js";
import { panels } from "./panels.js";
import { Rows } from "./rows.js";
import { Streams, matcher } from "./streams.js";
import { DELAY_MS, readColours } from "./timeline.js";

const DRAW_MS = 80;

// While nothing comes, what leaves the window is looked for so often.
const LOOK_MS = 500;

const at = (id) => document.getElementById(id);
const streams = new Streams();
const slow = { gap: 2, first: 5 };
let wanted = () => true;
let paused = null;
let end = null;
// Since when there is no connection, by this machine's clock.
let lost = null;

const anatomy = new Anatomy(at("anatomy"));
const rows = new Rows(at("streams"), (stream) => anatomy.open(stream, slow));

function connect() {
  end = follow(at("scope").value === "fleet" ? "/api/streams/events?fleet" : "/api/streams/events", {
    state(word, message = "") {
      if (word === "live") {
        lost = null;
        streams.clear();
        refresh();
      } else if (lost === null) {
        lost = clockOf(new Date());
        streams.lose(performance.now(), lost);
        list();
      }
      document.body.dataset.feed = word;
      put(at("state"), lost === null ? "live" : `connection lost since ${lost}`);
      put(at("message"), message && `${message} What is shown is as it was at ${lost}.`);
      at("message").hidden = !message;
    },
    hello({ version, percentiles_minutes }) {
      put(at("version"), version);
      put(at("minutes"), `last ${percentiles_minutes} min`);
    },
    overview(overview) {
      slow.gap = overview.proxy.slow_gap_s;
      slow.first = overview.proxy.slow_first_token_s;
      at("scope-label").hidden = !overview.proxy.fleet;
      panels(overview, openRecord);
      pointAt(overview.proxy.listen);
    },
    streams(frame) {
      streams.take(frame, performance.now());
      list();
    },
  });
}

let listed = 0;
function list() {
  listed = performance.now();
  if (paused === null) streams.forget(listed - DELAY_MS - Number(at("span").value) * 1e3);
  const shown = streams.list(at("order").value, wanted);
  rows.show(shown, slow);
  anatomy.refresh(slow);
  put(at("running"), lost === null ? count(streams.running()) : "0");
  const hidden = lost === null ? streams.notShown() : 0;
  at("not-shown").hidden = hidden === 0;
  put(at("not-shown"), `${count(hidden)} more not shown: of many, the quietest, the oldest and a sample are`);
  const any = streams.live.size + streams.ended.size > 0;
  at("empty").hidden = any || streams.seen;
  at("quiet").hidden = any || !streams.seen;
  at("no-match").hidden = !any || shown.length > 0;
  at("streams").hidden = shown.length === 0;
}

// An error of the panel, as if it stood in the list.
function openRecord(record) {
  const known = streams.ended.get(record.span_id);
  const phases = PHASE_NAMES.map((name) => (record.phases[name] ?? 0) * 1e3);
  anatomy.open(known ?? { key: `e${record.span_id}`, start: 0, facts: record, record, age: record.duration_s * 1e3, phases, ticks: [], segments: [], frames: record.frames ?? 0, bytes: record.bytes_out }, slow);
}

// Where a frontend should be pointed at, as this machine sees it.
function pointAt(listen) {
  const known = listen.find((one) => !one.startsWith("unix:") && !one.endsWith(":0"));
  put(at("frontend"), known ? `http://${known.replace("0.0.0.0", location.hostname).replace("[::]", location.hostname)}` : "the address that the proxy printed at its start");
}

let drawn = 0;
function draw(now) {
  if (lost !== null && paused === null && now - listed >= LOOK_MS) list();
  if (now - drawn >= DRAW_MS && !document.hidden) {
    drawn = now;
    rows.draw({ now: (paused ?? now) - DELAY_MS, span: Number(at("span").value) * 1e3, slowGap: slow.gap * 1e3, slowFirst: slow.first * 1e3 });
  }
  requestAnimationFrame(draw);
}

function pause() {
  const button = at("pause");
  if (paused === null) {
    paused = performance.now();
    end();
    put(at("state"), "paused");
    document.body.dataset.feed = "paused";
  } else {
    paused = null;
    connect();
  }
  button.setAttribute("aria-pressed", String(paused !== null));
  put(button, paused === null ? "Pause" : "Go on");
}

const THEMES = ["auto", "light", "dark"];
function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  put(at("theme"), `Theme: ${name}`);
  try {
    localStorage.setItem("streamgauge-theme", name);
  } catch {
    // Without storage it lasts as long as the page.
  }
  readColours();
}
const nextTheme = () => theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % THEMES.length]);

function stored() {
  try {
    const name = localStorage.getItem("streamgauge-theme");
    return THEMES.includes(name) ? name : "auto";
  } catch {
    return "auto";
  }
}

// Keys that work from everywhere but a field.
function key(event) {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "Escape" && event.target === at("filter")) {
    at("filter").value = "";
    filter();
    at("streams").focus();
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const act = { "/": () => at("filter").focus(), p: pause, t: nextTheme, "?": () => at("help").showModal() }[event.key];
  if (act) {
    act();
    event.preventDefault();
  } else if (["j", "k", "ArrowDown", "ArrowUp"].includes(event.key) && document.activeElement === document.body) {
    at("streams").focus();
    event.preventDefault();
  }
}

// Where all stands below each other, a thousand streams must not come before the panels.
const narrow = matchMedia("(max-width: 62rem)");
function place() {
  const main = document.querySelector("main");
  const aside = document.querySelector("aside");
  if (narrow.matches) main.prepend(aside);
  else main.append(aside);
}

// This replica, or all of them.
function scope() {
  end();
  streams.clear();
  if (paused === null) connect();
  list();
}

function filter() {
  wanted = matcher(at("filter").value);
  list();
}

at("legend").append(...PHASE_NAMES.filter((name) => name !== "proxy").map((name) => el("span", {}, el("span", { class: `swatch ${name}` }), words(name))), el("span", {}, el("span", { class: "swatch stall" }), "slow gap"), el("span", {}, el("span", { class: "swatch tick" }), "token frame"));
at("filter").addEventListener("input", filter);
at("order").addEventListener("change", list);
at("scope").addEventListener("change", scope);
at("span").addEventListener("change", list);
at("pause").addEventListener("click", pause);
at("theme").addEventListener("click", nextTheme);
at("help-button").addEventListener("click", () => at("help").showModal());
document.addEventListener("keydown", key);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readColours);
narrow.addEventListener("change", place);
place();
theme(stored());
connect();
history();
requestAnimationFrame(draw);
