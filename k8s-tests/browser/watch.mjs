// Watches the wall in real Chromium while something happens to the cluster:
//   LOCO_TOKEN=… node k8s-tests/browser/watch.mjs --url http://HOST:PORT [--tiles 9] [--screenshot FILE]
// Prints `ready` once that many tiles are live and present frames; at a line (or the end) of standard input, one JSON object
// of what each tile showed since: frames, the longest time without one (a guest that is short of processor time draws
// seldom), how often its state left `live`, and for how long at most.
import { parseArgs } from "node:util";
import { createInterface } from "node:readline";
import { launch } from "../../gateway/ui/tests/chromium.mjs";

const { values } = parseArgs({
  options: { url: { type: "string" }, tiles: { type: "string", default: "9" }, screenshot: { type: "string" } },
});
if (!values.url || !process.env.LOCO_TOKEN) {
  console.error("--url or LOCO_TOKEN is missing");
  process.exit(2);
}
const tiles = Number(values.tiles);
const opened = Date.now();
// The page wants a secure context. Who opens a node's port by its address has none without TLS, and tells the browser so.
const browser = await launch([`--unsafely-treat-insecure-origin-as-secure=${values.url}`]);
const page = await (await browser.newContext({ viewport: { width: 1280, height: 720 } })).newPage();
const errors = [];
page.on("pageerror", (error) => errors.push(error.message));
page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
await page.goto(`${values.url}/#token=${process.env.LOCO_TOKEN}`);
await page.waitForFunction((n) => document.querySelectorAll('.tile[data-instance][data-state="live"] video').length >= n, tiles, { timeout: 170_000, polling: 100 });

// A video element may be replaced when its stream is made anew, so the tile's current one is looked up at each frame.
await page.evaluate(() => {
  const seen = new Map();
  window.seen = seen;
  const attend = (tile) => {
    const id = tile.dataset.instance;
    const row = { frames: 0, last: undefined, longest: 0, left: 0, away: 0, since: 0, state: tile.dataset.state };
    seen.set(id, row);
    let video;
    const present = (of) => (now) => {
      row.frames += 1;
      if (row.last !== undefined) row.longest = Math.max(row.longest, now - row.last);
      row.last = now;
      if (of === video) of.requestVideoFrameCallback(present(of));
    };
    const look = () => {
      const current = document.querySelector(`.tile[data-instance="${id}"] video`);
      if (current && current !== video) {
        video = current;
        video.requestVideoFrameCallback(present(video));
      }
      const state = document.querySelector(`.tile[data-instance="${id}"]`)?.dataset.state ?? "absent";
      if (row.state === "live" && state !== "live") {
        row.left += 1;
        row.since = performance.now();
      }
      if (row.state !== "live") row.away = Math.max(row.away, performance.now() - row.since);
      row.state = state;
    };
    look();
    setInterval(look, 20);
  };
  for (const tile of document.querySelectorAll(".tile[data-instance]")) if (tile.dataset.state === "live") attend(tile);
  window.begin = performance.now();
});
await page.waitForFunction((n) => [...window.seen.values()].filter((row) => row.frames > 0).length >= n, tiles, { timeout: 60_000 });
console.error(`live after ${((Date.now() - opened) / 1000).toFixed(1)} s`);
if (values.screenshot) await page.screenshot({ path: values.screenshot });
await page.evaluate(() => {
  window.begin = performance.now();
  for (const row of window.seen.values()) Object.assign(row, { frames: 0, longest: 0, left: 0, away: 0, last: window.begin });
});
console.log("ready");

for await (const _ of createInterface({ input: process.stdin })) break;
const seen = await page.evaluate(() => {
  const now = performance.now();
  const row = ([instance, r]) => ({ instance, state: r.state, frames: r.frames, longestGapMs: Math.max(r.longest, now - r.last), leftLive: r.left, longestAwayMs: r.away });
  return { seconds: (now - window.begin) / 1000, tiles: [...window.seen].map(row) };
});
console.log(JSON.stringify({ ...seen, errors }));
await browser.close();
// Standard input stays open as long as whoever reads this wants.
process.exit(0);
