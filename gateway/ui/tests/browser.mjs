// The page in real Chromium against a running wall:
//   node tests/browser.mjs --url 'http://127.0.0.1:8080/#token=…' [--screenshot FILE] [--lan-screenshot FILE] [--seats 9] [--seat 5]
// One line for each check; exit 1 if any failed. Waits on attributes, never on time.
import { parseArgs } from "node:util";
import { Checks, equal, launch, mainThreadTasks, ok } from "./chromium.mjs";

const { values } = parseArgs({
  options: { url: { type: "string" }, screenshot: { type: "string" }, "lan-screenshot": { type: "string" }, seats: { type: "string", default: "9" }, seat: { type: "string", default: "5" } },
});
if (!values.url?.includes("#token=")) {
  console.error("--url is missing, or has no #token=…; take the last line of `loco up --detach`");
  process.exit(2);
}
const seats = Number(values.seats);
const seat = Number(values.seat);
const LIVE_MS = 30_000;
const INPUT_MS = 10_000;
/** The wall is watched for this long; a task above LONG_MS is what the browser calls a long one. */
const WATCH_MS = 10_000;
const LONG_MS = 50;

const browser = await launch();
const context = await browser.newContext({ viewport: { width: 1280, height: 720 }, colorScheme: "dark" });
// What the page connects with, to be asked for its statistics.
await context.addInitScript(() => {
  window.connections = [];
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...settings) {
      super(...settings);
      window.connections.push(this);
    }
  };
});
const page = await context.newPage();
const wrong = [];
page.on("pageerror", (error) => wrong.push(error.message));
page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
const checks = new Checks();
const tile = `[data-seat="${seat}"]`;
const attribute = (name) => page.getAttribute(tile, name);
const wait = (test, argument, timeout = INPUT_MS) => page.waitForFunction(test, argument, { timeout, polling: 50 });

/** Whether the measuring mark is black or white in the video of a tile, or undefined if it is neither. */
const mark = () =>
  page.evaluate((selector) => {
    const video = document.querySelector(`${selector} video`);
    const canvas = document.createElement("canvas");
    canvas.width = 64;
    canvas.height = 64;
    const x = canvas.getContext("2d", { willReadFrequently: true });
    const scale = video.videoWidth / 640;
    x.drawImage(video, 0, 0, 64 * scale, 64 * scale, 0, 0, 64, 64);
    const { data } = x.getImageData(8, 8, 48, 48);
    let low = 255;
    let high = 0;
    for (let i = 0; i < data.length; i += 4) {
      const light = (data[i] + data[i + 1] + data[i + 2]) / 3;
      low = Math.min(low, light);
      high = Math.max(high, light);
    }
    return high < 60 ? "black" : low > 195 ? "white" : undefined;
  }, tile);

async function markIs(test, words) {
  const until = Date.now() + INPUT_MS;
  let now;
  while (Date.now() < until) {
    now = await mark();
    if (test(now)) return now;
    await page.waitForTimeout(30);
  }
  throw new Error(`${words}; the corner is ${now ?? "neither black nor white"}`);
}

await page.goto(values.url);
const opened = Date.now();

await checks.check("the token leaves the address bar", async () => {
  await wait(() => document.body.dataset.api === "ok" && document.querySelector("[data-instance]"), undefined);
  ok(!page.url().includes("token"), page.url());
});

await checks.check(`${seats} tiles are live within 30 s`, async () => {
  await wait((n) => document.querySelectorAll('.tile[data-state="live"]').length >= n, seats, LIVE_MS);
  console.log(`        after ${((Date.now() - opened) / 1000).toFixed(1)} s`);
});

await checks.check("each live tile has one video, and it presents frames", async () => {
  equal(await page.evaluate(() => [...document.querySelectorAll(".tile[data-instance]")].filter((t) => t.querySelectorAll("video").length !== 1).length), 0);
  await wait((n) => [...document.querySelectorAll(".tile[data-frame]")].filter((t) => Number(t.dataset.frame) > 0).length >= n, seats);
});

await checks.check("each address that a node offers for its pictures is one that answers", async () => {
  const offered = () =>
    page.evaluate(async () => {
      const found = [];
      for (const connection of window.connections.filter((c) => c.connectionState === "connected")) {
        const rows = [...(await connection.getStats()).values()];
        const works = (id) => rows.some((row) => row.type === "candidate-pair" && row.remoteCandidateId === id && row.state === "succeeded");
        for (const row of rows) if (row.type === "remote-candidate" && row.candidateType === "host") found.push({ address: `${row.address}:${row.port}`, works: works(row.id) });
      }
      return found;
    });
  const until = Date.now() + INPUT_MS;
  let all = await offered();
  while (Date.now() < until && !all.every((one) => one.works)) all = await page.waitForTimeout(100).then(offered);
  ok(all.length >= seats, `${all.length} addresses for ${seats} tiles`);
  equal(all.filter((one) => !one.works).map((one) => one.address), []);
});

await checks.check("tiles carry seat, lan, lease, audio and tier", async () => {
  const bad = await page.evaluate(() =>
    [...document.querySelectorAll('.tile[data-state="live"]')]
      .filter((t) => !/^[1-9]$/.test(t.dataset.seat) || t.dataset.instance !== `instance-${t.dataset.seat - 1}` || !["host", "joined", "looking", "on", "silent", "none", "unknown"].includes(t.dataset.lan)
        || !["you", "other", "free"].includes(t.dataset.lease) || t.dataset.audio !== "muted" || t.dataset.tier !== "thumb")
      .map((t) => JSON.stringify({ ...t.dataset })),
  );
  equal(bad, []);
});

await checks.check("nothing lies over a live picture", async () => {
  const over = await page.evaluate(() => {
    const found = [];
    for (const video of document.querySelectorAll('.tile[data-state="live"] video')) {
      const box = video.getBoundingClientRect();
      for (let row = 0; row < 5; row += 1)
        for (let column = 0; column < 5; column += 1) {
          const at = document.elementFromPoint(box.left + (box.width * (column + 0.5)) / 5, box.top + (box.height * (row + 0.5)) / 5);
          if (at !== video) found.push(`${video.closest(".tile").dataset.instance}: ${at?.className ?? at?.tagName}`);
        }
    }
    return found;
  });
  equal(over, []);
});

if (values.screenshot) await page.screenshot({ path: values.screenshot });

await page.evaluate((selector) => { window.kept = document.querySelector(`${selector} video`); }, tile);

await checks.check(`a click on seat ${seat} focuses it and takes the controls`, async () => {
  await page.click(`${tile} .pic`);
  await wait((s) => { const t = document.querySelector(s); return t.dataset.focused === "true" && t.dataset.lease === "you" && t.dataset.tier === "full"; }, tile);
  equal(await page.evaluate(() => document.body.dataset.capture), `instance-${seat - 1}`);
  ok(await page.evaluate((s) => window.kept === document.querySelector(`${s} video`), tile), "the video element was replaced");
});

await checks.check("nothing lies over the focused picture", async () => {
  const over = await page.evaluate((selector) => {
    const video = document.querySelector(`${selector} video`);
    const box = video.getBoundingClientRect();
    let count = 0;
    for (let i = 0; i < 25; i += 1) count += document.elementFromPoint(box.left + (box.width * ((i % 5) + 0.5)) / 5, box.top + (box.height * (Math.floor(i / 5) + 0.5)) / 5) === video ? 0 : 1;
    return count;
  }, tile);
  equal(over, 0);
});

let marked = false;
await checks.check("F12 reaches the guest: the measuring mark appears", async () => {
  await page.keyboard.press("F12");
  await markIs((m) => m !== undefined, "no mark after F12");
  marked = true;
});

await checks.check("each key inverts the mark", async () => {
  for (const key of ["a", "Enter", "F5"]) {
    const before = await markIs((m) => m !== undefined, "no mark");
    const sent = Date.now();
    await page.keyboard.press(key);
    await markIs((m) => m !== undefined && m !== before, `${key} did not invert it`);
    console.log(`        ${key}: seen after ${Date.now() - sent} ms, polled`);
  }
});

await checks.check("Esc and Tab go to the guest, and the focus stays", async () => {
  for (const key of ["Escape", "Tab"]) {
    const before = await markIs((m) => m !== undefined, "no mark");
    await page.keyboard.press(key);
    await markIs((m) => m !== undefined && m !== before, `${key} did not invert it`);
  }
  equal([await attribute("data-focused"), await page.evaluate(() => document.body.dataset.capture)], ["true", `instance-${seat - 1}`]);
});

await checks.check("a mouse button in the picture inverts the mark", async () => {
  const box = await page.locator(`${tile} video`).boundingBox();
  await page.mouse.move(box.x + box.width * 0.8, box.y + box.height * 0.9);
  const before = await markIs((m) => m !== undefined, "no mark");
  await page.mouse.down();
  await markIs((m) => m !== undefined && m !== before, "the button did not invert it");
  await page.mouse.up();
});

if (marked)
  await checks.check("F12 again removes the mark", async () => {
    await page.keyboard.press("F12");
    await markIs((m) => m === undefined, "the mark stayed");
  });

await checks.check("left Ctrl and left Alt, pressed and let go, give the keyboard back", async () => {
  await page.keyboard.down("ControlLeft");
  await page.keyboard.down("AltLeft");
  await page.keyboard.up("AltLeft");
  await page.keyboard.up("ControlLeft");
  await wait((s) => document.body.dataset.capture === undefined && document.querySelector(s).dataset.focused === undefined, tile);
  await wait((s) => document.querySelector(s).dataset.lease === "free" && document.activeElement === document.querySelector(s), tile);
  ok(await page.evaluate((s) => window.kept === document.querySelector(`${s} video`), tile), "the video element was replaced");
});

await checks.check("all tiles are live and small again", async () => {
  await wait((n) => document.querySelectorAll('.tile[data-state="live"][data-tier="thumb"]').length >= n, seats);
});

await checks.check(`no task of the page works longer than ${LONG_MS} ms while the wall plays`, async () => {
  let seen;
  const tasks = await mainThreadTasks(page, async () => {
    seen = await page.evaluate(async (ms) => {
      const long = [];
      const observer = new PerformanceObserver((list) => long.push(...list.getEntries().map((entry) => Math.round(entry.duration))));
      observer.observe({ type: "longtask" });
      const frames = () => [...document.querySelectorAll(".tile video")].map((video) => video.getVideoPlaybackQuality().totalVideoFrames);
      const before = frames();
      await new Promise((done) => setTimeout(done, ms));
      observer.disconnect();
      return { long, frames: frames().map((n, i) => n - before[i]) };
    }, WATCH_MS);
  });
  tasks.sort((a, b) => b.worked - a.worked);
  // An unchanged picture is repeated every 2 s; what comes oftener moves.
  const moving = seen.frames.filter((n) => n > WATCH_MS / 1000).length;
  console.log(`        ${WATCH_MS / 1000} s, ${moving} tiles moved (frames: ${seen.frames.join(" ")}); the longest task worked ${tasks[0]?.worked.toFixed(1)} ms; long tasks by the clock: ${seen.long.join(" ms, ") || "none"}`);
  ok(moving > 0 && seen.frames.filter((n) => n > 0).length >= seats, `tiles got no frames: ${seen.frames.join(" ")}`);
  ok(tasks.length > 100, "the trace has no tasks of the page");
  equal(tasks.filter((task) => task.worked > LONG_MS), []);
});

await checks.check("LAN view: the matrix is of now and has measured rates", async () => {
  await page.evaluate(() => { location.hash = "#/lan"; });
  await wait(() => Math.abs(Number(document.querySelector("#heat")?.dataset.at) - Date.now() / 1000) < 5);
  await page.click('[data-act="table"]');
  await wait(() => document.querySelectorAll("table.matrix td[data-value]").length > 0, undefined, LIVE_MS);
  const measured = await page.locator("table.matrix td[data-value]").count();
  console.log(`        ${measured} of ${seats * (seats - 1)} pairs have a rate`);
  equal(measured, seats * (seats - 1));
  await page.click('[data-act="table"]');
});

await checks.check("LAN view: somebody hosts, somebody has joined, and the lanes show their steps", async () => {
  await wait(() => document.querySelector('.map3 [data-lan="host"]') && document.querySelector('.map3 [data-lan="joined"]'), undefined, LIVE_MS);
  await wait(() => document.querySelectorAll("[data-lane] [data-step]").length > 0);
  const count = await page.evaluate(() => [document.querySelectorAll('.map3 [data-lan="joined"]').length, document.querySelectorAll("[data-lane] [data-step]").length]);
  console.log(`        ${count[0]} joined, ${count[1]} steps`);
});

await checks.check("LAN view: the doctor explains a pair, each rung in its place", async () => {
  await page.evaluate(() => { location.hash = "#/lan?pair=2-1"; });
  await wait(() => document.querySelectorAll('.ladder[data-pair="2-1"] [data-rung]').length === 9);
  console.log(`        ${await page.locator("#doctor .say").textContent()}`);
});

await checks.check("LAN view: the slider looks back, and comes back to now", async () => {
  await page.getByLabel("Time, last hour").focus();
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("ArrowLeft");
  await wait(() => document.querySelector(".lan").dataset.at !== undefined && document.querySelector(".lan").dataset.loading === undefined && Number(document.querySelector("#heat").dataset.at) <= Number(document.querySelector(".lan").dataset.at));
  await page.click('[data-act="now"]');
  await wait(() => document.querySelector(".lan").dataset.at === undefined);
});

if (values["lan-screenshot"]) {
  for (const [width, height] of [[1920, 1080], [1280, 720], [390, 844]]) {
    await page.setViewportSize({ width, height });
    await wait(([w]) => innerWidth === w && document.querySelector("#heat")?.clientWidth > 0, [width]);
    await page.screenshot({ path: values["lan-screenshot"].replace(/\.png$/, `-${width}.png`) });
  }
  await page.setViewportSize({ width: 1280, height: 720 });
}

await checks.check("the last minute of a port comes as pcapng", async () => {
  const head = await page.evaluate(async () => {
    const token = localStorage.getItem("loco.token");
    const response = await fetch("/api/instances/instance-0/pcap?last=60s", { headers: { Authorization: `Bearer ${token}` } });
    return { status: response.status, head: [...new Uint8Array(await response.arrayBuffer()).slice(0, 4)], size: 0 };
  });
  equal([head.status, head.head], [200, [0x0a, 0x0d, 0x0d, 0x0a]]);
});

await page.evaluate(() => { location.hash = "#/wall"; });

await checks.check("a reload keeps the token, and every picture comes back", async () => {
  await page.reload();
  await wait((n) => document.body.dataset.api === "ok" && document.querySelectorAll('.tile[data-state="live"]').length >= n, seats, LIVE_MS);
});

await checks.check("no error in the console", () => equal(wrong, []));

await checks.check("a wrong token is said to be one", async () => {
  const other = await browser.newContext();
  const stranger = await other.newPage();
  await stranger.goto(`${new URL(values.url).origin}/#token=not-a-token`);
  await stranger.waitForFunction(() => document.body.dataset.api === "denied", undefined, { timeout: INPUT_MS });
  await stranger.getByText("This is not a token of this cluster.").waitFor({ timeout: INPUT_MS });
  await other.close();
});

await browser.close();
checks.end();
