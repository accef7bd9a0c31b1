// A walk through all rooms of a running AosCloud in real Chromium. Fails on a broken step, on any console error, and on
// any request that leaves the cloud's host. From the environment:
//
//   AOS_URL            the cloud, such as https://localhost:10000
//   AOS_SPKI           base64 SHA-256 of its public key, if its certificate is self-made
//   AOS_OWNER_LINK     the one-time owner link, or the path of the file that holds it; the owner is made with
//   AOS_USER           its name (default owner) and
//   AOS_PASSWORD       its password; without a link these sign in
//   AOS_WATCH_UNIT     system id or name of a Unit, and
//   AOS_WATCH_SERVICE  codename of a service: the walk waits until all its instances there are active, without a reload
//   AOS_WATCH_SECONDS  for so long (default 120)
//   AOS_SHOTS          folder for screenshots
//   AOS_CHROMIUM       the browser (default /usr/bin/chromium); AOS_CHROMIUM_FLAGS: its flags
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { openBrowser } from "./browser.mjs";

const begun = Date.now();
const say = (text) => console.log(`${((Date.now() - begun) / 1000).toFixed(1).padStart(6)} s  ${text}`);

function must(condition, text) {
  if (!condition) throw new Error(text);
}

async function ownerLink(given) {
  if (!given) return null;
  return given.startsWith("http") ? given : (await readFile(given, "utf8")).trim();
}

/** Signs in, by the owner link or by name and password. */
export async function enter({ page, shot, visit }, { url, link, user, password }) {
  if (link) {
    const at = new URL(link);
    await visit(new URL(`${at.pathname}${at.hash}`, url).href, 'h1:has-text("Welcome")');
    must(!page.url().includes("token"), "the one-time token stays in the address bar");
    await shot("welcome");
    await page.getByLabel("Name", { exact: true }).fill(user);
    await page.getByLabel("Password", { exact: true }).fill(password);
    await page.getByLabel("Password again", { exact: true }).fill(password);
    await page.getByRole("button", { name: "Make the owner and sign in" }).click();
  } else {
    await visit(url, 'h1:has-text("Sign in")');
    await shot("sign-in");
    await page.getByLabel("Name", { exact: true }).fill(user);
    await page.getByLabel("Password", { exact: true }).fill(password);
    await page.getByRole("button", { name: "Sign in" }).click();
  }
  await page.getByRole("heading", { name: "Units", level: 1 }).waitFor();
  await page.locator('[data-link="live"]').waitFor();
  say("signed in, the link is live");
}

async function settle(page) {
  await page.waitForFunction(() => !document.querySelector('main [role="status"] + .mantine-Skeleton-root'));
  await page.waitForTimeout(250);
}

/** Opens a Unit from the list by system id or name; without one, the first. Says whether there was one. */
export async function openUnit({ page, visit }, name) {
  await visit(new URL("/units", page.url()).href, 'h1:has-text("Units")');
  await settle(page);
  const rows = page.locator("tr[data-unit]");
  const row = name ? rows.filter({ hasText: name }) : rows;
  if (name) await row.first().waitFor();
  if ((await row.count()) === 0) return false;
  await row.first().locator("a[data-stretch]").click();
  await page.locator('[data-room="unit"]').waitFor();
  await settle(page);
  return true;
}

/** Watches one service on one Unit until all its instances are active, and says which phases were seen. */
export async function watch(browser, unit, service, seconds) {
  const { page, shot } = browser;
  must(await openUnit(browser, unit), `there is no Unit ${unit}`);
  let loads = 0;
  page.on("load", () => {
    loads += 1;
  });
  const seen = [];
  const until = Date.now() + seconds * 1000;
  for (;;) {
    const now = await page.evaluate((codename) => {
      const phase = document.querySelector('[data-room="unit"]')?.getAttribute("data-phase") ?? "";
      const entry = document.querySelector(`[data-service="${CSS.escape(codename)}"]`);
      const states = [...(entry?.querySelectorAll("[data-run-state]") ?? [])].map((each) =>
        each.getAttribute("data-run-state"),
      );
      const said = entry?.querySelector("[data-soft]")?.getAttribute("data-tone");
      return { phase, there: entry !== null, states, good: said === "good" };
    }, service);
    if (seen.at(-1) !== now.phase) {
      seen.push(now.phase);
      await shot(`watch-${String(seen.length).padStart(2, "0")}-${now.phase}`);
    }
    if (now.phase === "installed" && now.there && now.good) break;
    must(
      Date.now() < until,
      `${service} did not become active on ${unit} within ${seconds} s; phases seen: ${seen.join(", ")}; instances: ${now.states.join(", ") || "none"}`,
    );
    await page.waitForTimeout(50);
  }
  must(loads === 0, "the page was loaded again while it was watched");
  await shot("watch-active", true);
  say(`${service} is active on ${unit}; phases seen: ${seen.join(", ")}`);
}

async function dialog(page, name) {
  const box = page.getByRole("dialog");
  await box.waitFor();
  for (let n = 0; n < 12; n += 1) await page.keyboard.press("Tab");
  must(
    await page.evaluate(() => document.activeElement?.closest('[role="dialog"]') !== null),
    `the focus left the dialog ${name}`,
  );
  return box;
}

async function shut(page) {
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
}

async function unitRoom(browser, name) {
  const { page, shot } = browser;
  await shot("units");
  if (!(await openUnit(browser, name))) {
    say("there is no Unit: its room is left out");
    return null;
  }
  await shot("unit", true);
  const why = page.getByRole("button", { name: /^Why is/ });
  if ((await why.count()) > 0) {
    await why.first().click();
    await dialog(page, "why");
    await page.getByRole("dialog").locator("li[data-outcome]").first().waitFor();
    await shot("unit-why");
    await shut(page);
  }
  for (const tab of [
    "Monitoring",
    "Alerts",
    "Timeline",
    "Items",
    "Settings",
    "Desired state",
    "Certificates",
  ]) {
    await page.getByRole("tab", { name: tab }).click();
    await settle(page);
    await shot(`unit-${tab.toLowerCase().replace(" ", "-")}`);
  }
  await page.getByRole("tab", { name: "Overview" }).click();
  say("Unit: overview, why, timeline, items, desired state, certificates");
  return new URL(page.url()).pathname;
}

/** Pauses a Node of the Unit and lets it take part again; sets a schedule and a variable. */
async function orders(browser, path) {
  const { page, shot } = browser;
  const node = page.locator("li[data-node]").last();
  const name = await node.getAttribute("data-node");
  await node.getByRole("button", { name: /^Pause Node/ }).click();
  const asked = await dialog(page, "pause");
  await shot("unit-pause");
  await asked.getByRole("button", { name: "Pause the Node" }).click();
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  await node.getByRole("button", { name: /^Resume Node/ }).waitFor();
  await shot("unit-node-paused", true);
  await node.getByRole("button", { name: /^Resume Node/ }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Resume the Node" }).click();
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  await node.getByRole("button", { name: /^Pause Node/ }).waitFor();
  say(`Node ${name} was ordered to pause and to take part again`);

  await page.getByRole("tab", { name: "Settings" }).click();
  await page.locator("[data-schedule]").waitFor();
  await settle(page);
  await shot("unit-settings", true);
  await page.getByRole("button", { name: "Set schedule" }).click();
  const when = await dialog(page, "schedule");
  await when.getByLabel("When software may be changed").click();
  await page.getByRole("option", { name: "By a timetable" }).click();
  await when.getByLabel("Software, slots of Monday").fill("22:00-02:00");
  await when.getByText("over midnight it is two slots").first().waitFor();
  must(await when.getByRole("button", { name: "Save" }).isDisabled(), "an impossible slot can be saved");
  await shot("unit-schedule-wrong");
  await when.getByLabel("Software, slots of Monday").fill("00:00-05:00, 22:00-24:00");
  await shot("unit-schedule");
  await when.getByRole("button", { name: "Save" }).click();
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  await page.locator('[data-schedule="timetable"]').getByText("Monday 00:00").waitFor();
  await page.getByRole("button", { name: "Set schedule" }).click();
  await page.getByRole("dialog").getByLabel("When software may be changed").click();
  await page.getByRole("option", { name: "As its unit model says" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  await page.locator('[data-schedule="timetable"]').waitFor({ state: "detached" });
  say("a schedule was set, an impossible one refused while it was typed");

  await page.getByRole("button", { name: "Set a variable" }).click();
  const variable = await dialog(page, "variable");
  await variable.getByLabel("Variable", { exact: true }).fill("WALK_TOKEN");
  await variable.getByLabel("Value", { exact: true }).fill("walk secret");
  await variable.getByLabel("Ends after minutes").fill("10");
  await shot("unit-variable");
  await variable.getByRole("button", { name: "Set", exact: true }).click();
  const row = page.locator('tr[data-variable="WALK_TOKEN"]');
  await row.waitFor();
  must(!(await page.content()).includes("walk secret"), "a value is shown without being asked for");
  await page.getByRole("button", { name: "Show values" }).click();
  await row.getByText("walk secret").waitFor();
  await shot("unit-variables", true);
  await page.getByRole("button", { name: "Hide values" }).click();
  await row.getByRole("button", { name: "Take WALK_TOKEN away" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Take it away" }).click();
  await row.waitFor({ state: "detached" });
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  say("a variable was set, shown on demand only, and taken away");
  return `${path}/settings`;
}

/** Follows the log of services until a line comes, searches in it, stops it; then finds a crash. */
async function logs(browser, path) {
  const { page, shot } = browser;
  await page.getByRole("tab", { name: "Logs" }).click();
  const part = page.locator('[data-room-part="logs"]');
  await part.waitFor();
  await settle(page);
  await shot("unit-logs-none");
  await part.getByRole("button", { name: "Follow" }).click();
  const view = page.locator("[data-log][data-live]");
  await view.waitFor();
  const lines = view.locator("[data-log-line]");
  await lines.first().waitFor({ timeout: 60_000 });
  const before = await lines.count();
  await page.waitForFunction((count) => document.querySelectorAll("[data-log-line]").length > count, before, {
    timeout: 60_000,
  });
  await shot("unit-logs-live", true);
  await view.getByLabel("Search in this log").fill("no line has this text");
  await page.getByText("No line of this log holds that text.").waitFor();
  await view.getByLabel("Search in this log").fill("");
  await lines.first().waitFor();
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await page.locator('[data-log][data-log-state="done"]').waitFor({ timeout: 30_000 });
  must((await page.getByRole("link", { name: "Download" }).count()) === 1, "a log cannot be downloaded");
  say("a log was followed, searched and stopped");

  await part.getByText("Crashes", { exact: true }).click();
  for (let tries = 0; ; tries += 1) {
    must(tries < 20, "no crash log was found");
    await part.getByRole("button", { name: "Ask for it" }).click();
    await page
      .locator('[data-log-row][data-log-state="done"], [data-log-row][data-log-state^="empty"]')
      .first()
      .waitFor();
    await page.waitForTimeout(1500);
    const crash = page.locator("[data-log-line]").filter({ hasText: "# crash of" });
    if ((await crash.count()) > 0) break;
  }
  await page.locator("[data-log-line]").filter({ hasText: "# its last output" }).first().waitFor();
  await shot("unit-logs-crash", true);
  say("a crash log was found, with the last output");
  return `${path}/logs`;
}

/** Stores a version of a unit configuration, then orders it for all Units of the model. */
async function order({ page, shot }) {
  await page.getByRole("button", { name: /New configuration/ }).click();
  const editor = await dialog(page, "editor");
  await editor.getByLabel("Order it for all Units").uncheck();
  await editor.getByText("No Unit gets it until it is ordered").waitFor();
  await shot("model-editor-later");
  await editor.getByRole("button", { name: "Store version" }).click();
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  await settle(page);
  await page.locator("main ul button[aria-pressed]").first().click();
  await page.getByRole("button", { name: "Order for all Units" }).click();
  const asked = await dialog(page, "order");
  await shot("model-order");
  await asked.getByRole("button", { name: /^Order for/ }).click();
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  await page.getByRole("button", { name: "Order for all Units" }).waitFor({ state: "detached" });
  await settle(page);
  await shot("model-ordered", true);
  say("a unit configuration was stored, and ordered for all Units of its model");
}

async function room({ page, shot }, keys, title, name) {
  for (const key of keys) await page.keyboard.press(key);
  await page.getByRole("heading", { name: title, level: 1 }).waitFor();
  await settle(page);
  await shot(name);
}

async function first(page) {
  const link = page.locator("main tr[data-opens] a[data-stretch]").first();
  if ((await link.count()) === 0) return null;
  const before = page.url();
  await link.click();
  await page.waitForFunction((old) => location.href !== old, before);
  await page.locator("main h1").waitFor();
  await settle(page);
  return new URL(page.url()).pathname;
}

/** Goes through all rooms by keyboard where there is a key for it; gives the addresses of what it found there. */
export async function rooms(browser, unit) {
  const { page, shot, visit } = browser;
  const found = [
    "/units",
    "/services",
    "/bundles",
    "/assignments",
    "/models",
    "/claim-codes",
    "/alerts",
    "/audit",
  ];
  const keep = (path) => path && found.push(path);
  const seen = await unitRoom(browser, unit);
  keep(seen);
  if (seen) keep(`${seen}/monitoring`);
  if (seen && (await page.locator("li[data-node]").count()) > 0) {
    keep(await orders(browser, seen));
    if (process.env.AOS_WATCH_UNIT || unit) keep(await logs(browser, seen));
  }

  await room(browser, ["g", "s"], "Services", "services");
  await page.getByRole("button", { name: "Upload a bundle" }).click();
  await dialog(page, "upload");
  await shot("services-upload");
  await shut(page);
  const service = await first(page);
  keep(service);
  if (service) {
    await shot("service", true);
    const details = page.getByRole("button", { name: /^Details of/ });
    if ((await details.count()) > 0) {
      await details.first().click();
      await dialog(page, "version");
      await shot("service-version");
      await shut(page);
    }
  }
  await visit(new URL("/bundles", page.url()).href, "main h1");
  await page.getByRole("tab", { name: "Bundles", selected: true }).waitFor();
  await settle(page);
  await shot("bundles");
  const bundle = await first(page);
  keep(bundle);
  if (bundle) await shot("bundle");
  say("Services: list, versions, bundles, upload");

  await room(browser, ["g", "a"], "Assignments", "assignments");
  await page.getByRole("button", { name: "New assignment" }).first().click();
  const making = await dialog(page, "assignment");
  await making.getByLabel("Name", { exact: true }).fill("walk");
  const choice = making.locator('fieldset input[type="checkbox"]').first();
  await page.waitForTimeout(400);
  if ((await choice.count()) > 0) await choice.check();
  await shot("assignments-new");
  await shut(page);
  const assignment = await first(page);
  keep(assignment);
  if (assignment) {
    await shot("assignment");
    const edit = page.getByRole("button", { name: /^Edit how/ });
    if ((await edit.count()) > 0) {
      await edit.first().click();
      await shot("assignment-edit");
    }
  }
  say("Assignments: list, new, edit");

  await room(browser, ["g", "m"], "Unit models", "models");
  const model = await first(page);
  keep(model);
  if (model) {
    await shot("model");
    await page.getByRole("button", { name: /New configuration/ }).click();
    const editor = await dialog(page, "editor");
    await editor.getByLabel("Unit configuration, JSON").fill("{ nonsense");
    await editor.getByText("Not JSON").waitFor();
    await shot("model-editor");
    await shut(page);
    await order(browser);
  }
  say("Unit models: list, configuration, editor");

  await room(browser, ["g", "c"], "Claim codes", "claim-codes");
  await page.getByRole("button", { name: "New claim code" }).first().click();
  const code = await dialog(page, "claim code");
  const title = `walk ${Date.now()}`;
  await code.getByLabel("Name", { exact: true }).fill(title);
  await code.getByRole("button", { name: "Make the code" }).click();
  await code.getByText("aos unit join").waitFor();
  await shot("claim-codes-issued");
  await code.getByRole("button", { name: "Close" }).last().click();
  await page.getByRole("button", { name: `Revoke the code for ${title}` }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete the code" }).click();
  await page.getByText(title, { exact: true }).waitFor({ state: "detached" });
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  say("Claim codes: made, shown once, revoked");

  await room(browser, ["g", "e"], "Alerts", "alerts");
  say("Alerts");

  await room(browser, ["g", "l"], "Audit", "audit");
  await page.keyboard.press("/");
  await page.getByRole("combobox", { name: /Search/ }).fill("e");
  await page.waitForTimeout(500);
  await shot("search");
  await shut(page);
  await page.keyboard.press("?");
  await page.getByRole("dialog").getByText("This list").waitFor();
  await shut(page);
  await page.keyboard.press("g");
  await page.keyboard.press("u");
  await page.getByRole("heading", { name: "Units", level: 1 }).waitFor();
  say("Audit, search, keys");
  return found;
}

/** Every room in both looks and on a narrow screen, where nothing may reach over the edge. */
export async function looks({ page, shot, visit }, url, paths) {
  const go = async (path) => {
    await visit(new URL(path, url).href, "main h1");
    await page.locator('[data-link="live"]').waitFor();
    await settle(page);
  };
  const name = (path) =>
    path
      .slice(1)
      .replace(/\/[0-9a-f-]{36}/, "-one")
      .replaceAll("/", "-");
  await page.emulateMedia({ colorScheme: "dark" });
  for (const path of paths) {
    await go(path);
    must(
      (await page.evaluate(() => document.documentElement.dataset.mantineColorScheme)) === "dark",
      "the page does not follow the system's dark scheme",
    );
    await shot(`dark-${name(path)}`, true);
  }
  await page.setViewportSize({ width: 360, height: 740 });
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    for (const path of paths) {
      await go(path);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      must(over <= 0, `${path} is ${over} px wider than a screen of 360 px`);
      await shot(`narrow-${scheme}-${name(path)}`, true);
    }
  }
  await page.setViewportSize({ width: 1360, height: 900 });
  await page.emulateMedia({ colorScheme: "light" });
  say(`${paths.length} rooms in light and dark, and 360 px wide`);
}

/** The keyboard's first stop is the skip link, and it works. */
async function skip({ page, visit }, url) {
  await visit(new URL("/units", url).href, 'h1:has-text("Units")');
  await page.keyboard.press("Tab");
  must(
    await page.evaluate(() => document.activeElement?.getAttribute("href") === "#room"),
    "the first stop is not the skip link",
  );
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  must(
    await page.evaluate(() => document.activeElement?.closest("main") !== null),
    "the skip link does not lead to the content",
  );
  say("skip link");
}

async function leave({ page }) {
  await page.getByRole("button", { name: /^Account/ }).click();
  await page.getByRole("menuitem", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  say("signed out");
}

/** The whole walk. */
export async function walk(options) {
  const { url, unit, service, seconds } = options;
  // Who is not signed in is told so by 401, and Chromium writes every 401 to the console.
  const forgive = ({ text, at }) =>
    options.forgive?.(text) || (text.includes("status of 401") && /\/(users\/me|events)\/$/.test(at));
  const browser = await openBrowser({ ...options, forgive });
  try {
    await enter(browser, options);
    await options.before?.(browser);
    if (unit && service) await watch(browser, unit, service, seconds);
    const paths = await rooms(browser, unit);
    await looks(browser, url, paths);
    await skip(browser, url);
    await options.more?.(browser);
    await leave(browser);
  } catch (error) {
    await browser.shot("failed", true).catch(() => {});
    browser.problems.unshift(error instanceof Error ? (error.stack ?? error.message) : String(error));
  } finally {
    await browser.close();
  }
  return browser.problems;
}

/** Prints what was found and sets the exit code. */
export function report(problems) {
  for (const problem of problems) console.error(`FAILED ${problem}`);
  say(problems.length === 0 ? "the walk went well" : `${problems.length} problems`);
  process.exitCode = problems.length === 0 ? 0 : 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const env = process.env;
  const url = env.AOS_URL;
  const link = await ownerLink(env.AOS_OWNER_LINK);
  if (!url || !(link || env.AOS_PASSWORD)) {
    console.error(
      "Set AOS_URL, and AOS_OWNER_LINK or AOS_USER with AOS_PASSWORD; the head of e2e/walk.mjs says more.",
    );
    process.exit(2);
  }
  report(
    await walk({
      url,
      link,
      spki: env.AOS_SPKI,
      user: env.AOS_USER ?? "owner",
      password: env.AOS_PASSWORD ?? "a walk through all rooms",
      unit: env.AOS_WATCH_UNIT,
      service: env.AOS_WATCH_SERVICE,
      seconds: Number(env.AOS_WATCH_SECONDS ?? 120),
      shots: env.AOS_SHOTS,
    }),
  );
}
