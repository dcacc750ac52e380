// Put into both pages before anything else runs. Knows nothing of either page but that input events pass the window.
//
// t0 = the input event's own time stamp, taken by the browser when it made the event. seen() is told the mark's
// brightness by whoever reads pixels; the first reading on the other side of grey ends the wait.
(() => {
  let armed = null;
  let last;
  const bench = {
    trace: new Map(),
    inputs: [],
    seen(value, at, presented) {
      if (value === undefined) return;
      const side = value > 127;
      if (last !== undefined && side !== last && armed?.t0 !== undefined) {
        armed.done({ t0: armed.t0, callback: at, presented });
        armed = null;
      }
      last = side;
    },
    arm() {
      bench.waiting = new Promise((resolve) => { armed = { t0: undefined, done: resolve }; });
    },
    wait: (ms) => Promise.race([bench.waiting, new Promise((resolve) => setTimeout(() => resolve(null), ms))]),
    ready: () => last !== undefined,
  };
  window.bench = bench;
  for (const type of ["keydown", "mousedown"]) {
    window.addEventListener(type, (event) => {
      if (armed && armed.t0 === undefined && event.isTrusted) armed.t0 = event.timeStamp;
    }, { capture: true });
  }
  // Ours only: stage stamps by the agent, and which event number belongs to which input.
  const create = RTCPeerConnection.prototype.createDataChannel;
  RTCPeerConnection.prototype.createDataChannel = function (label, options) {
    const channel = create.call(this, label, options);
    if (label === "keys") {
      channel.addEventListener("open", () => channel.send('{"t":"trace","on":true}'));
      channel.addEventListener("message", (event) => {
        const message = JSON.parse(event.data);
        if (message.t === "trace") bench.trace.set(message.n, message);
      });
      const send = channel.send.bind(channel);
      channel.send = (data) => {
        const message = typeof data === "string" ? JSON.parse(data) : {};
        if ((message.t === "key" || message.t === "button") && message.down) {
          bench.inputs.push({ n: message.n, at: performance.timeOrigin + performance.now() });
        }
        send(data);
      };
    }
    return channel;
  };
  bench.watch = (video) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 4;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const callback = (_now, frame) => {
      const at = performance.now();
      const scale = video.videoWidth / 640;
      context.drawImage(video, 16 * scale, 16 * scale, 32 * scale, 32 * scale, 0, 0, 4, 4);
      bench.seen(context.getImageData(1, 1, 1, 1).data[1], at, frame.presentationTime);
      video.requestVideoFrameCallback(callback);
    };
    video.requestVideoFrameCallback(callback);
  };
})();
