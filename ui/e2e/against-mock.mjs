// The walk against the mock, with what only a mock can show on demand: a deployment made by hand, bundles that are
// accepted and refused, and a cloud that goes away and comes back. Needs dist/ (npm run build).
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

process.env.MOCK_STEP_MS ??= "500";
const { start } = await import("./mock.mjs");
const { report, walk } = await import("./walk.mjs");

let server = await start(0);
const { port } = server.address();
const url = `http://127.0.0.1:${port}`;
const folder = await mkdtemp(join(tmpdir(), "aos-ui-bundles-"));
let away = false;

/** Assigns a service to a Unit by hand, as a person would. */
async function assign({ page, shot }) {
  await page.keyboard.press("g");
  await page.keyboard.press("a");
  await page.getByRole("button", { name: "New assignment" }).first().click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name", { exact: true }).fill("Bridge on the second car");
  await dialog.getByLabel("Search: Services").fill("telemetry");
  await dialog.getByLabel(/telemetry-bridge/).check();
  await dialog.getByLabel("Search: Units").fill("0043");
  await dialog.getByLabel(/vehicle-0043/).check();
  await dialog.getByLabel("Instances of telemetry-bridge on each Unit").fill("2");
  await shot("assign-by-hand");
  await dialog.getByRole("button", { name: "Assign" }).click();
  await page.getByRole("heading", { name: "Bridge on the second car" }).waitFor();
}

async function bundles({ page, shot }) {
  await page.goto(`${url}/services`);
  for (const [name, word] of [
    ["bad.tar.gz", "Refused"],
    ["web-hello-1.2.0.tar.gz", "Done"],
  ]) {
    const path = join(folder, name);
    await writeFile(path, Buffer.alloc(200_000, 7));
    await page.getByRole("button", { name: "Upload a bundle" }).first().click();
    await page.locator("input[data-upload]").setInputFiles(path);
    await page.getByRole("button", { name: "Upload", exact: true }).click();
    await page.getByRole("dialog").getByText(word, { exact: true }).waitFor();
    await shot(`upload-${word.toLowerCase()}`);
    await page.getByRole("dialog").getByRole("button", { name: "Close" }).last().click();
    await page.getByRole("dialog").waitFor({ state: "hidden" });
  }
  // Published while the list is open: it shows without a reload.
  await page.locator('tr[data-service="web-hello"]').getByText("1.2.0").waitFor();
}

async function outage({ page, shot }) {
  away = true;
  server.closeAllConnections();
  await new Promise((done) => server.close(done));
  await page.getByText("The link to the cloud is lost.").waitFor();
  await shot("link-lost");
  server = await start(port);
  await page.locator('[data-link="live"]').waitFor();
  away = false;
  await page.getByText("The link to the cloud is lost.").waitFor({ state: "hidden" });
}

const problems = await walk({
  url,
  link: `${url}/welcome#token=mock-owner-token`,
  user: "walker",
  password: "a walk through all rooms",
  unit: "vehicle-0043",
  service: "telemetry-bridge",
  seconds: 30,
  shots: process.env.AOS_SHOTS,
  forgive: (text) =>
    away && /ERR_(CONNECTION_REFUSED|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING|CONNECTION_RESET)/.test(text),
  before: assign,
  more: async (browser) => {
    await bundles(browser);
    await outage(browser);
  },
});
server.closeAllConnections();
server.close();
await rm(folder, { recursive: true, force: true });
report(problems);
