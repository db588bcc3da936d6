// Draws streams as bars on a moving axis: phases in colour, a mark for each token frame, slow gaps hatched in red.
import { BEFORE_TOKENS, PHASE_NAMES } from "./format.js";
import { before } from "./streams.js";

// Frames come four times a second; drawn so much later, their ticks are there when they are due.
export const DELAY_MS = 400;

const BAR_TOP = 4;

// Room at the right edge, for how a stream ended.
const MARK_WIDTH = 11;

let colours = {};

// Reads the colours of the style sheet: after each change of the theme.
export function readColours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  colours = Object.fromEntries(PHASE_NAMES.map((name) => [name, read(name.replaceAll("_", "-"))]));
  for (const name of ["stall", "line", "tick", "good", "bad", "dim"]) colours[name] = read(name);
}

// Draws one stream. `view`: now on this page's clock, the width of the window in ms, and what counts as slow, in ms.
export function draw(canvas, stream, view) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return;
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  grid(pen, width, height, view);
  const x = (at) => (width - MARK_WIDTH) * (1 - (view.now - stream.start - at) / view.span);
  const end = stream.record ? stream.age : (stream.lost?.at ?? view.now) - stream.start;
  if (x(end) < 0) return;
  const box = { pen, x, width, top: BAR_TOP, height: height - 2 * BAR_TOP };
  phases(box, stream, end);
  slow(box, stream, end, view);
  blocked(box, stream, end);
  ticks(box, stream, end);
  if (stream.record) outcome(box, stream);
}

function grid(pen, width, height, view) {
  pen.fillStyle = colours.line;
  const step = view.span <= 20_000 ? 5_000 : view.span <= 90_000 ? 10_000 : 60_000;
  for (let ago = step; ago < view.span; ago += step) pen.fillRect(Math.round((width - MARK_WIDTH) * (1 - ago / view.span)), 0, 1, height);
}

function bar({ pen, x, width, top, height }, from, to, colour) {
  const [left, right] = [Math.max(0, x(from)), Math.min(width, x(to))];
  if (right <= left) return;
  pen.fillStyle = colour;
  pen.fillRect(left, top, Math.max(1, right - left), height);
}

// Up to the first token the phases lie one after the other; from then on the model writes, unless the client blocks.
function phases(box, stream, end) {
  let at = 0;
  for (const name of BEFORE_TOKENS) {
    let length = stream.phases[PHASE_NAMES.indexOf(name)] ?? 0;
    if (!stream.record && name === stream.phase) length = end - at;
    bar(box, at, Math.min(at + length, end), colours[name]);
    at += length;
  }
  if (at < end && !BEFORE_TOKENS.includes(stream.phase)) {
    const thin = { ...box, top: box.top + box.height * 0.3, height: box.height * 0.4 };
    bar(thin, at, end, colours.generation);
  }
}

// Gaps between tokens that are too long, and a wait for the first one that is.
function slow(box, stream, end, view) {
  const hatch = (from, to) => {
    const [left, right] = [Math.max(0, box.x(from)), Math.min(box.width, box.x(to))];
    if (right <= left) return;
    const { pen, top, height } = box;
    pen.save();
    pen.beginPath();
    pen.rect(left, top, right - left, height);
    pen.clip();
    pen.globalAlpha = 0.25;
    pen.fillStyle = colours.stall;
    pen.fillRect(left, top, right - left, height);
    pen.globalAlpha = 1;
    pen.strokeStyle = colours.stall;
    pen.lineWidth = 1.5;
    pen.beginPath();
    for (let edge = left - height; edge < right; edge += 6) {
      pen.moveTo(edge, top + height);
      pen.lineTo(edge + height, top);
    }
    pen.stroke();
    pen.strokeRect(left, top, right - left, height);
    pen.restore();
  };
  const first = before(stream);
  if (first > view.slowFirst) {
    box.pen.fillStyle = colours.stall;
    const [left, right] = [Math.max(0, box.x(view.slowFirst)), Math.min(box.width, box.x(Math.min(first, end)))];
    if (right > left) box.pen.fillRect(left, box.top + box.height, right - left, 2);
  }
  const known = stream.ticks;
  for (let number = 1; number < known.length; number++) {
    if (known[number] - known[number - 1] > view.slowGap) hatch(known[number - 1], known[number]);
  }
  const last = known.at(-1);
  if (end - DELAY_MS - last > view.slowGap && (stream.record ? stream.record.outcome !== "completed" : stream.phase === "generation")) hatch(last, end);
}

function blocked(box, stream, end) {
  for (const { kind, from, to } of stream.segments) {
    if (kind === "client_blocked") bar(box, from, Math.min(to, end), colours.client_blocked);
  }
  if (!stream.record && stream.phase === "client_blocked") bar(box, stream.age - stream.here, end, colours.client_blocked);
}

function ticks({ pen, x, top, height }, stream, end) {
  pen.fillStyle = colours.tick;
  // Where they are dense, they would cover everything.
  const apart = stream.ticks.length > 1 ? (x(stream.ticks.at(-1)) - x(stream.ticks[0])) / stream.ticks.length : 4;
  pen.globalAlpha = Math.min(1, Math.max(0.3, apart / 4)) || 1;
  let drawn = -Infinity;
  for (const tick of stream.ticks) {
    const at = Math.round(x(tick) * 2) / 2;
    // Those that fall on one place are one.
    if (tick > end || at < 0 || at - drawn < 0.75) continue;
    pen.fillRect(at, top, 1, height);
    drawn = at;
  }
  pen.globalAlpha = 1;
}

function outcome({ pen, x, top, height }, stream) {
  const good = stream.record.outcome === "completed";
  const at = x(stream.age) + 1;
  pen.fillStyle = pen.strokeStyle = good ? colours.good : stream.record.outcome === "client_cancelled" ? colours.dim : colours.bad;
  pen.lineWidth = 2;
  const middle = top + height / 2;
  pen.beginPath();
  if (good) {
    pen.arc(at + 4, middle, 3, 0, 2 * Math.PI);
    pen.fill();
  } else {
    pen.moveTo(at + 1, middle - 4);
    pen.lineTo(at + 9, middle + 4);
    pen.moveTo(at + 9, middle - 4);
    pen.lineTo(at + 1, middle + 4);
    pen.stroke();
  }
}
