// A scripted agent for the page's own tests: a second browser page answers the WHEP offers with a real peer connection,
// a drawn picture and both data channels. What it is told it writes down. Not part of the product.

/** Runs inside the browser. */
function agent() {
  const guests = new Map();
  const guest = (id) => {
    let g = guests.get(id);
    if (g) return g;
    const canvas = document.createElement("canvas");
    canvas.width = 640;
    canvas.height = 480;
    g = { canvas, x: canvas.getContext("2d"), mark: false, black: true, log: [], pointer: [], sessions: new Map(), holder: undefined, still: false, n: 0, cursor: { x: 0, y: 0 } };
    guests.set(id, g);
    return g;
  };
  const draw = () => {
    for (const [id, g] of guests) {
      if (g.still) continue;
      g.n += 1;
      const { x } = g;
      const seat = Number(id.split("-")[1]);
      x.fillStyle = `hsl(${90 + seat * 9} 30% ${42 + (seat % 3) * 4}%)`;
      x.fillRect(0, 0, 640, 480);
      x.strokeStyle = "#5F5547";
      x.lineWidth = 22;
      x.strokeRect(120, 90, 400, 300);
      x.fillStyle = "#22323A";
      x.fillRect(120 + ((g.n * 3) % 380), 78, 60, 26);
      x.fillStyle = "#F5EFDF";
      x.font = "40px sans-serif";
      x.fillText(`${id}  ${g.n}`, 180, 250);
      x.fillStyle = "#fff";
      x.fillRect(g.cursor.x - 3, g.cursor.y - 3, 7, 7);
      if (g.mark) {
        x.fillStyle = g.black ? "#000" : "#fff";
        x.fillRect(0, 0, 64, 64);
      }
    }
  };
  setInterval(draw, 33);
  const hear = (g, session, channel, message) => {
    g.log.push(message);
    const lease = () => {
      for (const [name, other] of g.sessions) if (other.readyState === "open") other.send(JSON.stringify({ t: "lease", lease: g.holder === undefined ? "free" : g.holder === name ? "you" : "other" }));
    };
    if (message.t === "take") {
      g.holder ??= session;
      lease();
    } else if (message.t === "give" || message.t === "bye") {
      if (g.holder === session) g.holder = undefined;
      lease();
    } else if (g.holder !== session) return;
    else if (message.t === "key" && message.down) {
      if (message.code === "F12") g.mark = !g.mark;
      g.black = !g.black;
    } else if (message.t === "button" && message.down) g.black = !g.black;
    else if (message.t === "home") g.home = g.cursor = { x: message.x, y: message.y };
  };
  window.answer = async (id, sdp) => {
    const g = guest(id);
    draw();
    const session = `s${Math.random().toString(36).slice(2)}`;
    const peer = new RTCPeerConnection();
    peer.ondatachannel = ({ channel }) => {
      if (channel.label === "keys") {
        g.sessions.set(session, channel);
        channel.send(JSON.stringify({ t: "hello", session, lease: g.holder === undefined ? "free" : "other", width: 640, height: 480 }));
        channel.onmessage = (event) => hear(g, session, channel, JSON.parse(event.data));
        channel.onclose = () => {
          g.sessions.delete(session);
          if (g.holder === session) g.holder = undefined;
        };
      } else
        channel.onmessage = (event) => {
          const m = JSON.parse(event.data);
          g.pointer.push(m);
          if (g.home) g.cursor = { x: g.home.x + m.x, y: g.home.y + m.y };
        };
    };
    const stream = g.canvas.captureStream(30);
    await peer.setRemoteDescription({ type: "offer", sdp });
    peer.addTrack(stream.getVideoTracks()[0], stream);
    await peer.setLocalDescription(await peer.createAnswer());
    await new Promise((resolve) => {
      if (peer.iceGatheringState === "complete") resolve();
      peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && resolve();
    });
    g.peers = [...(g.peers ?? []), peer];
    return { session, sdp: peer.localDescription.sdp };
  };
  window.guestOf = guest;
}

export class FakeAgent {
  static async start(browser) {
    const self = new FakeAgent();
    self.context = await browser.newContext();
    self.page = await self.context.newPage();
    await self.page.goto("about:blank");
    await self.page.evaluate(agent);
    return self;
  }

  answer(instance, sdp) {
    return this.page.evaluate(([id, offer]) => window.answer(id, offer), [instance, sdp]);
  }

  /** Messages of the reliable channel, in order. */
  log(instance) {
    return this.page.evaluate((id) => window.guestOf(id).log, instance);
  }

  guest(instance) {
    return this.page.evaluate((id) => {
      const { cursor, holder, pointer } = window.guestOf(id);
      return { cursor, holder, pointer };
    }, instance);
  }

  set(instance, change) {
    return this.page.evaluate(([id, c]) => void Object.assign(window.guestOf(id), c), [instance, change]);
  }

  /** Kills every connection of an instance as a dying agent does. */
  kill(instance) {
    return this.page.evaluate((id) => {
      const g = window.guestOf(id);
      for (const peer of g.peers ?? []) peer.close();
      g.peers = [];
      g.holder = undefined;
    }, instance);
  }
}
