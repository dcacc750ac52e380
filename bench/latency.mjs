// Input to presented picture: ours in the real page, and noVNC + websockify on the same guest's VNC, in one run.
//
//   node latency.mjs --loco PATH [--out DIR] [--events 200] [--chromium PATH]
//
// One guest with its measuring mark on. Rounds alternate ours / noVNC, so that the machine's drift meets both. Keys and
// clicks take turns; both are real input events of the browser. Like for like: `callback` is when the page could first read
// the changed pixel (requestVideoFrameCallback for ours, requestAnimationFrame for noVNC); `presented` exists for ours only.
import fs from "node:fs";
import path from "node:path";

import { browser, child, files, flags, freePort, here, machine, percentile, recorder, round, sleep, wall } from "./lib.mjs";

const options = flags({ loco: "loco", out: path.join(here, "../docs/benchmarks"), events: 200, chromium: "/usr/bin/chromium", port: 8090, guests: 1 });
const SCENES = [["still", "F9"], ["small motion", "F10"], ["full motion", "F11"]];
const ROUNDS = 4;
const WAIT_MS_MAX = 3000;
const probe = fs.readFileSync(path.join(here, "probe.js"), "utf8");

/** One page with the probe; `open` brings it to a picture that takes input. */
async function visit(chrome, url, open) {
  const page = await chrome.newPage({ viewport: { width: 1280, height: 800 } });
  await page.addInitScript(probe);
  await page.goto(url);
  const target = await open(page);
  return { page, target };
}

async function ours(chrome, url) {
  return visit(chrome, url, async (page) => {
    const tile = page.locator('[data-instance="instance-0"]');
    await page.waitForSelector('[data-instance="instance-0"][data-state="live"]', { timeout: 30_000 });
    await tile.locator("video").click();
    await page.waitForSelector('[data-instance="instance-0"][data-focused="true"][data-tier="full"][data-lease="you"]', { timeout: 10_000 });
    await page.evaluate(() => window.bench.watch(document.querySelector('[data-instance="instance-0"] video')));
    return tile.locator("video");
  });
}

async function novnc(chrome, files_, websocket) {
  return visit(chrome, `http://127.0.0.1:${files_}/novnc.html?port=${websocket}`, async (page) => {
    await page.waitForSelector("body[data-connected]", { timeout: 10_000 });
    const canvas = page.locator("#screen canvas");
    await canvas.click({ position: { x: 320, y: 300 } });
    return canvas;
  });
}

/** `count` inputs, with random gaps so that no refresh timer can be in step with them. */
async function round_({ page, target }, count, record) {
  await page.waitForFunction(() => window.bench.ready(), null, { timeout: 10_000 });
  const box = await target.boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height * 0.7);
  for (let i = 0; i < count; i += 1) {
    await sleep(120 + Math.random() * 97);
    await page.evaluate(() => window.bench.arm());
    const kind = i % 2 === 0 ? "key" : "click";
    if (kind === "key") await page.keyboard.press("KeyA");
    else await page.mouse.click(box.x + box.width / 2, box.y + box.height * 0.7);
    const seen = await page.evaluate((ms) => window.bench.wait(ms), WAIT_MS_MAX);
    record({ kind, ...(seen ? { callback_ms: seen.callback - seen.t0, presented_ms: seen.presented === undefined ? undefined : seen.presented - seen.t0 } : { missed: true }) });
  }
  return page.evaluate(() => ({ origin: performance.timeOrigin, inputs: window.bench.inputs, trace: [...window.bench.trace.values()] }));
}

/** Mark on or off and scene, always by our page: the guest is the same for both. */
async function scene(session, key) {
  await session.page.keyboard.press(key);
  await sleep(500);
}

const date = new Date().toISOString().slice(0, 10);
const record = recorder(path.join(options.out, `latency-${date}.jsonl`));
const about = await machine(options.chromium);
record({ about });
const results = [];
const stages = [];
const started = [];
try {
  const our = await wall(options.loco, ["--nodes", "1", "--guests", String(options.guests), "--port", String(options.port), "--no-autoplay", "--vnc"]);
  started.push(our.down);
  const status = await our.status();
  const instance = status.instances.find((i) => i.id === "instance-0");
  const socket = (await import("node:child_process")).execFileSync("sh", ["-c", `tr '\\0' '\\n' < /proc/${instance.qemu_pid}/cmdline | sed -n 's/^unix:\\(.*vnc.*\\)$/\\1/p' | head -n 1`]).toString().trim().split(",")[0];
  if (!socket) throw new Error("the guest has no VNC socket; was it started with --vnc?");
  const port = await freePort();
  started.push(child("websockify", [`127.0.0.1:${port}`, `--unix-target=${socket}`], { stdio: "ignore" }).stop);
  const server = await files(here);
  started.push(server.stop);
  const chrome = await browser(options.chromium);
  started.push(() => chrome.close());

  const setup = await ours(chrome, our.url);
  await scene(setup, "F12");
  for (const [name, key] of SCENES) {
    await scene(setup, key);
    await setup.page.goto("about:blank");
    for (let r = 0; r < ROUNDS; r += 1) {
      for (const [who, open] of [["ours", () => ours(chrome, our.url)], ["novnc", () => novnc(chrome, server.port, port)]]) {
        const session = await open();
        await sleep(1500);
        const told = await round_(session, Math.ceil(options.events / ROUNDS), (event) => {
          const row = { scene: name, who, round: r, ...event };
          results.push(row);
          record(row);
        });
        for (const trace of told.trace) {
          const input = told.inputs.find((i) => i.n === trace.n);
          if (input) {
            const row = { scene: name, trace: { ...trace, left_page: input.at } };
            stages.push(row);
            record(row);
          }
        }
        await session.page.close();
      }
    }
    Object.assign(setup, await ours(chrome, our.url));
  }
} finally {
  for (const stop of started.reverse()) await stop();
}

const of = (scene_, who, field) => results.filter((r) => r.scene === scene_ && r.who === who && r[field] !== undefined).map((r) => r[field]);
const cell = (values) => (values.length === 0 ? "-" : `${round(percentile(values, 0.5))} / ${round(percentile(values, 0.95))}`);
let table = `# Input to picture, ${date}\n\nMachine: ${about.cpu}, ${about.memory_gib} GiB, kernel ${about.kernel}, ${about.qemu}, ${about.chromium}, load ${round(about.load_at_start)} at the start. QEMU without KVM (TCG), ${options.guests} guest(s), 640 x 480.\nCommand: \`cargo xtask bench latency\`. Raw data: \`latency-${date}.jsonl\`. Milliseconds, p50 / p95; keys and clicks in turn.\n\n`;
table += "| scene | events ours / noVNC | ours, callback | ours, presented | noVNC, callback | noVNC : ours (p50) | missed ours / noVNC |\n|---|---|---|---|---|---|---|\n";
for (const [name] of SCENES) {
  const [a, b] = [of(name, "ours", "callback_ms"), of(name, "novnc", "callback_ms")];
  const missed = (who) => results.filter((r) => r.scene === name && r.who === who && r.missed).length;
  table += `| ${name} | ${a.length} / ${b.length} | ${cell(a)} | ${cell(of(name, "ours", "presented_ms"))} | ${cell(b)} | ${a.length && b.length ? round(percentile(b, 0.5) / percentile(a, 0.5), 2) : "-"} | ${missed("ours")} / ${missed("novnc")} |\n`;
}
const STAGES = [["left the page -> agent", "left_page", "received"], ["-> QEMU took it", "received", "injected"], ["-> damage seen", "injected", "damage"], ["-> encoding began", "damage", "encode_start"], ["-> encoded", "encode_start", "encode_end"], ["-> packets out", "encode_end", "sent"]];
table += "\nStages (page and agent share one clock):\n\n| stage | " + SCENES.map(([n]) => n).join(" | ") + " |\n|---|---|---|---|\n";
for (const [label, from, to] of STAGES) {
  table += `| ${label} | ${SCENES.map(([n]) => cell(stages.filter((s) => s.scene === n && s.trace[from] !== undefined && s.trace[to] !== undefined).map((s) => s.trace[to] - s.trace[from]))).join(" | ")} |\n`;
}
fs.writeFileSync(path.join(options.out, `latency-${date}.md`), table);
console.log(table);
const all = results.length;
const missed = results.filter((r) => r.missed).length;
if (all === 0 || missed > all / 20) {
  console.error(`${missed} of ${all} events were never seen: these figures do not count`);
  process.exit(1);
}
