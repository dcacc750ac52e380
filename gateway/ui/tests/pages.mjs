// The page in real Chromium against a scripted gateway and agent: what the real wall cannot be asked to do at will.
//   node tests/pages.mjs [--screenshots DIR] [--only WORDS]
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Checks, equal, launch, ok } from "./chromium.mjs";
import { FakeAgent } from "./fake-agent.mjs";
import { FakeGateway, TOKEN, instance } from "./fake-gateway.mjs";
import { lanPages } from "./pages-lan.mjs";

const { values } = parseArgs({ options: { screenshots: { type: "string" }, only: { type: "string" } } });
if (values.screenshots) await mkdir(values.screenshots, { recursive: true });
const WAIT = 15_000;
const browser = await launch();
const gateway = new FakeGateway();
const url = await gateway.listen();
const link = `${url}#token=${TOKEN}`;
const checks = new Checks();
const three = [0, 4, 8].map((seat) => instance(seat));
const SEAT = '[data-seat="5"]';

/** A fresh browser context on a fresh state of the gateway. */
async function visit(name, { wall = [], agent = false, hash = `#token=${TOKEN}`, role = "admin", refusals = 0, lan, history, doctor, ...context }, run) {
  if (values.only !== undefined && !name.includes(values.only)) return;
  await checks.check(name, async () => {
    gateway.back();
    gateway.role = role;
    gateway.refusals = refusals;
    gateway.offers = [];
    gateway.asked = [];
    gateway.orders = [];
    gateway.lan = lan;
    gateway.history = history;
    gateway.doctor = doctor;
    gateway.wall.instances = wall;
    gateway.agent = agent ? await FakeAgent.start(browser) : undefined;
    const own = await browser.newContext({ viewport: { width: 1280, height: 720 }, colorScheme: "dark", ...context });
    // All that a screen reader is told: one sentence follows the other, and a slow test would come too late for the first.
    await own.addInitScript(() => {
      window.told = [];
      new MutationObserver(() => {
        const sentence = document.querySelector(".sr[role=status]")?.textContent;
        if (sentence && sentence !== window.told.at(-1)) window.told.push(sentence);
      }).observe(document, { subtree: true, childList: true, characterData: true });
    });
    const page = await own.newPage();
    const wrong = [];
    page.on("pageerror", (error) => wrong.push(error.message));
    const wait = (test, argument) => page.waitForFunction(test, argument, { timeout: WAIT, polling: 50 });
    try {
      await page.goto(url + hash);
      await run(page, wait, gateway.agent);
      if (values.screenshots) await page.screenshot({ path: join(values.screenshots, `${name.replace(/[^a-z0-9]+/gi, "-")}.png`) });
      equal(wrong, []);
    } finally {
      await own.close();
      await gateway.agent?.context.close();
    }
  });
}

const live = (wait, count) => wait((n) => document.querySelectorAll('.tile[data-state="live"]').length === n, count);
const said = (page, words) => page.waitForFunction((w) => window.told.some((sentence) => sentence.includes(w)), words, { timeout: WAIT, polling: 50 });
const text = (page, words) => page.getByText(words).first().waitFor({ timeout: WAIT });

await visit("sign in without a token", { hash: "" }, async (page, wait) => {
  await text(page, "printed a link with one");
  await page.getByLabel("Token").fill("nonsense");
  await page.getByRole("button", { name: "Sign in" }).click();
  await text(page, "This is not a token of this cluster.");
  equal(await page.evaluate(() => document.body.dataset.api), "denied");
  await page.getByLabel("Token").fill(TOKEN);
  await page.getByRole("button", { name: "Sign in" }).click();
  await wait(() => document.body.dataset.api === "ok");
});

await visit("empty cluster fills by itself", {}, async (page, wait) => {
  await text(page, "Nine seats, no guests yet");
  await text(page, "3 nodes are ready");
  gateway.wall.instances = three;
  gateway.tell();
  await wait(() => document.querySelectorAll(".tile[data-instance]").length === 3);
});

await visit("words of states without a picture", {
  wall: [
    instance(0), instance(1, { state: "stopped" }), instance(2, { state: "failed", status: { detail: "QEMU ended with code 1. Its disk is safe." } }),
    instance(3, { agent_silent_for: 14 }), instance(4, { state: "starting" }), instance(5, { state: "recovering" }),
  ],
}, async (page, wait) => {
  await wait(() => document.querySelectorAll(".tile[data-instance]").length === 6);
  const states = await page.evaluate(() => [...document.querySelectorAll(".tile")].map((t) => t.dataset.state));
  equal(states, ["connecting", "offline", "error", "stale", "booting", "recovering", "empty", "empty", "empty"]);
  await text(page, "QEMU ended with code 1. Its disk is safe.");
  equal(await page.locator('[data-state="live"]').count(), 0);
});

await visit("gateway away: the wall stays and pictures keep running", { wall: three, agent: true }, async (page, wait) => {
  await live(wait, 3);
  gateway.leave();
  await wait(() => document.body.dataset.api === "away");
  await text(page, "The gateway does not answer");
  const frame = Number(await page.getAttribute(SEAT, "data-frame"));
  await wait(([s, n]) => Number(document.querySelector(s).dataset.frame) > n + 2, [SEAT, frame]);
  equal(await page.getAttribute(SEAT, "data-state"), "live");
  await text(page, "Was on the LAN");
  gateway.back();
  // At once, and without insisting: the countdown may have brought it back first, and the button with it.
  await page.evaluate(() => document.querySelector('[data-act="try"]')?.click());
  await wait(() => document.body.dataset.api === "ok");
  equal(await page.getAttribute(SEAT, "data-state"), "live");
});

await visit("the cluster's API is away: the wall plays and says how old its list is", { wall: three, agent: true }, async (page, wait) => {
  await live(wait, 3);
  gateway.directory = { mode: "kubernetes", stale_since: Date.now() / 1000 - 7, problem: "the API does not answer: Connection refused" };
  gateway.tell();
  await text(page, "The cluster's API does not tell what changes");
  await text(page, "Connection refused");
  const frame = Number(await page.getAttribute(SEAT, "data-frame"));
  await wait(([s, n]) => Number(document.querySelector(s).dataset.frame) > n + 2, [SEAT, frame]);
  equal(await page.getAttribute(SEAT, "data-state"), "live");
  gateway.directory = { mode: "kubernetes" };
  gateway.tell();
  await wait(() => document.querySelector("[data-stale]") === null);
  gateway.directory = { mode: "file" };
});

await visit("a gateway that is replaced says bye: the page is at the next one without a word", { wall: three, agent: true }, async (page, wait) => {
  await live(wait, 3);
  await page.evaluate(() => {
    window.said = [];
    new MutationObserver(() => window.said.push(document.body.dataset.api)).observe(document.body, { attributes: true });
  });
  const before = gateway.asked.filter((path) => path.startsWith("/api/events")).length;
  gateway.bye();
  const until = Date.now() + 10_000;
  while (gateway.asked.filter((path) => path.startsWith("/api/events")).length === before && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 20));
  // Told only on the new stream.
  gateway.wall.instances = three.slice(0, 2);
  gateway.tell();
  await wait(() => document.querySelectorAll(".tile[data-instance]").length === 2);
  equal(await page.evaluate(() => window.said.filter((word) => word !== "ok")), []);
});

await visit("a lost line keeps the last picture, says so, and comes back", { wall: three, agent: true }, async (page, wait, agent) => {
  await live(wait, 3);
  await page.evaluate((s) => {
    window.seen = [];
    const tile = document.querySelector(s);
    window.video = tile.querySelector("video");
    new MutationObserver(() => window.seen.push([tile.dataset.state, tile.querySelector("canvas").hidden, tile.querySelector(".note")?.textContent ?? ""])).observe(tile, { attributes: true, subtree: true, childList: true });
  }, SEAT);
  await agent.kill("instance-4");
  await wait((s) => window.seen.some((x) => x[0] === "recovering") && document.querySelector(s).dataset.state === "live", SEAT);
  const during = (await page.evaluate(() => window.seen)).find((x) => x[0] === "recovering" && !x[1]);
  ok(during?.[2].includes("The picture froze at"), `while it was lost: ${JSON.stringify(during)}`);
  ok(await page.evaluate((s) => window.video === document.querySelector(`${s} video`), SEAT), "the video element was replaced");
});

await visit("a line that stays lost keeps the frozen picture", { wall: three, agent: true }, async (page, wait, agent) => {
  await live(wait, 3);
  gateway.agent = undefined;
  await agent.kill("instance-4");
  await text(page, "Restarting the stream");
  // Through several tries, each of them refused or unanswered.
  await wait((s) => /Restarting, [3-9] s/.test(document.querySelector(s).textContent), SEAT);
  equal(await page.evaluate((s) => document.querySelector(`${s} canvas`).hidden, SEAT), false);
  gateway.agent = agent;
});

await visit("a still picture stays live", { wall: three, agent: true }, async (page, wait, agent) => {
  await live(wait, 3);
  await agent.set("instance-4", { still: true });
  await text(page, "still picture");
  equal(await page.getAttribute(SEAT, "data-state"), "live");
});

await visit("keyboard on the wall: arrows, Space, Home, d, Enter", { wall: three, agent: true }, async (page, wait) => {
  await live(wait, 3);
  const at = () => page.evaluate(() => document.activeElement?.dataset.seat);
  await page.locator('[data-seat="1"]').focus();
  for (const key of ["ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"]) await page.keyboard.press(key);
  equal(await at(), "5");
  await page.keyboard.press("Space");
  await wait((s) => document.querySelector(s).dataset.tier === "full", SEAT);
  ok(page.url().endsWith("#/wall?seat=5&mode=lean"), page.url());
  await page.keyboard.press("Home");
  await wait((s) => document.querySelector(s).dataset.tier === "thumb", SEAT);
  await page.keyboard.press("m");
  equal(await page.getAttribute(SEAT, "data-audio"), "on");
  await page.keyboard.press("d");
  await page.locator('.drawer[aria-label="Details of seat 5"]').waitFor();
  await page.locator(SEAT).focus();
  await page.keyboard.press("Enter");
  await wait(() => document.body.dataset.capture === "instance-4");
});

await visit("input: keys with Esc and F-keys, buttons, motion, and all let go on leaving", { wall: three, agent: true }, async (page, wait, agent) => {
  await live(wait, 3);
  await page.click(`${SEAT} .pic`);
  await wait((s) => document.querySelector(s).dataset.lease === "you", SEAT);
  for (const key of ["Escape", "F5", "Tab", "F12", "ControlLeft"]) await page.keyboard.press(key);
  const box = await page.locator(`${SEAT} video`).boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.move(box.x + box.width * 0.75, box.y + box.height * 0.25, { steps: 5 });
  await page.mouse.down({ button: "right" });
  await page.keyboard.down("KeyW");
  const until = Date.now() + WAIT;
  let guest;
  do guest = await agent.guest("instance-4");
  while (Math.abs(guest.cursor.x - 480) + Math.abs(guest.cursor.y - 120) > 3 && Date.now() < until);
  ok(Math.abs(guest.cursor.x - 480) + Math.abs(guest.cursor.y - 120) <= 3, `the guest's cursor is at ${JSON.stringify(guest.cursor)}, not at 480,120`);
  await page.evaluate(() => window.dispatchEvent(new Event("blur")));
  await wait(() => document.body.dataset.capture === undefined);
  equal(await page.getAttribute(SEAT, "data-focused"), "true");
  let log;
  do log = await agent.log("instance-4");
  while (!log.some((m) => m.t === "held" && m.codes.length === 0 && m.buttons.length === 0 && log.indexOf(m) > log.findIndex((k) => k.code === "KeyW")) && Date.now() < until);
  const down = log.filter((m) => m.t === "key" && m.down).map((m) => m.code);
  equal(down, ["Escape", "F5", "Tab", "F12", "ControlLeft", "KeyW"]);
  equal(log.filter((m) => m.t === "key" && !m.down).map((m) => m.code), down);
  equal(log.filter((m) => m.t === "button").map((m) => [m.button, m.down]), [[2, true], [2, false]]);
  await page.keyboard.up("KeyW");
  await page.mouse.up({ button: "right" });
  await page.click(`${SEAT} .pic`);
  await wait(() => document.body.dataset.capture === "instance-4");
  await page.getByRole("button", { name: "Back to the wall" }).click();
  await wait((s) => document.querySelector(s).dataset.lease === "free" && document.querySelector(s).dataset.tier === "thumb", SEAT);
});

await visit("a click before the gateway has said who we are", { wall: three, agent: true, refusals: 2 }, async (page, wait) => {
  await page.click(`${SEAT} .pic`);
  await wait((s) => document.body.dataset.capture === "instance-4" && document.querySelector(s).dataset.lease === "you", SEAT);
  equal(gateway.refusals, 0);
  await said(page, "Keys go to seat 5.");
});

await visit("keys never act on the page while a guest's line is away; the way out still works", { wall: three, agent: true }, async (page, wait, agent) => {
  await live(wait, 3);
  const leaks = () => page.evaluate(() => ["F5", "Tab", "Escape"].filter((code) => ["keydown", "keyup"].map((type) => window.dispatchEvent(new KeyboardEvent(type, { code, key: code, cancelable: true }))).includes(true)));
  equal(await leaks(), ["F5", "Tab", "Escape"]);
  await page.click(`${SEAT} .pic`);
  await wait((s) => document.querySelector(s).dataset.lease === "you", SEAT);
  gateway.agent = undefined;
  await agent.kill("instance-4");
  await wait(() => document.body.dataset.capture === undefined);
  equal(await leaks(), []);
  for (const key of ["ControlLeft", "AltLeft"]) await page.keyboard.down(key);
  for (const key of ["AltLeft", "ControlLeft"]) await page.keyboard.up(key);
  await wait((s) => document.querySelector(s).dataset.focused === undefined, SEAT);
  equal(await leaks(), ["F5", "Tab", "Escape"]);
  gateway.agent = agent;
});

await visit("an empty seat gives the command that a running wall takes", { wall: three, permissions: ["clipboard-read", "clipboard-write"] }, async (page) => {
  await page.click('[data-seat="2"] [data-act="copy"]');
  equal(await page.evaluate(() => navigator.clipboard.readText()), "loco down && loco up --guests 9");
});

await visit("the controls of another viewer are not taken", { wall: three, agent: true }, async (page, wait, agent) => {
  await agent.set("instance-4", { holder: "somebody" });
  await live(wait, 3);
  await page.click(`${SEAT} .pic`);
  await wait((s) => document.querySelector(s).dataset.focused === "true" && document.querySelector(s).dataset.lease === "other", SEAT);
  await text(page, "Another viewer has the controls.");
  equal(await page.evaluate(() => document.body.dataset.capture), undefined);
  equal((await agent.guest("instance-4")).holder, "somebody");
});

await visit("a view token may watch", { wall: three, agent: true, role: "view" }, async (page, wait, agent) => {
  await live(wait, 3);
  await page.click(`${SEAT} .pic`);
  await wait((s) => document.querySelector(s).dataset.focused === "true", SEAT);
  await said(page, "You may watch. Ask for a play token to join in.");
  await page.keyboard.press("a");
  equal((await agent.log("instance-4")).filter((m) => m.t === "key" || m.t === "take"), []);
});

await visit("tiers: full in focus, the covered ones pause, small again after", { wall: three, agent: true }, async (page, wait) => {
  await live(wait, 3);
  await page.click(`${SEAT} .pic`);
  const tiers = (want) => wait((w) => JSON.stringify([1, 5, 9].map((n) => document.querySelector(`[data-seat="${n}"]`).dataset.tier)) === JSON.stringify(w), want);
  await tiers([null, "full", null]);
  equal(await page.getAttribute('[data-seat="1"]', "data-state"), "live");
  // Chromium took the offer as we changed it.
  ok(gateway.offers.length >= 3 && gateway.offers.every((sdp) => /^a=fmtp:\d+ .*stereo=1/m.test(sdp)), "an offer asks for no stereo");
  await page.getByRole("button", { name: "Back to the wall" }).click();
  await tiers(["thumb", "thumb", "thumb"]);
  // What changes without any other change of the page is told as well.
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await tiers([null, null, null]);
});

await visit("sound: one seat at a time, both with Shift", { wall: three, agent: true }, async (page, wait) => {
  await live(wait, 3);
  const audio = () => page.evaluate(() => [1, 5, 9].map((n) => { const t = document.querySelector(`[data-seat="${n}"]`); return `${t.dataset.audio} ${t.querySelector("video").muted}`; }));
  equal(await audio(), ["muted true", "muted true", "muted true"]);
  await page.click('[data-seat="1"] [data-act="audio"]');
  await page.click('[data-seat="5"] [data-act="audio"]');
  equal(await audio(), ["muted true", "on false", "muted true"]);
  await page.click('[data-seat="9"] [data-act="audio"]', { modifiers: ["Shift"] });
  equal(await audio(), ["muted true", "on false", "on false"]);
});

await visit("reset asks first", { wall: three, agent: true, hash: `#token=${TOKEN}` }, async (page, wait) => {
  await live(wait, 3);
  await page.click(`${SEAT} [data-act="drawer"]`);
  await page.click('[data-act="reset"]');
  await text(page, "Reset pulls the plug: what the game did not save is lost.");
  await page.getByRole("button", { name: "Keep" }).click();
  equal(await page.locator('[data-act="reset-yes"]').count(), 0);
});

await visit("a fresh disk asks first, and is told where it was taken", { wall: three, agent: true, role: "admin", hash: `#token=${TOKEN}` }, async (page, wait) => {
  await live(wait, 3);
  await page.click(`${SEAT} [data-act="drawer"]`);
  await page.click('[data-act="fresh"]');
  await text(page, "The guest switches off and starts on a fresh disk. The disk it has is set aside until the next time.");
  equal(gateway.orders, []);
  await page.click('[data-act="fresh-yes"]');
  await text(page, "Its runner starts the guest on a fresh disk.");
  equal(gateway.orders, [["/api/control/instance-4", { action: "reset" }]]);
});

await visit("a player may not take a fresh disk, and reads why", { wall: three, agent: true, role: "play", hash: `#token=${TOKEN}` }, async (page, wait) => {
  await live(wait, 3);
  await page.click(`${SEAT} [data-act="drawer"]`);
  await text(page, "Shut down, Reset and Fresh disk need an admin token.");
  equal(await page.locator('[data-act="fresh"]').isDisabled(), true);
});

await visit("phone: chosen seat on top, touch row, slide and tap", { wall: three, agent: true, viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, colorScheme: "light" }, async (page, wait, agent) => {
  await live(wait, 3);
  await page.tap(`${SEAT} .pic`);
  await wait((s) => document.querySelector(s).getBoundingClientRect().width > 350, SEAT);
  equal(await page.evaluate(() => document.body.dataset.capture), undefined);
  await page.tap(`${SEAT} .pic`);
  await wait(() => document.body.dataset.capture === "instance-4");
  await page.tap(`${SEAT} .pic`);
  const until = Date.now() + WAIT;
  let log;
  do log = await agent.log("instance-4");
  while (log.filter((m) => m.t === "button").length < 2 && Date.now() < until);
  equal(log.filter((m) => m.t === "button").map((m) => [m.button, m.down]), [[0, true], [0, false]]);
  await page.getByRole("button", { name: "Esc" }).first().tap();
  do log = await agent.log("instance-4");
  while (!log.some((m) => m.code === "Escape") && Date.now() < until);
  ok(log.some((m) => m.code === "Escape"), "Esc did not reach the guest");
  const small = await page.evaluate(() => [...document.querySelectorAll(".tile.full button")].filter((b) => b.offsetParent && b.getBoundingClientRect().height < 44).map((b) => b.textContent));
  equal(small, []);
});

await visit("reflow at 320 px without a horizontal scroll", { wall: three, viewport: { width: 320, height: 640 } }, async (page, wait) => {
  await wait(() => document.querySelectorAll(".tile[data-instance]").length === 3);
  equal(await page.evaluate(() => [document.documentElement.scrollWidth, ...[...document.querySelectorAll(".wallview,.view")].map((e) => e.scrollWidth)].filter((w) => w > 320)), []);
});

await visit("day and night: the system's, then the chosen one, also after a reload", { wall: three, colorScheme: "light" }, async (page, wait) => {
  await wait(() => document.body.dataset.theme === "light");
  await page.click('[data-act="theme"]');
  await wait(() => document.body.dataset.theme === "dark");
  await page.reload();
  await wait(() => document.body.dataset.theme === "dark" && document.body.dataset.api === "ok");
});

await visit("no host but its own is ever asked", { wall: three, agent: true }, async (page, wait) => {
  const hosts = new Set();
  page.on("request", (request) => hosts.add(new URL(request.url()).host));
  await page.reload();
  await live(wait, 3);
  equal([...hosts], [new URL(link).host]);
});

await lanPages({ visit, gateway, live, text });

await browser.close();
gateway.close();
checks.end();
