// The LAN on the page, against the scripted gateway: tiles, boards, session board, matrix, scrubber, lanes, doctor.
import { readFileSync } from "node:fs";
import { equal, mainThreadTasks, ok } from "./chromium.mjs";
import { TOKEN, instance } from "./fake-gateway.mjs";
import { history, lan } from "./fake-lan.mjs";

/** /api/lan-status and its history as a real wall of nine demo guests told them. */
const RECORDED = JSON.parse(readFileSync(new URL("recorded-lan.json", import.meta.url), "utf8"));

const SEATS = [0, 1, 2, 3, 4, 5, 7, 8];
const HASH = `#token=${TOKEN}`;

export async function lanPages({ visit, gateway, live, text }) {
  const wall = SEATS.map((seat) => instance(seat));
  const now = (at) => lan(at);
  const asThen = (at) => lan(at, { roles: { 0: "host", 1: "joined", 3: "on" }, session: "Friday night" });
  const hour = (from, to) => (from === to ? { from, to, step: 5, samples: [], events: [], state: asThen(to) } : history(from, to));
  const well = (from, to) => ({ from, to, rung: "joined", ok: true, cause: "well", sentence: `All is well between ${from} and ${to}.`, ladder: [{ rung: "link", result: "passed" }] });
  const data = { wall, lan: now, history: hour, doctor: well };
  const toLan = async (page, wait) => {
    await wait(() => document.body.dataset.api === "ok");
    await page.evaluate(() => { location.hash = "#/lan"; });
    await wait(() => document.querySelector("#heat")?.dataset.at !== undefined);
    // The lanes are drawn once they know how wide they are.
    await wait(() => document.querySelector("[data-lane]") !== null || document.body.textContent.includes("nobody has been seen to start"));
  };
  const cellAt = async (page, row, column) => {
    const box = await page.locator("#heat").boundingBox();
    const left = box.width < 420 ? 26 : (await page.evaluate(() => innerWidth)) >= 1700 ? 128 : 104;
    const top = box.width < 420 ? 24 : 30;
    return { x: box.x + left + ((box.width - left) / 9) * (column - 0.5), y: box.y + top + ((box.height - top) / 9) * (row - 0.5) };
  };

  await visit("tiles carry role, player's name and link; the fault survives the smallest tile", { ...data, agent: true }, async (page, wait) => {
    await live(wait, 8);
    const tiles = () => page.evaluate(() => [...document.querySelectorAll(".tile")].map((t) => `${t.dataset.seat} ${t.dataset.lan} ${t.dataset.link ?? "-"} ${t.querySelector(".who b").textContent}`));
    equal(await tiles(), ["1 host up Ana", "2 joined up Bruno", "3 joined up Chidi", "4 silent up Seat 4", "5 joined up Pathfinder", "6 joined up Emil", "7 unknown - Empty seat", "8 looking up Seat 8", "9 none up Seat 9"]);
    equal(await page.getAttribute('[data-seat="6"]', "aria-label"), "Seat 6, Emil, Live, Joined");
    const shown = () => page.evaluate(() => [...document.querySelectorAll(".tile")].filter((t) => [...t.querySelectorAll(".rows span")].some((s) => s.textContent.trim() === "LAN silent" && s.getBoundingClientRect().height > 0)).map((t) => t.dataset.seat));
    for (const [width, height] of [[1920, 1080], [1280, 720], [900, 420], [720, 300], [390, 844], [320, 640]]) {
      await page.setViewportSize({ width, height });
      await wait(([w]) => innerWidth === w, [width]);
      equal(await shown(), ["4"]);
    }
    const over = await page.evaluate(() => {
      const found = [];
      for (const video of document.querySelectorAll('.tile[data-state="live"] video')) {
        const box = video.getBoundingClientRect();
        for (let i = 0; i < 25; i += 1) {
          const [x, y] = [box.left + (box.width * ((i % 5) + 0.5)) / 5, box.top + (box.height * (Math.floor(i / 5) + 0.5)) / 5];
          if (x < 0 || y < 60 || x >= innerWidth || y >= innerHeight - 70) continue;
          const at = document.elementFromPoint(x, y);
          if (at !== video) found.push(`${video.closest(".tile").dataset.instance}: ${at?.className ?? at?.tagName}`);
        }
      }
      return found;
    });
    equal(over, []);
    // No decoded crossing is in the data: no joint may claim one.
    equal(await page.locator("[data-joint]").count(), 0);
  });

  await visit("a seat that falls silent on the LAN is said once, aloud", { ...data, agent: true, lan: (at) => lan(at, { roles: gateway.roles ?? { 0: "host", 1: "joined" } }), wall: wall.slice(0, 2) }, async (page, wait) => {
    await live(wait, 2);
    gateway.roles = { 0: "host", 1: "silent" };
    gateway.tell();
    await wait(() => document.querySelector('[role="status"].sr').textContent === "Seat 2, Live, LAN silent.");
    gateway.roles = undefined;
  });

  await visit("more than nine seats and a second LAN have tiles, boards below each other", { agent: true, wall: [0, 4, 11].map((seat) => instance(seat)).concat({ ...instance(2), id: "other-2", lan: "other", name: "Seat 3" }) }, async (page, wait) => {
    await wait(() => document.querySelectorAll(".tile[data-instance]").length === 3);
    await live(wait, 2);
    // Only what is in the window is played; a board that is jumped to begins.
    await page.evaluate(() => [...document.querySelectorAll(".boardtabs button")].at(-1).click());
    await wait(() => document.querySelector('[data-instance="other-2"]')?.dataset.state === "live" && document.querySelector('[data-instance="other-2"]').dataset.tier === "thumb");
    const boards = await page.evaluate(() => [...document.querySelectorAll("[data-board]")].map((b) => `${b.dataset.boardLan}: ${b.querySelector("h2").textContent}: ${[...b.querySelectorAll(".tile[data-instance]")].map((t) => `${t.dataset.instance}@${t.dataset.seat}`).join(" ")}`));
    equal(boards, ["party: party, seats 1 to 9: instance-0@1 instance-4@5", "party: party, seats 10 to 18: instance-11@12", "other: other: other-2@3"]);
    await wait(() => document.querySelector('[data-instance="instance-0"]').dataset.tier === undefined);
    await page.click('[data-instance="other-2"] .pic');
    await wait(() => document.querySelector('[data-instance="other-2"]').dataset.lease === "you" && location.hash.includes("seat=21"));
    await text(page, "Keys go to seat 3.");
    equal(await page.locator(".tile.full .mini button").count(), 9);
  });

  await visit("two hundred seats: tiles and lines only where somebody looks", { agent: true, wall: Array.from({ length: 200 }, (_, seat) => instance(seat)) }, async (page, wait) => {
    await live(wait, 9);
    equal(await page.locator("[data-board]").count(), 23);
    ok((await page.locator(".tile").count()) <= 18, "tiles of boards that nobody has seen");
    equal(gateway.offers.length, 9);
    await page.evaluate(() => { location.hash = "#/wall?seat=200&mode=lean"; });
    await wait(() => document.querySelector('[data-seat="200"]')?.dataset.state === "live");
    equal(await page.getAttribute('[data-seat="200"]', "data-tier"), "full");
  });

  await visit("LAN view: who sits where", data, async (page, wait) => {
    await toLan(page, wait);
    equal(await page.evaluate(() => document.body.dataset.view), "lan");
    const seats = await page.evaluate(() => [...document.querySelectorAll(".map3 li")].map((li) => `${li.querySelector("b").textContent}: ${li.querySelector("small").textContent.trim()}${li.classList.contains("rail") ? " >" : ""}${li.classList.contains("drop") ? " v" : ""}`));
    equal(seats, ["Ana: Host >", "Bruno: Joined > v", "Chidi: Joined v", "Seat 4: Silent", "Pathfinder: Joined >", "Emil: Joined", "Free: Empty", "Seat 8: Looking", "Seat 9: Not yet"]);
    await text(page, "5 of 9");
    await text(page, "{12CD2100-D2E2-11CF-A9E3-00A0C90AEC76}");
    equal(await page.getByRole("tab").count(), 0);
  });

  await visit("LAN view: two sessions are two tabs, none is said with its remedy", { ...data, lan: (at) => {
    const one = lan(at);
    one.instances["instance-7"].directplay = { role: "host", session: "Second game", player_name: "Farah" };
    one.sessions.push({ name: "Second game", transport: "ipx", certainty: "inferred", instance_guid_wire: "b".repeat(32), host_instance: "instance-7", max_players: 0 });
    return gateway.none ? { ...one, sessions: [] } : one;
  } }, async (page, wait) => {
    await toLan(page, wait);
    equal(await page.getByRole("tab").allTextContents(), ["Friday night", "Second game"]);
    await page.getByRole("tab", { name: "Second game" }).click();
    await wait(() => [...document.querySelectorAll(".map3 li:not(.out)")].map((li) => li.querySelector("b").textContent).join() === "Farah");
    gateway.none = true;
    gateway.tell();
    await text(page, "No session yet. In the game: two-player case, then the red button with the wand.");
    gateway.none = undefined;
  });

  await visit("LAN view: every board of nine has its own, also by a pair's address", { ...data, wall: wall.concat({ ...instance(2), id: "other-2", lan: "other", name: "Seat 3" }) }, async (page, wait) => {
    await toLan(page, wait);
    equal(await page.locator(".lan .boardtabs button").allTextContents(), ["party", "other"]);
    await page.locator(".lan .boardtabs button").nth(1).click();
    await wait(() => location.hash === "#/lan?board=2" && [...document.querySelectorAll(".map3 li button")].map((b) => b.textContent).join().startsWith("3Seat 3"));
    await page.evaluate(() => { location.hash = "#/lan?pair=12-12"; });
    await wait(() => document.querySelector("#doctor").dataset.pair === "3-3");
  });

  await visit("LAN view: a fault of it leaves the wall alone", { ...data, agent: true }, async (page, wait) => {
    await live(wait, 8);
    await page.route("**/lan-view-*.js", (route) => route.abort());
    await page.evaluate(() => { location.hash = "#/lan"; window.kept = document.querySelector('[data-seat="1"] video'); });
    await text(page, "The view LAN cannot be shown");
    await page.evaluate(() => { location.hash = "#/wall"; });
    await live(wait, 8);
    equal(await page.evaluate(() => window.kept === document.querySelector('[data-seat="1"] video')), true);
  });

  await visit("matrix: four measures, arrows name the pair, the table says the same", data, async (page, wait) => {
    await toLan(page, wait);
    await page.locator("#heat").focus();
    const pair = () => page.locator("#pair").textContent();
    const at = await cellAt(page, 4, 1);
    await page.mouse.move(at.x, at.y);
    await wait(() => document.querySelector("#pair").textContent === "Seat 4 to seat 1: 0 frames a second");
    await page.keyboard.press("ArrowDown");
    equal(await pair(), "Seat 5 to seat 1: 50 frames a second");
    await page.keyboard.press("End");
    equal(await pair(), "Seat 5 to seat 9: 0 frames a second");
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("ArrowLeft");
    equal(await pair(), "Seat 5 to seat 7: nobody sits at seat 7");
    for (const [name, mode] of [["Round trip", "rtt"], ["Loss", "loss"], ["Broadcast", "broadcast"], ["Rate", "rate"]]) {
      await page.getByRole("radio", { name }).click();
      equal(await page.getAttribute("#heat", "data-mode"), mode);
    }
    // The radios take arrows as radios do.
    await page.keyboard.press("ArrowRight");
    equal(await page.getAttribute("#heat", "data-mode"), "rtt");
    await page.getByRole("radio", { name: "Rate" }).click();
    await page.click('[data-act="table"]');
    const cells = await page.evaluate(() => Object.fromEntries([...document.querySelectorAll("table.matrix td")].map((td) => [`${td.dataset.from}-${td.dataset.to}`, [td.dataset.value ?? null, td.textContent]])));
    equal(Object.keys(cells).length, 81);
    equal([cells["5-1"], cells["4-1"], cells["1-1"], cells["1-7"], cells["9-1"]], [["50", "50"], ["0", "none"], [null, ""], [null, "not measured"], [null, "not measured"]]);
    await page.click('[data-act="table"]');
    await wait(() => document.querySelector("#heat") !== null);
  });

  await visit("matrix: Enter opens the doctor for the pair, by its address too", data, async (page, wait) => {
    await toLan(page, wait);
    await page.locator("#heat").focus();
    const at = await cellAt(page, 8, 1);
    await page.mouse.move(at.x, at.y);
    await wait(() => document.querySelector("#pair").textContent.startsWith("Seat 8 to seat 1"));
    await page.keyboard.press("Enter");
    await wait(() => document.querySelector("#doctor").dataset.pair === "8-1");
    equal(await page.evaluate(() => [location.hash, document.activeElement?.textContent]), ["#/lan?pair=8-1", "Why can seat 8 not join Ana?"]);
    await text(page, "Seat 1 refuses the connection.");
    // A pair that no list of faults names is asked for.
    await page.evaluate(() => { location.hash = "#/lan?pair=2-3"; });
    await text(page, "All is well between instance-1 and instance-2.");
    equal(await page.getAttribute("#doctor", "data-ok"), "true");
    equal(gateway.asked.filter((path) => path.startsWith("/api/doctor")), ["/api/doctor?from=instance-1&to=instance-2"]);
  });

  await visit("matrix: cells are painted, hatched where nothing was measured", data, async (page, wait) => {
    await toLan(page, wait);
    const colours = () => page.evaluate(async () => {
      await document.fonts.ready;
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      const canvas = document.querySelector("#heat");
      const box = canvas.getBoundingClientRect();
      const scale = canvas.width / box.width;
      const x = canvas.getContext("2d");
      const at = (row, column) => {
        const [w, h] = [(box.width - 104) / 9, (box.height - 30) / 9];
        const { data } = x.getImageData((104 + w * (column - 1) + 6) * scale, (30 + h * (row - 1) + 5) * scale, (w - 12) * scale, 6 * scale);
        const seen = new Set();
        for (let i = 0; i < data.length; i += 4) seen.add(`${data[i]},${data[i + 1]},${data[i + 2]},${data[i + 3]}`);
        return [...seen];
      };
      return { strong: at(1, 6), weak: at(1, 8), unknown: at(9, 2), same: at(1, 1) };
    });
    // Painted at most once a second, so that the first look may come before the colours.
    const painted = async () => {
      for (let look = 0; look < 50; look += 1) {
        const seen = await colours();
        if (seen.strong[0] !== "0,0,0,0" && seen.strong.length === 1) return seen;
        await page.waitForTimeout(100);
      }
      return colours();
    };
    const { strong, weak, unknown, same } = await painted();
    equal([strong.length, weak.length, same], [1, 1, ["0,0,0,0"]]);
    ok(strong[0] !== weak[0], "a strong and a weak pair have one colour");
    ok(unknown.length > 2, `not hatched: ${unknown}`);
  });

  await visit("doctor: question, sentence, remedy, ladder with its evidence", data, async (page, wait) => {
    await toLan(page, wait);
    await wait(() => document.querySelector("#doctor").dataset.pair === "4-1");
    await text(page, "Why can seat 4 not join Ana?");
    await text(page, "Seat 4 is silent: its network card has never sent a frame. The driver is missing.");
    await text(page, "Install the RTL8029 driver. We put the driver disk in drive D.");
    equal(await page.evaluate(() => [...document.querySelectorAll("#doctor [data-rung]")].map((li) => `${li.dataset.rung} ${li.dataset.result}`)), ["link passed", "frame failed", "address unreached", "asks unreached", "reaches unreached", "answers unreached", "same-game unreached", "free unreached", "joined unreached"]);
    const proof = await page.locator(".ev.bad").textContent();
    ok(/^frame 18204 {2}\d\d:\d\d:\d\d\.\d{3} {2}seat 4 on node-bARP who has 10\.98\.0\.4\?/.test(proof), proof);
    await text(page, "The frame is older than the buffer (60 s). Reproduce it; the capture runs.");
    equal(await page.getByText("Also:").locator("..").getByRole("button").allTextContents(), ["seat 8"]);
  });

  await visit("doctor: both seats' captures are saved, by an admin", data, async (page, wait) => {
    await toLan(page, wait);
    const files = [];
    page.on("download", (download) => files.push(download.suggestedFilename()));
    await page.click('#doctor [data-act="evidence"]');
    await wait(() => true);
    const until = Date.now() + 5_000;
    while (files.length < 2 && Date.now() < until) await page.waitForTimeout(20);
    equal(files.map((name) => name.replace(/-2\d{3}-.*Z/, "")), ["instance-3.pcapng", "instance-0.pcapng"]);
    equal(gateway.asked.filter((path) => path.includes("/pcap")), ["/api/instances/instance-3/pcap?last=60s", "/api/instances/instance-0/pcap?last=60s"]);
  });

  await visit("a capture is refused to others, with the reason, in doctor and drawer", { ...data, role: "play" }, async (page, wait) => {
    await toLan(page, wait);
    await text(page, "A capture holds what players typed: it needs an admin token.");
    equal(await page.isDisabled('#doctor [data-act="evidence"]'), true);
    await page.click('#doctor [data-act="open"]');
    await wait(() => document.body.dataset.view === "wall" && document.querySelector(".drawer"));
    equal(await page.isDisabled('.drawer [data-act="pcap"]'), true);
    await text(page, "LAN silent");
  });

  await visit("drawer: what the port says of the seat", data, async (page, wait) => {
    await wait(() => document.querySelectorAll(".tile[data-instance]").length === 8);
    await page.evaluate(() => { location.hash = "#/wall?seat=6&details=1"; });
    for (const words of ["Friday night, joined", "Emil", "LOCO1068-6", "tcp/2300, udp/2350", "Save the last 60 s (.pcapng)"]) await text(page, words);
    await page.getByText("ARP table").click();
    await text(page, "02:4c:00:10:68:01");
  });

  await visit("scrubber: away from now all cards follow, and the way back", data, async (page, wait) => {
    await toLan(page, wait);
    equal(await page.getByText("Now", { exact: true }).count(), 1);
    const slider = page.getByLabel("Time, last hour");
    await slider.focus();
    for (let i = 0; i < 3; i += 1) await page.keyboard.press("PageDown");
    await wait(() => /^Looking at \d\d:\d\d:\d\d\./.test(document.querySelector(".matrixcard .under [role=status]")?.textContent ?? ""));
    // Board, matrix, doctor and lanes are those of then.
    await wait(() => [...document.querySelectorAll(".map3 li")].map((li) => li.querySelector("small").textContent.trim()).join() === "Host,Joined,Unknown,On the LAN,Unknown,Unknown,Empty,Unknown,Unknown");
    await text(page, "No fault was known.");
    ok(Number(await page.getAttribute("#heat", "data-at")) < Date.now() / 1000 - 300, "the matrix is of now");
    equal(await page.evaluate(() => Number(document.querySelector(".lan").dataset.at) % 1 >= 0), true);
    const before = await page.locator("#pair").textContent();
    gateway.tell();
    equal(await page.locator("#pair").textContent(), before);
    await page.getByRole("button", { name: "Back to now" }).click();
    await wait(() => document.querySelector('.map3 [data-lan="silent"]') !== null && document.querySelector(".scrub").dataset.at === undefined);
    // An event's words lead to its time.
    await page.getByRole("button", { name: /seat 6 joins/ }).click();
    await wait(() => document.querySelector(".scrub").dataset.at !== undefined);
  });

  await visit("scrubber: without a history it says so", { ...data, history: undefined }, async (page, wait) => {
    await toLan(page, wait);
    await text(page, "No such thing.");
  });

  await visit("lanes: rings, dots, arm, buffer stop, the longest wait; the timetable has the same", data, async (page, wait) => {
    await toLan(page, wait);
    const lanes = await page.evaluate(() => [...document.querySelectorAll("[data-lane]")].map((g) => `${g.dataset.lane} ${g.dataset.end} ${g.querySelectorAll("circle.ring").length} ${g.querySelectorAll("circle.dot").length} ${g.querySelectorAll(".arm").length} ${g.querySelectorAll(".stop").length}`));
    equal(lanes, ["1 plays 4 1 1 0", "2 plays 4 5 1 0", "3 plays 4 5 1 0", "4 stuck 1 0 0 1", "5 plays 4 5 1 0", "6 plays 4 5 1 0", "7 none 0 0 0 0", "8 stuck 4 1 0 1", "9 starting 2 0 0 0"]);
    equal(await page.locator(".lanes .wait text").textContent(), "4.9 s, slow answer");
    const drawn = await page.evaluate(() => Object.fromEntries([...document.querySelectorAll("[data-lane] [data-step]")].map((g) => [`${g.closest("[data-lane]").dataset.lane} ${g.dataset.step}`, g.dataset.x])));
    await page.click('[data-act="timetable"]');
    const told = await page.evaluate(() => Object.fromEntries([...document.querySelectorAll("table.timetable td[data-value]")].map((td) => [`${td.dataset.seatOf} ${td.dataset.step}`, td.dataset.value])));
    equal(Object.entries(told).sort(), Object.entries(drawn).sort());
    equal(Object.keys(told).length, 54);
  });

  await visit("LAN view: nothing measured is said, nothing is drawn as zero", { wall }, async (page, wait) => {
    await wait(() => document.body.dataset.api === "ok");
    await page.evaluate(() => { location.hash = "#/lan"; });
    await wait(() => document.querySelector("#heat") !== null);
    await page.click('[data-act="table"]');
    equal(await page.locator("table.matrix td[data-value]").count(), 0);
    await text(page, "Not measured: nobody has been seen to start.");
    await text(page, "No session yet.");
  });

  for (const [name, viewport, colorScheme] of [["1920 dark", { width: 1920, height: 1080 }, "dark"], ["1280 light", { width: 1280, height: 720 }, "light"], ["390", { width: 390, height: 844 }, "dark"], ["320", { width: 320, height: 640 }, "light"], ["900", { width: 900, height: 900 }, "dark"]]) {
    await visit(`LAN view at ${name}: nothing is cut off, nothing scrolls sideways, no text below 12 px`, { ...data, viewport, colorScheme, ...(viewport.width < 700 ? { hasTouch: true, isMobile: true } : {}) }, async (page, wait) => {
      await toLan(page, wait);
      await page.evaluate(() => document.fonts.ready);
      equal(await page.evaluate(() => [document.documentElement, document.querySelector(".lan")].map((e) => e.scrollWidth - e.clientWidth)), [0, 0]);
      const small = await page.evaluate(() => [...document.querySelectorAll(".lan *")].filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim() !== "") && Number.parseFloat(getComputedStyle(e).fontSize) < 12).map((e) => e.textContent));
      equal(small, []);
      const targets = await page.evaluate((min) => [...document.querySelectorAll(".lan button, .lan input")].filter((b) => b.offsetParent && b.getBoundingClientRect().height < min).map((b) => b.textContent || b.ariaLabel), viewport.width < 700 ? 44 : 24);
      equal(targets, []);
      if (viewport.width >= 1700) equal(await page.evaluate(() => document.querySelector("[aria-label='How they joined']").getBoundingClientRect().bottom <= innerHeight), true);
    });
  }

  await visit("LAN view in forced colours shows the table, and with less motion nothing moves", { ...data, forcedColors: "active", reducedMotion: "reduce" }, async (page, wait) => {
    await wait(() => document.body.dataset.api === "ok");
    await page.evaluate(() => { location.hash = "#/lan"; });
    await wait(() => document.querySelectorAll("table.matrix td").length === 81);
    equal(await page.evaluate(() => document.getAnimations().length), 0);
  });

  await visit("LAN view: what a real wall said is shown as it was said", { wall: Array.from({ length: 9 }, (_, seat) => instance(seat)), lan: () => RECORDED.lan, history: () => RECORDED.history, doctor: well }, async (page, wait) => {
    await toLan(page, wait);
    equal(await page.evaluate(() => [...document.querySelectorAll(".map3 small")].map((s) => s.textContent.trim()).join()), `Host${",Joined".repeat(8)}`);
    // The host's own word is older than the last to join.
    equal([await page.locator(".sessions header .sp").textContent(), RECORDED.lan.sessions[0].current_players], ["9 of 9", 8]);
    equal(await page.evaluate(() => document.querySelectorAll(".map3 .rail, .map3 .drop").length), 8);
    equal(await page.locator('[data-lane][data-end="plays"]').count(), 9);
    const steps = RECORDED.lan.timelines.flatMap((t) => t.steps).length;
    equal(await page.locator("[data-lane] [data-step]").count(), steps);
    await page.click('[data-act="table"]');
    const told = await page.evaluate(() => Object.fromEntries([...document.querySelectorAll("table.matrix td[data-value]")].map((td) => [`${td.dataset.from}-${td.dataset.to}`, Number(td.dataset.value)])));
    const pairs = RECORDED.lan.connectivity.filter((row) => row.rate !== undefined);
    equal(Object.keys(told).length, 72);
    equal(pairs.filter((row) => told[`${Number(row.from.split("-")[1]) + 1}-${Number(row.to.split("-")[1]) + 1}`] !== row.rate), []);
    await text(page, "No fault is known. Choose two seats in the matrix to see how far they get.");
  });

  await visit("nine moving tiles and a LAN that changes: no task of the page works longer than 50 ms", { agent: true, wall: Array.from({ length: 9 }, (_, seat) => instance(seat)), lan: (at) => lan(at) }, async (page, wait) => {
    await live(wait, 9);
    const frames = () => page.evaluate(() => [...document.querySelectorAll(".tile video")].map((video) => video.getVideoPlaybackQuality().totalVideoFrames));
    const before = await frames();
    const tasks = await mainThreadTasks(page, async () => {
      const until = Date.now() + 5_000;
      while (Date.now() < until) {
        gateway.tell();
        await page.waitForTimeout(500);
      }
    });
    const moved = (await frames()).map((n, i) => n - before[i]);
    tasks.sort((x, y) => y.worked - x.worked);
    console.log(`        ${tasks.length} tasks, longest: ${tasks.slice(0, 3).map((t) => `${t.worked.toFixed(1)} ms of work in ${t.took.toFixed(1)} ms`).join(", ")}; frames in 5 s: ${moved.join(" ")}`);
    ok(moved.length === 9 && moved.every((n) => n >= 10), `not all nine moved: ${moved.join(" ")}`);
    ok(tasks.length > 100, "the trace has no tasks of the page");
    equal(tasks.filter((t) => t.worked > 50), []);
  });

  await visit("LAN view: drawn at most once a second, whatever the gateway says", data, async (page, wait) => {
    await toLan(page, wait);
    await page.evaluate(() => {
      window.painted = 0;
      const { clearRect } = CanvasRenderingContext2D.prototype;
      CanvasRenderingContext2D.prototype.clearRect = function (...box) {
        if (this.canvas.id === "heat") window.painted += 1;
        return clearRect.apply(this, box);
      };
    });
    const began = Date.now();
    let told = 0;
    while (Date.now() < began + 3_000) {
      gateway.tell();
      told += 1;
      await page.waitForTimeout(50);
    }
    const painted = await page.evaluate(() => window.painted);
    const seconds = (Date.now() - began) / 1000;
    // One for each second that began, and one for what was on its way before.
    ok(painted >= 2 && painted <= seconds + 2 && told > painted * 2, `painted ${painted} times in ${seconds.toFixed(1)} s, told ${told} times`);
  });
}
