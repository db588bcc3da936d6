// What the page knows of streams: those that run, and the last that ended. Times of a stream are milliseconds since its head;
// `start` is where that lies on this page's clock.
import { BEFORE_TOKENS, PHASE_NAMES, endpointOf, isBad } from "./format.js";

// Ended ones that are kept; of those that failed, of the refused and of the others so many whatever else comes.
const ENDED_MAX = 60;
const ENDED_SHARE = 15;
const TICKS_MAX = 1200;
const SEGMENTS_MAX = 400;

export class Streams {
  constructor() {
    this.clear();
  }

  clear() {
    // Whether there ever was one.
    this.seen = this.seen ?? false;
    // By replica: how many run there, and how many of them are not shown.
    this.counts = new Map();
    this.live = new Map();
    // By span id, the latest last.
    this.ended = new Map();
  }

  // Takes one frame of the feed, which came at `now` on this page's clock.
  take(frame, now) {
    this.counts.set(frame.replica ?? "", { running: frame.running, not_shown: frame.not_shown });
    this.seen ||= frame.rows.length + frame.ended.length > 0;
    for (const facts of frame.facts) this.#stream(facts.id, now).facts = facts;
    for (const row of frame.rows) this.#progress(this.#stream(row.id, now), row, now);
    for (const { record, meaning } of frame.ended) this.#end(record, meaning, frame.now_ms, now);
    for (const id of frame.gone) this.live.delete(id);
    this.#trim();
  }

  running() {
    return [...this.counts.values()].reduce((sum, { running }) => sum + running, 0);
  }

  notShown() {
    return [...this.counts.values()].reduce((sum, { not_shown }) => sum + not_shown, 0);
  }

  // What is too much goes, the oldest first, but of no kind its share.
  #trim() {
    const kinds = new Map();
    for (const { record } of this.ended.values()) kinds.set(kind(record), (kinds.get(kind(record)) ?? 0) + 1);
    for (const [span, { record }] of this.ended) {
      if (this.ended.size <= ENDED_MAX) return;
      const left = kinds.get(kind(record));
      if (left <= ENDED_SHARE) continue;
      kinds.set(kind(record), left - 1);
      this.ended.delete(span);
    }
  }

  // The connection is gone, at `now` on this page's clock: what ran then may be over. `clock` is the time of the day.
  lose(now, clock) {
    for (const stream of this.live.values()) stream.lost = { at: now, clock };
  }

  // Forgets what was over before this time on the page's clock.
  forget(before) {
    for (const [key, stream] of this.ended) if (stream.start + stream.age < before) this.ended.delete(key);
    for (const [key, stream] of this.live) if (stream.lost?.at < before) this.live.delete(key);
  }

  #stream(id, now) {
    let stream = this.live.get(id);
    if (!stream) {
      stream = { key: `s${id}`, id, start: now, facts: { id }, age: 0, phase: "admit", here: 0, phases: [], ticks: [], segments: [], frames: 0, bytes: 0, attempts: 0 };
      this.live.set(id, stream);
    }
    return stream;
  }

  #progress(stream, row, now) {
    const slot = PHASE_NAMES.indexOf("client_blocked");
    const blocked = (row.phases_ms[slot] ?? 0) - (stream.phases[slot] ?? 0);
    // A frame can only be late: the earliest guess is the best.
    stream.start = Math.min(stream.start, now - row.age_ms);
    this.#segment(stream, row, blocked > (row.age_ms - stream.age) / 2);
    stream.age = row.age_ms;
    stream.phase = row.phase;
    stream.here = row.here_ms;
    stream.phases = row.phases_ms;
    stream.frames = row.frames;
    stream.bytes = row.bytes_out;
    stream.attempts = row.attempts;
    if (row.ticks_lost) stream.ticks.push(NaN);
    let at = 0;
    for (const step of row.ticks ?? []) stream.ticks.push((at += step));
    if (stream.ticks.length > TICKS_MAX) stream.ticks.splice(0, stream.ticks.length - TICKS_MAX);
  }

  // Since the first token, the stream waits for the model or for the client.
  #segment(stream, row, blocked) {
    if (BEFORE_TOKENS.includes(row.phase)) return;
    const kind = blocked || row.phase === "client_blocked" ? "client_blocked" : "generation";
    const last = stream.segments.at(-1);
    if (last?.kind === kind) last.to = row.age_ms;
    else stream.segments.push({ kind, from: last ? last.to : before(stream), to: row.age_ms });
    if (stream.segments.length > SEGMENTS_MAX) stream.segments.shift();
  }

  #end(record, meaning, serverNow, now) {
    const seen = [...this.live.values()].find((stream) => stream.facts.span_id === record.span_id);
    const length = record.duration_s * 1e3;
    const start = seen?.start ?? now - (serverNow - Date.parse(record.timestamp));
    const phases = PHASE_NAMES.map((name) => (record.phases[name] ?? 0) * 1e3);
    const stream = { key: `e${record.span_id}`, start, facts: record, record, meaning, age: length, phases, ticks: seen?.ticks ?? [], segments: seen?.segments ?? [], frames: record.frames ?? 0, bytes: record.bytes_out };
    if (seen) {
      const last = stream.segments.at(-1);
      if (last) last.to = length;
      seen.endedAs = stream;
    }
    this.ended.set(record.span_id, stream);
  }

  // Live ones as wanted, then the ended, the latest first.
  list(order, wanted) {
    const live = [...this.live.values()].filter(wanted);
    const by = {
      newest: (a, b) => earlier(b, a),
      longest: earlier,
      quietest: (a, b) => b.here - a.here || a.id - b.id,
    };
    live.sort(by[order] ?? by.longest);
    return [...live, ...[...this.ended.values()].reverse().filter(wanted)];
  }
}

// Of one replica numbers tell which came first. Those of several tell nothing of each other.
function earlier(a, b) {
  return a.facts.replica ? a.start - b.start || a.id - b.id : a.id - b.id;
}

function kind({ outcome }) {
  return isBad(outcome) ? "failed" : outcome === "rejected" ? "refused" : "other";
}

// How long it took until the first token, or takes so far.
export function before(stream) {
  return BEFORE_TOKENS.reduce((sum, name) => sum + (stream.phases[PHASE_NAMES.indexOf(name)] ?? 0), 0);
}

const KEYS = { route: "route", upstream: "upstream", endpoint: "endpoint", user: "user.id", model: "gen_ai.request.model", status: "http.response.status_code", id: "request_id", replica: "replica" };

// Whether a stream has all words of a filter: `route:chat upstream:vllm user:alice outcome:failed`, or any text.
export function matcher(text) {
  const terms = text.toLowerCase().split(/\s+/).filter(Boolean);
  return (stream) => terms.every((term) => matches(stream, term));
}

function matches(stream, term) {
  const { facts, record } = stream;
  const outcome = record?.outcome ?? (stream.lost ? "lost" : "running");
  const [key, value] = term.split(/:(.*)/s);
  if (key === "outcome" && value !== undefined) return outcome.includes(value) || (value === "failed" && isBad(outcome) && !!record);
  const told = (name) => (name === "endpoint" ? endpointOf(facts) : facts[name]);
  if (KEYS[key] && value !== undefined) return String(told(KEYS[key]) ?? "").toLowerCase().includes(value);
  const texts = [...Object.values(KEYS), "url.path", "trace_id", "error_type"].map(told);
  return [...texts, outcome].join("\n").toLowerCase().includes(term);
}
