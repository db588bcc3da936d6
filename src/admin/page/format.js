// Words and small pieces of the page. Everything is put in as text, never as HTML.

// An element with attributes and children; a child may be a text, an element or nothing.
export function el(kind, attributes = {}, ...children) {
  const made = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

// Whose a row is, in the view of a fleet, as short as tells replicas apart; nothing elsewhere.
export function shortReplica({ replica }) {
  return replica ? `@${replica.slice(0, 8)}` : "";
}

// Puts a text in only where it differs: most do not, four times a second.
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// 35 ms, 3.12 s, 2:05 min.
export function time(seconds) {
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return "–";
  if (seconds < 0.0995) return `${(seconds * 1e3).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1e3)} ms`;
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  if (seconds < 120) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${String(Math.floor(seconds % 60)).padStart(2, "0")} min`;
}

// The time of the day, as timestamps have it: UTC.
export const clockOf = (date) => date.toISOString().slice(11, 19);

// A name that may be long, with places to break it: never inside a word.
export function breakable(text) {
  const pieces = String(text ?? "").split(/(?<=[./:_@-])/);
  return pieces.flatMap((piece, at) => (at === 0 ? [piece] : [document.createElement("wbr"), piece]));
}

// host:port of what has server.address, with the address of a name behind it.
export function endpointOf(facts) {
  const [address, port, peer] = [facts["server.address"], facts["server.port"], facts["network.peer.address"]];
  if (!address) return undefined;
  return `${address}${port ? `:${port}` : ""}${peer ? ` (${peer})` : ""}`;
}

export function count(number) {
  if (typeof number !== "number") return "–";
  if (number < 10_000) return String(number);
  if (number < 10_000_000) return `${(number / 1e3).toFixed(number < 1e5 ? 1 : 0)} k`;
  return `${(number / 1e6).toFixed(1)} M`;
}

export function bytes(number) {
  if (typeof number !== "number") return "–";
  if (number < 1_000) return `${number} B`;
  if (number < 1e6) return `${(number / 1e3).toFixed(1)} kB`;
  return `${(number / 1e6).toFixed(1)} MB`;
}

// What a phase of a running request means, in docs/measurements.md's terms.
export const PHASES = {
  receive: "reading the request",
  admit: "routing, limits",
  failed_attempts: "trying again",
  connect: "connecting",
  upstream_wait: "awaiting the head",
  preamble: "awaiting a token",
  generation: "writing",
  client_blocked: "client blocks",
  proxy: "in the proxy",
};

export const PHASE_NAMES = Object.keys(PHASES);

// Those that come before the first token, in their order.
export const BEFORE_TOKENS = ["receive", "admit", "failed_attempts", "connect", "upstream_wait", "preamble"];

export const words = (name) => String(name ?? "").replaceAll("_", " ");

export const isGood = (outcome) => outcome === "completed";

export const isBad = (outcome) => outcome !== "completed" && outcome !== "client_cancelled" && outcome !== "rejected";

// A text with a button that copies it.
export function copyable(text, label) {
  const button = el("button", { type: "button", class: "copy", "aria-label": `Copy ${label}`, title: `Copy ${label}` }, "copy");
  button.addEventListener("click", async (event) => {
    event.stopPropagation();
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      // Browsers give the clipboard to pages of https and of this machine alone: select it, for the keyboard's copy.
      getSelection().selectAllChildren(button.previousSibling);
      button.textContent = "press Ctrl+C";
    }
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
  return el("span", { class: "copyable" }, el("code", {}, text), button);
}
