// A scripted gateway for the page's own tests: serves dist/ and plays canned answers on /api. WHEP offers go to a scripted
// agent, or without one wait and are refused, so that what is shown is what the page says without any picture. Not part
// of the product.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const DIST = join(dirname(fileURLToPath(import.meta.url)), "..", "dist");
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".woff2": "font/woff2" };
export const TOKEN = "a-token-of-this-cluster";

const now = () => Date.now() / 1000;

/** An instance as the gateway would tell it; `change` overrides. */
export function instance(seat, change = {}) {
  const id = `instance-${seat}`;
  const node = `node-${"abc"[seat % 3]}`;
  const state = change.state ?? "live";
  const base = { id, name: `Seat ${seat + 1}`, lan: "party", seat, node, mac: `02:4c:00:10:68:0${seat + 1}`, ip: `10.98.0.${seat + 1}`, state };
  const status = {
    ...base, host_name: `LOCO1068-${seat + 1}`, since: now() - 3, link: true, address_in_use: base.ip, accelerator: "tcg", viewers: { thumb: 0, full: 0 },
    counters: { tx_frames: 120, tx_bytes: 9000, rx_frames: 2140, rx_bytes: 90000, rx_dropped: 0 }, picture: { width: 640, height: 480, changes: 10, still_for: 1 },
    ...change.status,
  };
  return { ...base, ...change, status };
}

export class FakeGateway {
  wall = { instances: [], lans: [{ name: "party", vni: 4200, mode: "vxlan", seats: 9 }] };
  /** Where the list comes from, and whether it is stale. */
  directory = { mode: "file" };
  /** LanStatus at a time, as observers would have it; without it, LANs and nothing measured. */
  lan = undefined;
  /** Answers of /api/lan-status/history and /api/doctor; without them, 404. */
  history = undefined;
  doctor = undefined;
  /** Paths that were asked for, with their query. */
  asked = [];
  away = false;
  /** A FakeAgent that answers offers. */
  agent = undefined;
  ended = [];
  /** Orders to runners: path and body. */
  orders = [];
  role = "admin";
  /** How often "who am I" is refused before it is answered. */
  refusals = 0;
  /** SDP offers as they came. */
  offers = [];
  #streams = new Set();
  #server;

  async listen(port = 0) {
    this.#server = createServer((request, response) => void this.#serve(request, response));
    await new Promise((resolve) => this.#server.listen(port, "127.0.0.1", resolve));
    return `http://127.0.0.1:${this.#server.address().port}/`;
  }

  /** Speaks the wall as it is now to every open page. */
  tell() {
    for (const response of this.#streams) response.write(this.#event());
  }

  /** As a gateway that is replaced: the streams end with the word to come back at once. */
  bye() {
    for (const response of this.#streams) response.end("event: bye\ndata: {}\n\n");
  }

  /** Hangs up on every page and refuses the API until `back()`. */
  leave() {
    this.away = true;
    for (const response of this.#streams) response.destroy();
  }

  back() {
    this.away = false;
  }

  close() {
    for (const response of this.#streams) response.destroy();
    this.#server.closeAllConnections();
    this.#server.close();
  }

  #event() {
    const { instances, lans } = this.wall;
    const lan = this.lan?.(now()) ?? { networkMode: "vxlan", at: now(), lans, instances: {}, connectivity: [] };
    return `event: wall\ndata: ${JSON.stringify({ at: now(), directory: this.directory, instances, lan, active: [] })}\n\n`;
  }

  async #serve(request, response) {
    const { pathname, search, searchParams } = new URL(request.url, "http://x");
    this.asked.push(pathname + search);
    if (pathname.startsWith("/api/")) return this.#api(request, response, pathname, searchParams);
    const path = normalize(join(DIST, pathname === "/" ? "index.html" : pathname));
    if (!path.startsWith(DIST)) return response.writeHead(404).end();
    try {
      const body = await readFile(path);
      response.writeHead(200, { "Content-Type": TYPES[extname(path)] ?? "application/octet-stream" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  }

  async #offer(request, response, instance) {
    let sdp = "";
    for await (const chunk of request) sdp += chunk;
    this.offers.push(sdp);
    let answer;
    try {
      answer = await this.agent.answer(instance, sdp);
    } catch (error) {
      // A scenario that ends takes its agent along, perhaps in the middle of an offer. The page then sees what it would
      // see of a dead agent; a check that wanted the picture fails by itself.
      console.log(`        an offer was not answered: ${String(error?.message ?? error).split("\n")[0]}`);
      return response.destroy();
    }
    response.writeHead(201, { "Content-Type": "application/sdp", Location: `/api/whep/${instance}/${answer.session}` }).end(answer.sdp);
  }

  #api(request, response, pathname, query) {
    const fail = (status, code, message, remedy) =>
      response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify({ error: { code, message, remedy } }));
    const json = (body) => response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(body));
    if (this.away) return request.socket.destroy();
    if (request.headers.authorization !== `Bearer ${TOKEN}`) return fail(401, "unauthorized", "No such token.", "Ask for one.");
    if (pathname === "/api/session" && this.refusals > 0) {
      this.refusals -= 1;
      return fail(503, "busy", "Not now.", "Try again.");
    }
    if (pathname === "/api/session") return json({ role: this.role, version: "0.1.0" });
    if (pathname === "/api/instances/discovery-info") {
      const agents = ["node-a", "node-b", "node-c"].map((node) => ({ node, url: "", answers: true }));
      return json({ mode: "file", source: "snapshot", instanceCount: this.wall.instances.length, agents });
    }
    if (pathname === "/api/lan-status/history" && this.history) return json(this.history(Number(query.get("from")), Number(query.get("to"))));
    if (pathname === "/api/doctor" && this.doctor) return json({ at: now(), ok: true, diagnosis: [this.doctor(query.get("from"), query.get("to"))] });
    if (pathname.endsWith("/pcap") && this.role === "admin") return response.writeHead(200, { "Content-Type": "application/vnd.tcpdump.pcap" }).end(Buffer.from("0a0d0d0a", "hex"));
    if (pathname.startsWith("/api/control/") && request.method === "POST") {
      let body = "";
      request.on("data", (chunk) => (body += chunk)).on("end", () => {
        this.orders.push([pathname, JSON.parse(body)]);
        response.writeHead(202).end();
      });
      return undefined;
    }
    if (pathname === "/api/events") {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.write(this.#event());
      this.#streams.add(response);
      response.on("close", () => this.#streams.delete(response));
      return undefined;
    }
    if (pathname.startsWith("/api/whep/")) {
      const [, , , instance, session] = pathname.split("/");
      if (request.method === "DELETE") {
        this.ended.push(session);
        return response.writeHead(204).end();
      }
      if (this.agent) return this.#offer(request, response, instance);
      // Held for a while, as a slow agent would, then refused.
      setTimeout(() => fail(503, "agent-silent", "The agent does not answer.", "Wait."), 30_000).unref();
      return undefined;
    }
    return fail(404, "not-found", "No such thing.", "");
  }
}
