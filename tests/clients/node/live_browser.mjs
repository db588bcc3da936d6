// A browser for the live view that remembers whatever goes wrong in a page.
import { chromium } from "playwright-core";

export const launch = () =>
  chromium.launch({
    // Without a name Playwright takes its own.
    executablePath: process.env.CHROMIUM || undefined,
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });

// A page and what went wrong in it: errors, messages of the console, and violations of the content security policy.
export async function open(browser, options) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 }, ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(`error: ${error.stack}`));
  page.on("console", (message) => message.type() === "error" && wrong.push(`console: ${message.text()}`));
  await page.exposeFunction("violated", (what) => wrong.push(`policy: ${what}`));
  await page.addInitScript(() => addEventListener("securitypolicyviolation", (event) => globalThis.violated(`${event.violatedDirective} ${event.blockedURI}`)));
  return { page, wrong };
}
