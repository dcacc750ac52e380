// What the browser benches share: a wall of our own, a browser, processes, CPU readings, percentiles.
//
// Every wall and process that is started here is ended here, by its own handle, also on an error.
import { execFile, spawn } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";

import { chromium } from "playwright-core";

const run = promisify(execFile);
export const here = path.dirname(new URL(import.meta.url).pathname);
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Flags as `--name value`. */
export function flags(defaults) {
  const out = { ...defaults };
  const args = process.argv.slice(2);
  for (let i = 0; i < args.length; i += 2) {
    const name = args[i].replace(/^--/, "");
    if (!(name in defaults) || args[i + 1] === undefined) {
      console.error(`unknown flag ${args[i]}; known: ${Object.keys(defaults).map((k) => `--${k}`).join(" ")}`);
      process.exit(2);
    }
    out[name] = typeof defaults[name] === "number" ? Number(args[i + 1]) : args[i + 1];
  }
  return out;
}

/** Value at share `p` of the sorted values; undefined for none. Nearest rank, so it is a value that was measured. */
export function percentile(values, p) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length === 0 ? undefined : sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * p) - 1)];
}

export const round = (x, digits = 1) => (x === undefined ? undefined : Number(x.toFixed(digits)));

/** A wall of its own: `loco up --detach`, and `down` at the end. */
export async function wall(loco, args) {
  const { stdout } = await run(loco, ["up", "--detach", ...args], { maxBuffer: 1 << 24, timeout: 180_000 });
  const url = stdout.trim().split("\n").at(-1);
  const status = async () => JSON.parse((await run(loco, ["status", "-o", "json"])).stdout);
  return { url, status, down: () => run(loco, ["down"], { timeout: 60_000 }) };
}

export async function browser(executablePath) {
  return chromium.launch({
    executablePath,
    headless: true,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--disable-features=WebRtcHideLocalIpsWithMdns,MediaRouter",
      "--autoplay-policy=no-user-gesture-required",
    ],
  });
}

/** CPU seconds (user + system) of a process so far; a process that ended in between counts no further. */
export function cpuSeconds(pid) {
  try {
    const fields = fs.readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").pop().split(" ");
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    return undefined;
  }
}

/** CPU of groups of processes over a window, in % of one core. */
export async function cpuOver(groups, ms) {
  const read = () => Object.fromEntries(Object.entries(groups).map(([k, pids]) => [k, pids.map(cpuSeconds)]));
  const before = read();
  const start = process.hrtime.bigint();
  await sleep(ms);
  const after = read();
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  return Object.fromEntries(
    Object.keys(groups).map((k) => {
      const used = after[k].map((a, i) => (a === undefined || before[k][i] === undefined ? NaN : a - before[k][i]));
      return [k, round((used.reduce((x, y) => x + y, 0) / seconds) * 100)];
    }),
  );
}

/** A child that ends with us. */
export function child(command, args, options = {}) {
  const process_ = spawn(command, args, { stdio: ["ignore", "ignore", "inherit"], ...options });
  const gone = new Promise((resolve) => process_.once("exit", resolve));
  return { pid: process_.pid, stop: async () => { process_.kill("SIGTERM"); await Promise.race([gone, sleep(2000)]); process_.kill("SIGKILL"); await gone; } };
}

/** Serves files of this folder on a free port of loopback. */
export async function files(root) {
  const types = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript" };
  const server = http.createServer((request, response) => {
    const file = path.join(root, path.normalize(decodeURIComponent(new URL(request.url, "http://x").pathname)));
    fs.readFile(file, (error, data) => {
      if (error || !file.startsWith(root)) return response.writeHead(404).end();
      response.writeHead(200, { "content-type": types[path.extname(file)] ?? "application/octet-stream" }).end(data);
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { port: server.address().port, stop: () => server.close() };
}

export async function freePort() {
  const server = http.createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** What the figures were measured on. */
export async function machine(executablePath) {
  const line = async (command, args) => (await run(command, args)).stdout.split("\n")[0].trim();
  return {
    date: new Date().toISOString(),
    cpu: `${os.cpus()[0]?.model.trim()} x ${os.cpus().length}`,
    memory_gib: Math.round(os.totalmem() / 2 ** 30),
    kernel: os.release(),
    load_at_start: os.loadavg()[0],
    qemu: await line("qemu-system-x86_64", ["--version"]),
    chromium: await line(executablePath, ["--version"]),
  };
}

/** Lines of JSON: the raw data that is kept. */
export function recorder(file) {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, "");
  return (record) => fs.appendFileSync(file, `${JSON.stringify(record)}\n`);
}
