// The page through a tunnel, in real Chromium against a running wall:
//   node tests/forwarded.mjs --url 'http://127.0.0.1:8080/#token=…' [--seats 9]
// What is tunnelled is the gateway's TCP port, as `kubectl port-forward` or `ssh -L` do it; pictures go by UDP to the nodes
// themselves. Once where that way is open, and once in a network namespace where it is not. Needs root.
import { execFile, spawn } from "node:child_process";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import { CHROMIUM, Checks, launch, ok } from "./chromium.mjs";

const { values } = parseArgs({ options: { url: { type: "string" }, seats: { type: "string", default: "9" }, screenshot: { type: "string" } } });
if (!values.url?.includes("#token=")) {
  console.error("--url is missing, or has no #token=…; take the last line of `loco up --detach`");
  process.exit(2);
}
const gateway = new URL(values.url);
const seats = Number(values.seats);
const LIVE_MS = 60_000;
const run = promisify(execFile);

/** Carries each connection on `at` to `to`, both as node:net has them. */
async function tunnel(at, to) {
  const server = createServer((from) => {
    const there = connect(to);
    from.pipe(there).pipe(from);
    for (const [one, other] of [[from, there], [there, from]]) one.on("error", () => other.destroy()).on("close", () => other.destroy());
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(at, resolve));
  return server;
}

const through = (port) => `http://127.0.0.1:${port}/${gateway.hash}`;
const port = Number(gateway.port || 80);
const checks = new Checks();
const dir = await mkdtemp(join(tmpdir(), "loco-forwarded-"));

await checks.check(`a tunnel on the same machine: ${seats} pictures live`, async () => {
  const server = await tunnel({ host: "127.0.0.1", port: 0 }, { host: gateway.hostname, port });
  const browser = await launch();
  try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 720 } });
    await page.goto(through(server.address().port));
    await page.waitForFunction((n) => document.querySelectorAll('.tile[data-state="live"]').length === n, seats, { timeout: LIVE_MS, polling: 100 });
  } finally {
    await browser.close();
    server.close();
  }
});

await checks.check("no way for UDP: the tile names the node, the address and the ports", async () => {
  // The gateway is reached through a Unix socket, which network namespaces do not part.
  const socket = join(dir, "gateway.sock");
  const outside = await tunnel({ path: socket }, { host: gateway.hostname, port });
  // A network that leads nowhere: an address and a default route over a cable with nothing at its other end.
  const inner = `
    set -e
    ip link set lo up
    ip link add way type veth peer name nowhere
    ip link set way up
    ip link set nowhere up
    ip address add 192.0.2.10/24 dev way
    ip route add default via 192.0.2.1
    exec "$0" --input-type=module -e 'import { connect, createServer } from "node:net";
      createServer((from) => { const to = connect(process.argv[1]); from.pipe(to).pipe(from); from.on("error", () => to.destroy()); to.on("error", () => from.destroy()); })
        .listen(${port}, "127.0.0.1", () => console.log("listening"));' "$1"`;
  const namespace = spawn("unshare", ["--net", "--", "sh", "-c", inner, process.execPath, socket], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    await new Promise((resolve, reject) => namespace.stdout.once("data", resolve) && namespace.once("exit", (code) => reject(new Error(`the namespace ended with ${code}`))));
    const chromium = join(dir, "chromium");
    await writeFile(chromium, `#!/bin/sh\nexec nsenter --net=/proc/${namespace.pid}/ns/net -- ${CHROMIUM} "$@"\n`);
    await chmod(chromium, 0o755);
    const { stdout } = await run("nsenter", [`--net=/proc/${namespace.pid}/ns/net`, "--", "ip", "-o", "link"]);
    ok(stdout.includes("nowhere"), "the browser's namespace is not the one that was made");
    const browser = await launch([], chromium);
    try {
      const page = await browser.newPage({ viewport: { width: 1280, height: 720 } });
      await page.goto(through(port));
      const words = page.getByText(/UDP [0-9]+(-[0-9]+)? is closed between you and [0-9.]+\. Open it, then try again\./);
      await words.first().waitFor({ timeout: LIVE_MS });
      await page.getByText(/No way to \S+/).first().waitFor({ timeout: LIVE_MS });
      if (values.screenshot) await page.screenshot({ path: values.screenshot });
      ok((await page.locator('.tile[data-state="live"]').count()) === 0, "a tile says that it is live without a way for its picture");
    } finally {
      await browser.close();
    }
  } finally {
    namespace.kill();
    outside.close();
  }
});

await rm(dir, { recursive: true });
checks.end();
