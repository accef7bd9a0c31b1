// A headless Chromium of its own, with an empty profile, that watches itself: every console error and every request to
// another host is written down as a problem.
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const FLAGS =
  "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync";
// Chromium drops its connections when an interface of the machine comes or goes, as it does while instances start. The
// page connects again by itself; that is what is tested then.
const CHANGED = "net::ERR_NETWORK_CHANGED";
const LOOPBACK = new Set(["localhost", "127.0.0.1", "[::1]"]);

/** Starts the browser for one cloud. `spki` trusts its self-made certificate; `forgive` names errors that are expected. */
export async function openBrowser({ url, spki, shots, forgive = () => false }) {
  const profile = await mkdtemp(join(tmpdir(), "aos-ui-"));
  if (shots) await mkdir(shots, { recursive: true });
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.AOS_CHROMIUM ?? "/usr/bin/chromium",
    args: [
      ...(process.env.AOS_CHROMIUM_FLAGS ?? FLAGS).split(/\s+/).filter(Boolean),
      ...(spki ? [`--ignore-certificate-errors-spki-list=${spki}`] : []),
    ],
    viewport: { width: 1360, height: 900 },
    colorScheme: "light",
    acceptDownloads: false,
  });
  const problems = [];
  let changes = 0;
  const home = new URL(url).hostname;
  const watch = (page) => {
    page.on("console", (message) => {
      if (message.type() !== "error") return;
      if (message.text().includes(CHANGED)) {
        changes += 1;
        return;
      }
      const told = { kind: "console", text: message.text(), at: message.location().url ?? "" };
      if (!forgive(told)) problems.push(`console error: ${told.text} (${told.at})`);
    });
    page.on("pageerror", (error) => problems.push(`uncaught error: ${error.stack ?? error.message}`));
  };
  context.pages().forEach(watch);
  context.on("page", watch);
  context.on("request", (request) => {
    const to = new URL(request.url());
    if (["data:", "blob:", "about:"].includes(to.protocol)) return;
    if (to.hostname !== home && !LOOPBACK.has(to.hostname))
      problems.push(`request to another host: ${request.url()}`);
  });
  const page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(15_000);
  return {
    page,
    problems,
    /** Loads an address and waits until `there` is seen; once more if the machine's interfaces changed meanwhile. */
    visit: async (address, there) => {
      for (let tries = 0; ; tries += 1) {
        const before = changes;
        try {
          await page.goto(address);
          await page.locator(there).first().waitFor({ timeout: 8000 });
          return;
        } catch (error) {
          const changed = changes > before || String(error).includes(CHANGED);
          if (!changed || tries === 4) throw error;
        }
      }
    },
    shot: async (name, whole = false) => {
      if (shots)
        await page.screenshot({ path: join(shots, `${name}.png`), fullPage: whole, animations: "disabled" });
    },
    close: async () => {
      await context.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}
