// Debian's Chromium as the tests start it: no network of its own, real WebRTC addresses, sound without a click only where
// a test says so.
import { chromium } from "playwright-core";

export const CHROMIUM = process.env.LOCO_CHROMIUM ?? "/usr/bin/chromium";

export async function launch(extra = [], executablePath = CHROMIUM) {
  return chromium.launch({
    executablePath,
    headless: true,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
      "--disable-sync", "--disable-features=WebRtcHideLocalIpsWithMdns,MediaRouter", ...extra,
    ],
  });
}

/** Collects named checks, prints a line for each, and tells whether all passed. */
export class Checks {
  passed = 0;
  failed = 0;

  async check(name, run) {
    try {
      await run();
      this.passed += 1;
      console.log(`ok      ${name}`);
    } catch (error) {
      this.failed += 1;
      console.log(`FAILED  ${name}: ${String(error?.message ?? error).split("\n")[0]}`);
    }
  }

  end() {
    console.log(`${this.passed} passed, ${this.failed} failed`);
    process.exitCode = this.failed === 0 && this.passed > 0 ? 0 : 1;
  }
}

export function equal(got, want) {
  if (JSON.stringify(got) !== JSON.stringify(want)) throw new Error(`got ${JSON.stringify(got)}, want ${JSON.stringify(want)}`);
}

export function ok(value, words) {
  if (!value) throw new Error(words);
}

/**
 * Tasks of the page's main thread while `run` goes on, in ms: `took` by the clock, which a busy machine stretches, and
 * `worked`, the thread's own processor time.
 */
export async function mainThreadTasks(page, run) {
  const browser = page.context().browser();
  await browser.startTracing(page, { categories: ["toplevel", "blink.user_timing", "__metadata"] });
  await page.evaluate(() => performance.mark("loco-watched"));
  await run();
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
  const mark = traceEvents.find((event) => event.name === "loco-watched");
  return traceEvents
    .filter((event) => event.name === "ThreadControllerImpl::RunTask" && event.ph === "X" && event.pid === mark?.pid && event.tid === mark?.tid && event.tdur !== undefined)
    .map((event) => ({ took: event.dur / 1000, worked: event.tdur / 1000 }));
}
