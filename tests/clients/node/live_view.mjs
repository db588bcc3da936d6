// The live view in a browser: streams are drawn while they run, taken apart, filtered, by mouse and by keyboard, in light and
// dark, a night's charts, on a phone, and a thousand of them; what is out of service is said, what is over goes, and a proxy that died shows nothing as running.
// Usage: live_view.mjs PROXY_URL ADMIN_URL GUARDED_ADMIN_URL TOKEN PROXY_PID
import assert from "node:assert/strict";
import http from "node:http";
import { launch, open } from "./live_browser.mjs";
import { many, stream } from "./live_traffic.mjs";

const [proxy, admin, guarded, token, pid] = process.argv.slice(2);
const LIVE = "#streams li.live";

// How much of a row's timeline is drawn.
const inked = (page) =>
  page.evaluate((selector) => {
    const canvas = document.querySelector(`${selector} canvas`);
    if (!canvas?.width) return 0;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let inked = 0;
    for (let at = 3; at < data.length; at += 4) inked += data[at] > 200;
    return inked;
  }, LIVE);

const tokens = async (page) => Number(await page.locator(`${LIVE} .numbers > :last-child`).first().textContent());

async function nothingYet({ page }) {
  await page.goto(`${admin}/`);
  await page.getByText("Nothing has come through yet.").waitFor();
  assert.match(await page.locator("#upstreams").textContent(), /vllm-a.*up/s);
}

async function drawnAndOpened({ page }) {
  const running = stream(proxy, { knobs: { tokens: 60, gap_ms: 100 }, user: "alice" });
  await page.locator(LIVE).waitFor();
  // The bar grows and its numbers rise while the stream runs.
  await page.waitForFunction((selector) => Number(document.querySelector(`${selector} .numbers > :last-child`)?.textContent) > 3, LIVE);
  const [before, inkBefore] = [await tokens(page), await inked(page)];
  await page.waitForFunction(([selector, before]) => Number(document.querySelector(`${selector} .numbers > :last-child`)?.textContent) > before + 8, [LIVE, before]);
  assert.ok((await inked(page)) > inkBefore, "the timeline grows");
  assert.match(await page.locator(LIVE).textContent(), /chat.*alice.*writing/s);

  await page.locator(LIVE).click();
  const anatomy = page.locator("#anatomy");
  await anatomy.waitFor({ state: "visible" });
  assert.match(await anatomy.textContent(), /generation.*the upstream: decoding/s);
  assert.equal(await running, 200);
  // It stays open when the stream ends, and tells how.
  await anatomy.getByText("completed").waitFor();
  assert.match(await anatomy.textContent(), /Answered by vllm-.*\$ 0\.00/s);
  await page.keyboard.press("Escape");
  await anatomy.waitFor({ state: "hidden" });
}

async function byKeyboard({ page }) {
  // What has ended by now must not leave the list while keys are tried.
  await page.locator("#span").selectOption("300");
  await Promise.all([stream(proxy, { path: "/api/v1/chat", user: "bob", knobs: { tokens: 3 } }), stream(proxy, { knobs: { cut_at: 3 }, user: "carol" })]);
  await page.getByRole("option", { name: /search.*bob/ }).waitFor();
  await page.keyboard.press("j");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("k");
  assert.equal(await page.locator('#streams [aria-selected="true"]').count(), 1);
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(outline, "solid", "the focus is seen");
  await page.keyboard.press("Enter");
  await page.locator("#anatomy").waitFor({ state: "visible" });
  await page.keyboard.press("Escape");
  await page.keyboard.press("/");
  await page.keyboard.type("user:bob");
  await page.waitForFunction(() => document.querySelectorAll("#streams li").length === 1);
  await page.keyboard.press("Escape");
  // Both that came just now; what ended before may have left the list on a slow machine.
  await page.waitForFunction(() => document.querySelectorAll("#streams li").length >= 2);
  await page.keyboard.press("/");
  await page.keyboard.type("outcome:failed");
  await page.getByRole("option", { name: /carol.*truncated/ }).waitFor();
  assert.equal(await page.locator("#streams li").count(), 1);
  await page.keyboard.press("Escape");
  // What failed stands among the failures, with its trace.
  await page.locator("#failures li", { hasText: /carol.*trace [0-9a-f]{32}/ }).waitFor();
  await page.locator("#failures .link").first().click();
  await page.locator("#anatomy").getByText("dropped the connection").waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.press("p");
  assert.equal(await page.locator("#state").textContent(), "paused");
  await page.keyboard.press("p");
  await page.waitForFunction(() => document.getElementById("state").textContent === "live");
  // Every control can be reached by the Tab key alone.
  const reached = new Set();
  for (let step = 0; step < 40; step++) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => document.activeElement.id));
  }
  for (const id of ["filter", "span", "order", "pause", "theme", "help-button", "streams"]) assert.ok(reached.has(id), `${id} by Tab`);
}

async function lightAndDark({ page }) {
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.emulateMedia({ colorScheme: "light" });
  const light = await background();
  await page.emulateMedia({ colorScheme: "dark" });
  const dark = await background();
  assert.notEqual(light, dark);
  await page.locator("#theme").click();
  assert.equal(await background(), light, "the toggle beats the system");
  await page.reload();
  await page.waitForFunction(() => document.getElementById("state").textContent === "live");
  assert.equal(await background(), light, "and is kept");
  await page.locator("#theme").click();
  await page.locator("#theme").click();
}

// What ended is in the charts of the last 24 hours, by route and by upstream.
async function theNight({ page }) {
  await page.reload();
  const history = page.locator("#history");
  await history.waitFor({ state: "visible" });
  const legend = page.locator("#history-legend");
  await legend.getByText("chat", { exact: true }).waitFor();
  const charts = history.locator("svg");
  assert.equal(await charts.count(), 5);
  for (const [number, title] of [[0, /First token.*chat at most \d/], [1, /tokens a second.*chat at most \d/], [2, /Failed requests.*chat at most [1-9]/], [3, /Cost.*chat at most 0?\.?\d/], [4, /In flight/]]) {
    assert.match(await charts.nth(number).getAttribute("aria-label"), title);
  }
  // The newest step is at the right edge, and higher than an hour before.
  const lengths = await history.locator("path.line").evaluateAll((lines) => lines.map((line) => line.getTotalLength()));
  assert.ok(lengths.some((length) => length > 12 + 40), `${lengths}`);
  // All that there is lies in the last hour: 12 steps of five minutes.
  await page.locator("#history-title", { hasText: /^Last hour$/ }).waitFor();
  const box = await charts.first().boundingBox();
  // The requests may have ended in the step before the newest.
  const told = [];
  for (const steps of [0.5, 1.5]) {
    await charts.first().dispatchEvent("pointermove", { clientX: box.x + box.width * (1 - steps / 12), clientY: box.y + 20 });
    told.push(await page.locator("#history-point").textContent());
  }
  assert.ok(told.some((line) => /\d\d:\d\d UTC · First token.*chat \d/.test(line)), `${told}`);
  await page.locator("#history-by").selectOption("upstream");
  await legend.getByText("vllm-a", { exact: true }).waitFor();
  await page.locator("#history-by").selectOption("all");
  await legend.getByText("all", { exact: true }).waitFor();
  assert.equal(await legend.locator("span.swatch").count(), 1);
  await page.locator("#history-by").selectOption("route");
  await history.locator("summary").click();
  assert.ok(!(await charts.first().isVisible()));
  await history.locator("summary").click();
  await charts.first().waitFor({ state: "visible" });
}

// Bytes that the feed sends in two seconds.
function feedBytes() {
  return new Promise((resolve, reject) => {
    const request = http.get(`${admin}/api/streams/events`, (answer) => {
      let bytes = 0;
      // The first frame has all facts.
      setTimeout(() => (bytes = 0), 1_000);
      setTimeout(() => (request.destroy(), resolve(bytes)), 3_000);
      answer.on("data", (piece) => (bytes += piece.length));
      answer.on("error", () => {});
    });
    request.on("error", reject);
  });
}

async function aThousand({ page }) {
  const close = await many(proxy, 1_000, { tokens: 10_000, gap_ms: 400 });
  await page.waitForFunction(() => document.getElementById("running").textContent === "1000");
  await page.locator("#not-shown").getByText("800 more not shown").waitFor();
  assert.equal(await page.locator(LIVE).count(), 200);
  const frames = await page.evaluate(() => new Promise((resolve) => {
    const until = performance.now() + 2_000;
    let frames = 0;
    const count = (now) => (now < until ? ((frames += 1), requestAnimationFrame(count)) : resolve(frames));
    requestAnimationFrame(count);
  }));
  assert.ok(frames > 20, `${frames} frames in two seconds`);
  await page.keyboard.press("/");
  await page.keyboard.type("nobody");
  await page.locator("#no-match").waitFor({ state: "visible" });
  await page.keyboard.press("Escape");
  const bytes = await feedBytes();
  assert.ok(bytes > 10_000 && bytes < 600_000, `${bytes} bytes in two seconds`);
  close();
  await page.waitForFunction(() => document.getElementById("running").textContent === "0");
  return `${frames / 2} frames and ${Math.round(bytes / 2000)} kB a second with 1,000 streams`;
}

// What ended is in the list for as long as it is on the axis.
async function goesWithItsWindow({ page }) {
  await page.locator("#span").selectOption("15");
  const began = Date.now();
  await stream(proxy, { knobs: { tokens: 3 }, user: "mallory" });
  const row = page.getByRole("option", { name: /mallory.*completed/ });
  await row.waitFor();
  await row.waitFor({ state: "detached", timeout: 30_000 });
  assert.ok(Date.now() - began > 14_000, "and not sooner");
  await page.locator("#quiet").waitFor({ state: "visible" });
}

async function outOfService({ page }) {
  const pull = (query) => fetch(`${admin}/api/levers/${query}`, { method: "POST" });
  assert.equal((await pull("drain?what=vllm-a&reason=a+new+graphics+card")).status, 200);
  const levers = page.locator("#levers");
  await levers.getByText("a new graphics card").waitFor();
  assert.match(await levers.textContent(), /upstream `vllm-a` drained.*since \d\d:\d\d:\d\d, by 127\.0\.0\.1/s);
  await page.locator("#hints", { hasText: "Nobody serves route all" }).waitFor();
  await page.locator("#upstreams", { hasText: "drained" }).waitFor();
  assert.equal((await pull("enable?what=vllm-a")).status, 200);
  await levers.waitFor({ state: "hidden" });
}

async function shadowsAreShown({ page }) {
  await stream(proxy, { path: "/copied/v1/chat/completions", knobs: { tokens: 3 } });
  await page.locator("#shadows", { hasText: /copied: copies to vllm-next.*1 same/ }).waitFor();
}

// Words that are broken in two, of what is to be seen.
const broken = (page) => page.evaluate(() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!node.parentElement.checkVisibility() || node.parentElement.closest("select, dialog")) continue;
    for (const word of node.data.matchAll(/[\p{L}\p{N}]+/gu)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map(({ top }) => Math.round(top))).size > 1) found.push(word[0]);
    }
  }
  return found;
});

// Names among the failures and refusals that are broken though they fit into a line, or stand out of the panel.
const torn = (page) => page.evaluate(() => {
  const names = [...document.querySelectorAll("#failures .name, #refusals .name")];
  const isTorn = (name) => {
    const [box, panel] = [name, name.closest(".content")].map((part) => part.getBoundingClientRect());
    const line = document.createElement("span");
    line.className = "name";
    line.style.cssText = "position: absolute; max-width: none; white-space: nowrap; visibility: hidden";
    line.textContent = name.textContent;
    name.parentElement.append(line);
    const whole = line.getBoundingClientRect();
    line.remove();
    const fits = whole.width <= panel.width;
    return (fits && box.height > whole.height + 1) || box.right > panel.right + 1;
  };
  return [names.length, names.filter(isTorn).map((name) => name.textContent)];
});

async function onAPhone({ page }) {
  // Whose name breaks wherever there is a hyphen, whoever lets it; and one that no phone is wide enough for.
  for (const user of ["carol-of-the-night-shift-in-search", `u-${"very-long-name-".repeat(8)}`]) await stream(proxy, { knobs: { cut_at: 3 }, user });
  await page.locator("#failures .name", { hasText: "very-long-name" }).first().waitFor();
  const close = await many(proxy, 300, { tokens: 10_000, gap_ms: 400 });
  await page.waitForFunction(() => document.querySelectorAll("#streams li.live").length === 200);
  for (const width of [390, 360, 768]) {
    await page.setViewportSize({ width, height: 844 });
    await page.waitForFunction(() => document.querySelector("main").firstElementChild.tagName === "ASIDE");
    const sideways = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(sideways <= 0, `${sideways} px too wide at ${width}`);
    assert.deepEqual(await broken(page), [], `at ${width}`);
    const [names, inPieces] = await torn(page);
    assert.ok(names > 5, `${names} names among what failed`);
    assert.deepEqual(inPieces, [], `at ${width}`);
    const [panels, list] = await page.evaluate(() => ["aside", ".list"].map((part) => document.querySelector(part).getBoundingClientRect().top));
    assert.ok(panels < list, `the panels come first at ${width}`);
  }
  await page.setViewportSize({ width: 1200, height: 800 });
  await page.waitForFunction(() => document.querySelector("main").lastElementChild.tagName === "ASIDE");
  assert.deepEqual(await broken(page), []);
  close();
  await page.waitForFunction(() => document.getElementById("running").textContent === "0");
}

// The last of all: the proxy is killed.
async function lost({ page, wrong }) {
  void stream(proxy, { knobs: { tokens: 10_000 }, user: "zoe" });
  await page.getByRole("option", { name: /zoe.*writing/ }).waitFor();
  assert.deepEqual(wrong, []);
  process.kill(Number(pid), "SIGKILL");
  await page.waitForFunction(() => /connection lost since \d\d:\d\d:\d\d/.test(document.getElementById("state").textContent));
  await page.getByRole("option", { name: /zoe.*lost at/ }).waitFor();
  assert.equal(await page.locator(LIVE).count(), 0, "nothing is shown as running");
  assert.ok(!(await page.locator("#running").isVisible()));
  await page.locator("#message", { hasText: "What is shown is as it was at" }).waitFor();
  await page.waitForFunction(() => document.querySelectorAll("#streams li").length === 0, undefined, { timeout: 30_000 });
}

async function loggedIn(browser) {
  const { page, wrong } = await open(browser);
  await page.goto(`${guarded}/`);
  await page.getByLabel("Admin token").fill("wrong");
  await page.keyboard.press("Enter");
  await page.getByText("This is not the admin token.").waitFor();
  await page.getByLabel("Admin token").fill(token);
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("state")?.textContent === "live");
  const [cookie] = await page.context().cookies();
  assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.value.includes(token)], [true, "Strict", false]);
  assert.ok(!page.url().includes(token));
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByLabel("Admin token").waitFor();
  assert.equal((await page.context().cookies()).length, 0);
  // Refusals are answers with a status, which browsers note in the console.
  assert.deepEqual(wrong.filter((line) => !line.includes("401 (Unauthorized)")), []);
  await page.context().close();
}

const browser = await launch();
try {
  const view = await open(browser);
  await nothingYet(view);
  await drawnAndOpened(view);
  await byKeyboard(view);
  await theNight(view);
  await lightAndDark(view);
  const busy = await aThousand(view);
  await goesWithItsWindow(view);
  await outOfService(view);
  await shadowsAreShown(view);
  await onAPhone(view);
  assert.deepEqual(view.wrong, []);
  await loggedIn(browser);
  await lost(view);
  console.log(`live view: drawn, opened, by keyboard, the night, light and dark, out of service, on a phone, logged in, lost; ${busy}`);
} finally {
  await browser.close();
}
