// A page in a headless browser, from an origin of its own.
import http from "node:http";
import { chromium } from "playwright-core";

// Serves `html`, opens it, and hands the tab to `use`.
export async function withPage(html, use) {
  const page = http.createServer((_, answer) => answer.setHeader("content-type", "text/html").end(html));
  await new Promise((ready) => page.listen(0, "127.0.0.1", ready));
  const browser = await chromium.launch({
    // Without a name Playwright takes its own.
    executablePath: process.env.CHROMIUM || undefined,
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  try {
    const tab = await browser.newPage();
    await tab.goto(`http://127.0.0.1:${page.address().port}/`);
    await use(tab);
  } finally {
    await browser.close();
    page.close();
  }
}
