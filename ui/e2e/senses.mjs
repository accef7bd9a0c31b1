// Looks at the charts of a Unit in real Chromium: they must move; an alert must appear on chart and list, and clear, all
// without a reload and without an error in the console. The environment is that of walk.mjs. Prints `charts move` and
// `alert seen` when it does, so that whoever makes the alert knows when to begin and to end.
import { openBrowser } from "./browser.mjs";
import { enter, openUnit, report } from "./walk.mjs";

const env = process.env;
const begun = Date.now();
const say = (text) => console.log(`${((Date.now() - begun) / 1000).toFixed(1).padStart(6)} s  ${text}`);
const LONG = 90_000;

function must(condition, text) {
  if (!condition) throw new Error(text);
}

/** What a chart shows: the end of its time axis, and its lines. */
const state = (page, title) =>
  page.evaluate((name) => {
    const chart = document.querySelector(`[data-chart="${CSS.escape(name)}"]`);
    return {
      till: Number(chart?.getAttribute("data-till") ?? 0),
      lines: [...(chart?.querySelectorAll("path") ?? [])].map((path) => path.getAttribute("d")).join("|"),
    };
  }, title);

const browser = await openBrowser({
  url: env.AOS_URL,
  spki: env.AOS_SPKI,
  shots: env.AOS_SHOTS,
  forgive: ({ text, at }) => text.includes("status of 401") && /\/(users\/me|events)\/$/.test(at),
});
const { page, shot } = browser;
try {
  await enter(browser, { url: env.AOS_URL, user: env.AOS_USER ?? "owner", password: env.AOS_PASSWORD });
  must(await openUnit(browser, env.AOS_WATCH_UNIT), "there is no Unit");
  let loads = 0;
  page.on("load", () => {
    loads += 1;
  });
  await page.getByRole("tab", { name: "Monitoring" }).click();
  await page.locator('[data-monitoring="read"]').waitFor();
  await page.getByText("15 min", { exact: true }).click();
  // A level line has no height, so it counts as hidden.
  const line = page.locator('[data-chart="CPU"] path').first();
  await line.waitFor({ timeout: LONG, state: "attached" });
  const first = await state(page, "CPU");
  await page.waitForFunction(
    ({ till, lines }) => {
      const chart = document.querySelector('[data-chart="CPU"]');
      const now = [...(chart?.querySelectorAll("path") ?? [])]
        .map((path) => path.getAttribute("d"))
        .join("|");
      return Number(chart?.getAttribute("data-till")) > till && now !== lines;
    },
    first,
    { timeout: LONG },
  );
  await shot("monitoring-quiet", true);
  // By the keyboard a moment is chosen and its values are told.
  const svg = page.locator('[data-chart="CPU"] svg').first();
  await svg.focus();
  await page.keyboard.press("ArrowLeft");
  const told = await page.locator('[data-chart="CPU"] time').first().textContent();
  must(told !== "now", "the arrow keys choose no moment");
  await page.keyboard.press("Escape");
  say("charts move");

  const service = page.locator(`section[aria-label*="#0"]`).first();
  const band = service.locator('[data-chart="CPU"] rect[data-on]');
  await band.first().waitFor({ timeout: LONG, state: "attached" });
  must(
    (await service.locator('[data-chart="CPU"] g[data-kind="raise"]').count()) === 1,
    "the limit is not drawn",
  );
  await shot("monitoring-alert", true);
  await page.getByRole("tab", { name: "Alerts" }).click();
  const row = page.locator('tr[data-alert="instanceQuotaAlert"][data-parameter="cpu"]').first();
  await row.waitFor();
  await page.locator('tr[data-alert="instanceQuotaAlert"][data-alert-state="active"]').first().waitFor();
  await shot("alerts-active", true);
  say("alert seen");

  // The list is looked at while the alert ends.
  await page
    .locator('tr[data-alert="instanceQuotaAlert"][data-alert-state="ended"]')
    .first()
    .waitFor({ timeout: LONG });
  await page.locator('tr[data-alert-state="active"][data-parameter="cpu"]').waitFor({ state: "detached" });
  await shot("alerts-ended", true);
  await page.getByRole("tab", { name: "Monitoring" }).click();
  await line.waitFor({ state: "attached" });
  await band.first().waitFor({ state: "detached", timeout: LONG });
  await shot("monitoring-ended", true);
  // In the list of all Units too, narrowed by what one wants.
  await page.keyboard.press("g");
  await page.keyboard.press("e");
  await page.getByRole("heading", { name: "Alerts", level: 1 }).waitFor();
  await page.locator('tr[data-alert="instanceQuotaAlert"]').first().waitFor();
  await page.getByLabel("Which state").first().click();
  await page.getByRole("option", { name: "Goes on" }).click();
  await page.locator('tr[data-alert-state="ended"]').first().waitFor({ state: "detached" });
  await shot("alerts-all", true);
  must(loads === 0, "the page was loaded again");
  say("the alert is over, on chart and list");
} catch (error) {
  await shot("senses-failed", true).catch(() => {});
  browser.problems.unshift(error instanceof Error ? (error.stack ?? error.message) : String(error));
} finally {
  await browser.close();
}
report(browser.problems);
