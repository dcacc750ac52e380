// What streaming costs: CPU of agents and QEMU, frames and bit rate for 1, 3 and 9 guests, three scenes, 1 and 3 viewers;
// beside it, on the same guests in the same run, noVNC + websockify and the public ancestor's pipeline.
//
//   node streams.mjs --loco PATH [--out DIR] [--seconds 8] [--chromium PATH] [--guests 1,3,9] [--scenes "still,small motion,full motion,mixed"]
//
// A viewer is a page of Chromium with the whole wall; its own CPU is not counted in any column. CPU is user + system time of
// the processes, in % of one core, so it says how much work was done however busy the machine is.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";

import { browser, child, cpuOver, files, flags, freePort, here, machine, recorder, round, sleep, wall } from "./lib.mjs";

const options = flags({ loco: "loco", out: path.join(here, "../docs/benchmarks"), seconds: 8, chromium: "/usr/bin/chromium", port: 8091, guests: "1,3,9", scenes: "" });
const wanted = (scene) => options.scenes === "" || options.scenes.split(",").includes(scene);
/** A run of some scenes does not overwrite the whole one. */
const name = `streams${options.scenes === "" ? "" : `-${options.scenes.replaceAll(/[ ,]+/g, "-")}`}-${new Date().toISOString().slice(0, 10)}`;
const SCENES = { still: "F9", "small motion": "F10", "full motion": "F11" };
/** As in the design's experiment: most seats are still, a few move a little, one moves wholly; seat 7 is focused. */
const MIXED = ["F9", "F9", "F9", "F9", "F10", "F10", "F10", "F10", "F11"];
const ANCESTOR = ["videoconvert", "!", "videoscale", "!", "vp8enc", "deadline=1", "target-bitrate=1200000", "keyframe-max-dist=25", "cpu-used=8", "!", "fakesink", "sync=false"];

/** Focuses a seat from the wall. */
async function focus(page, id) {
  await page.locator(`[data-instance="${id}"] video`).click();
  await page.waitForSelector(`[data-instance="${id}"][data-focused="true"][data-lease="you"]`, { timeout: 15_000 });
}

/** Left Ctrl and left Alt, let go with nothing between: back to the wall. */
async function leave(page, id) {
  await page.keyboard.down("ControlLeft");
  await page.keyboard.down("AltLeft");
  await page.keyboard.up("AltLeft");
  await page.keyboard.up("ControlLeft");
  await page.waitForSelector(`[data-instance="${id}"]:not([data-focused="true"])`, { timeout: 10_000 });
}

async function openWall(chrome, url, ids) {
  const page = await (await chrome.newContext({ viewport: { width: 1920, height: 1080 } })).newPage();
  await page.goto(url);
  for (const id of ids) await page.waitForSelector(`[data-instance="${id}"][data-state="live"]`, { timeout: 40_000 });
  return page;
}

/** Sums of the agents' own counters. */
async function counters(nodes) {
  const total = { frames: 0, bytes: 0 };
  for (const node of nodes) {
    const text = await (await fetch(`${node.agent_url}/metrics`)).text();
    for (const line of text.split("\n")) {
      const value = Number(line.split(" ").at(-1));
      if (line.startsWith("loco_stream_frames_total{")) total.frames += value;
      if (line.startsWith("loco_stream_encoded_bytes_total{")) total.bytes += value;
    }
  }
  return total;
}

const date = new Date().toISOString().slice(0, 10);
const record = recorder(path.join(options.out, `${name}.jsonl`));
const about = await machine(options.chromium);
record({ about });
const rows = [];
const keep = (row) => { rows.push(row); record(row); console.error(JSON.stringify(row)); };

/** VNC over a Unix socket, on a TCP port for programs that know no other. A relay of bytes; counted in no column. */
async function relay(socket) {
  const open = new Set();
  const server = net.createServer((tcp) => {
    const unix = net.connect(socket);
    for (const [a, b] of [[tcp, unix], [unix, tcp]]) { open.add(a); a.on("error", () => b.destroy()); a.on("close", () => { open.delete(a); b.destroy(); }); a.pipe(b); }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { port: server.address().port, stop: () => { for (const s of open) s.destroy(); server.close(); } };
}

function vncSocket(pid) {
  const words = fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  const at = words.indexOf("-vnc");
  if (at < 0) throw new Error("the guest has no VNC socket; was it started with --vnc?");
  return words[at + 1].replace(/^unix:/, "").split(",")[0];
}

async function measure(status, who, extra, groups) {
  const before = who === "ours" ? await counters(status.nodes) : undefined;
  const start = Date.now();
  const cpu = await cpuOver({ qemu: status.instances.map((i) => i.qemu_pid), ...groups }, options.seconds * 1000);
  const seconds = (Date.now() - start) / 1000;
  const after = who === "ours" ? await counters(status.nodes) : undefined;
  keep({ who, guests: status.instances.length, ...extra, cpu, ...(before ? { frames_per_s: round((after.frames - before.frames) / seconds), kbit_per_s: round(((after.bytes - before.bytes) * 8) / 1000 / seconds) } : {}) });
}

async function oneSize(guests) {
  const started = [];
  try {
    const our = await wall(options.loco, ["--nodes", String(Math.min(3, guests)), "--guests", String(guests), "--port", String(options.port), "--no-autoplay", "--vnc"]);
    started.push(our.down);
    const status = await our.status();
    const ids = status.instances.map((i) => i.id);
    const agents = status.nodes.map((n) => n.agent_pid);
    const chrome = await browser(options.chromium);
    started.push(() => chrome.close());
    const relays = await Promise.all(status.instances.map((i) => relay(vncSocket(i.qemu_pid))));
    for (const r of relays) started.push(r.stop);
    const server = await files(here);
    started.push(server.stop);
    const set = async (keys) => {
      const page = await openWall(chrome, our.url, ids);
      for (const [i, id] of ids.entries()) {
        await focus(page, id);
        if (!set.marked?.has(id)) { await page.keyboard.press("F12"); (set.marked ??= new Set()).add(id); }
        await page.keyboard.press(keys[i]);
        await leave(page, id);
      }
      await page.context().close();
      await sleep(1500);
    };
    const peers = async (scene) => {
      const sockets = [];
      const pages = [];
      try {
        const websockify = [];
        for (const r of relays) {
          const port = await freePort();
          const proxy = child("websockify", [`127.0.0.1:${port}`, `127.0.0.1:${r.port}`], { stdio: "ignore" });
          sockets.push(proxy);
          websockify.push([proxy.pid, port]);
        }
        await sleep(1500);
        for (const [, port] of websockify) {
          const page = await (await chrome.newContext({ viewport: { width: 700, height: 520 } })).newPage();
          pages.push(page);
          await page.goto(`http://127.0.0.1:${server.port}/novnc.html?port=${port}`);
          await page.waitForSelector("body[data-connected]", { timeout: 20_000 });
        }
        await sleep(2000);
        // websockify forks a process for each connection: those are its children.
        const all = websockify.flatMap(([pid]) => [pid, ...execFileSync("sh", ["-c", `pgrep -P ${pid}; :`]).toString().split("\n").filter(Boolean).map(Number)]);
        await measure(status, "novnc", { scene, viewers: 1 }, { server: all });
      } finally {
        for (const page of pages) await page.context().close();
        for (const s of sockets) await s.stop();
      }
      const pipes = relays.map((r) => child("gst-launch-1.0", ["-q", "rfbsrc", "host=127.0.0.1", `port=${r.port}`, "!", ...ANCESTOR], { stdio: "ignore" }));
      try {
        await sleep(3000);
        await measure(status, "ancestor", { scene, viewers: 0 }, { server: pipes.map((p) => p.pid) });
      } finally {
        for (const p of pipes) await p.stop();
      }
    };
    for (const [scene, key] of Object.entries(SCENES)) {
      if (!wanted(scene)) continue;
      await set(ids.map(() => key));
      await measure(status, "ours", { scene, viewers: 0, tier: "none" }, { server: agents });
      const pages = [];
      for (const viewers of [1, 3]) {
        while (pages.length < viewers) pages.push(await openWall(chrome, our.url, ids));
        await sleep(4000);
        await measure(status, "ours", { scene, viewers, tier: "thumb" }, { server: agents });
      }
      while (pages.length > 1) await pages.pop().context().close();
      await focus(pages[0], ids[0]);
      await sleep(4000);
      await measure(status, "ours", { scene, viewers: 1, tier: "one full" }, { server: agents });
      await pages[0].context().close();
      await peers(scene);
    }
    if (guests === 9 && wanted("mixed")) {
      await set(MIXED);
      const page = await openWall(chrome, our.url, ids);
      await sleep(4000);
      await measure(status, "ours", { scene: "mixed", viewers: 1, tier: "thumb" }, { server: agents });
      // A focused seat fills the page, so its eight neighbours rest. With a second viewer on the wall all nine and the full one run.
      await focus(page, ids[6]);
      await sleep(4000);
      await measure(status, "ours", { scene: "mixed", viewers: 1, tier: "one full" }, { server: agents });
      const second = await openWall(chrome, our.url, ids);
      await sleep(4000);
      await measure(status, "ours", { scene: "mixed", viewers: 2, tier: "thumb, one full" }, { server: agents });
      await second.context().close();
      await page.context().close();
      await peers("mixed");
    }
  } finally {
    for (const stop of started.reverse()) await stop();
  }
}

for (const guests of options.guests.split(",").map(Number)) await oneSize(guests);

let table = `# What streaming costs, ${date}\n\nMachine: ${about.cpu}, ${about.memory_gib} GiB, kernel ${about.kernel}, ${about.qemu}, ${about.chromium}. QEMU without KVM (TCG), guests at 640 x 480.\nCommand: \`cargo xtask bench streams\`. Raw data: \`${name}.jsonl\`. CPU in % of one core over ${options.seconds} s; a viewer's own CPU is not counted.\nours = all node agents; noVNC = websockify (QEMU encodes in its own process); ancestor = its gst-launch pipeline for each guest, no viewer, no sending.\n\n`;
table += "| guests | scene | who | viewers | tier | server CPU | QEMU CPU | frames/s | kbit/s |\n|---|---|---|---|---|---|---|---|---|\n";
for (const r of rows) table += `| ${r.guests} | ${r.scene} | ${r.who} | ${r.viewers} | ${r.tier ?? ""} | ${r.cpu.server} | ${r.cpu.qemu} | ${r.frames_per_s ?? ""} | ${r.kbit_per_s ?? ""} |\n`;
fs.writeFileSync(path.join(options.out, `${name}.md`), table);
console.log(table);
