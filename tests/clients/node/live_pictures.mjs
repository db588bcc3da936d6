// Pictures of the live view for the docs. Usage: live_pictures.mjs PROXY_URL ADMIN_URL DIRECTORY BINARY
import { execFileSync } from "node:child_process";
import { launch, open } from "./live_browser.mjs";
import { morning } from "./live_traffic.mjs";

const [proxy, admin, directory, binary] = process.argv.slice(2);
const stop = morning(proxy);
const browser = await launch();
try {
  const { page, wrong } = await open(browser, { viewport: { width: 1200, height: 1000 }, colorScheme: "light" });
  await page.goto(`${admin}/`);
  // Long enough for a whole window of timelines, and for the canary's evidence.
  await page.waitForTimeout(40_000);
  await page.screenshot({ path: `${directory}/live-light.png` });
  process.stdout.write(execFileSync(binary, ["top", "--once", "--admin", admin]));
  await page.emulateMedia({ colorScheme: "dark" });
  await page.waitForTimeout(1_000);
  await page.screenshot({ path: `${directory}/live-dark.png` });
  await page.emulateMedia({ colorScheme: "light" });
  await page.locator("#filter").fill("reasoning completed");
  await page.locator("#streams li.ended").first().click();
  await page.locator("#anatomy").waitFor();
  await page.waitForTimeout(500);
  await page.locator("#anatomy").screenshot({ path: `${directory}/live-anatomy.png` });
  await page.keyboard.press("Escape");
  await page.locator("#filter").fill("");
  if (process.env.PHONE) {
    await page.setViewportSize({ width: 390, height: 844 });
    await page.waitForTimeout(1_000);
    await page.screenshot({ path: `${process.env.PHONE}/live-phone.png` });
  }
  if (wrong.length > 0) throw new Error(wrong.join("\n"));
} finally {
  await browser.close();
  stop();
}
process.exit(0);
