// A scripted LAN for the page's own tests, in the shape of /api/lan-status: a game of five, one seat whose card is silent,
// one that only looks on, one that still starts. Not part of the product.

export const APP_GUID = "0021cd12e2d2cf11a9e300a0c90aec76";
const MAC = (seat) => `02:4c:00:10:68:0${seat + 1}`;
const evidence = (at, frame, what, more = {}) => ({ at, frame, what, node: "node-a", ...more });

/** Roles by seat (from 0), players and session; `change` overrides the whole. */
export function lan(at, change = {}) {
  const roles = change.roles ?? { 0: "host", 1: "joined", 2: "joined", 3: "silent", 4: "joined", 5: "joined", 7: "looking", 8: "none" };
  const names = { 0: "Ana", 1: "Bruno", 2: "Chidi", 4: "Pathfinder", 5: "Emil" };
  const session = change.session ?? "Friday night";
  const inGame = Object.entries(roles).filter(([, role]) => role === "host" || role === "joined").map(([seat]) => Number(seat));
  const instances = {};
  for (const [seat, role] of Object.entries(roles)) {
    const n = Number(seat);
    const playing = inGame.includes(n);
    instances[`instance-${n}`] = {
      mac: MAC(n), node: `node-${"abc"[n % 3]}`, lan: "party", link: "up", ...(role === "silent" || role === "none" ? {} : { ip: `10.98.0.${n + 1}` }),
      counters: { tx_frames: role === "silent" ? 0 : 20_118, tx_bytes: 1, rx_frames: 44_003, rx_bytes: 1, rx_dropped: n === 5 ? 12 : 0 },
      classes: role === "silent" ? { arp: { tx_frames: 0, rx_frames: 214 } } : { dplay_udp: { tx_frames: 18_400, rx_frames: 41_000 }, arp: { tx_frames: 31, rx_frames: 200 }, netbios_ns: { tx_frames: 12, rx_frames: 90 } },
      names: role === "silent" || role === "none" ? [] : [`LOCO1068-${n + 1}`],
      arp: playing ? Object.fromEntries(inGame.filter((other) => other !== n).map((other) => [`10.98.0.${other + 1}`, MAC(other)])) : {},
      ports_seen_open: playing ? ["udp/47624", "tcp/2300", "udp/2350"].slice(role === "host" ? 0 : 1) : [],
      directplay: { role, ...(playing ? { session, player_id: `0000000${n}`, player_name: names[n] ?? `P${n}` } : {}) },
    };
  }
  const connectivity = [];
  for (const a of Object.keys(roles).map(Number)) {
    for (const b of Object.keys(roles).map(Number)) {
      if (a === b) continue;
      const row = { from: `instance-${a}`, to: `instance-${b}`, reachable: !["silent", "none"].includes(roles[a]) };
      if (roles[a] === "silent") Object.assign(row, { rate: 0, frames: 0 });
      else if (roles[a] !== "none") {
        const both = inGame.includes(a) && inGame.includes(b);
        Object.assign(row, { rate: both ? (a === 0 || b === 0 ? 38 : 12) + ((a * 7 + b * 5) % 16) : (a + b) % 3, broadcast_share: 0.02 + ((a * 3 + b) % 5) / 100, broadcast_seen: roles[b] !== "none" });
        if (both) Object.assign(row, { rtt_ms: 0.4 + ((a * 5 + b) % 8) / 7 + (a === 5 || b === 5 ? 1.4 : 0), loss: a === 5 || b === 5 ? 0.004 : 0 });
      }
      connectivity.push(row);
    }
  }
  for (const node of ["node-a", "node-b", "node-c"]) for (const n of Object.keys(roles).map(Number)) connectivity.push({ from: node, to: `instance-${n}`, reachable: roles[n] !== "silent", rtt_ms: roles[n] === "silent" ? undefined : 0.4 + n / 10, loss: 0 });
  const start = at - 600;
  const STEPS = ["power", "frame", "address", "name", "asks", "is-answered", "linked", "player-id", "joined", "plays"];
  const line = (seat, times) => ({ mac: MAC(seat), instance: `instance-${seat}`, session, steps: STEPS.flatMap((step, i) => (times[i] === undefined || times[i] === null ? [] : [{ step, evidence: evidence(start + times[i], 100 * seat + i, step) }])) });
  const timelines = [
    line(0, [0, 4, 5, 6.2, null, null, null, 7, null, 8]), line(1, [2, 6.4, 7.6, 9, 14, 14.2, 14.6, 15.2, 15.8, 18]), line(2, [3, 7, 8.4, 10, 22, 22.3, 22.7, 23.4, 24, 26]),
    line(3, [5]), line(4, [4, 8.8, 10, 11.4, 16, 16.2, 16.5, 16.9, 17.1, 19]), line(5, [6, 10, 11.8, 13, 19, 23.9, 24.6, 26, 27, 31]), line(7, [9, 13.4, 14.5, 16, 24]), line(8, [33, 36]),
  ];
  const ladder = (failed, proofs) => ["link", "frame", "address", "asks", "reaches", "answers", "same-game", "free", "joined"].map((rung, i) => ({ rung, result: i < failed ? "passed" : i === failed ? "failed" : "unreached", ...(proofs[i] ? { evidence: proofs[i] } : {}) }));
  const arp = evidence(at - 94, 18_204, "ARP who has 10.98.0.4? tell 10.98.0.1\nno answer in 11 min, 9 asked", { node: "node-b", port: "instance-3" });
  const silent = { from: "instance-3", to: "instance-0", rung: "frame", ok: false, cause: "no-driver", sentence: "Seat 4 is silent: its network card has never sent a frame. The driver is missing.", remedy: "Install the RTL8029 driver. We put the driver disk in drive D.", evidence: arp, ladder: ladder(1, [evidence(at - 702, 1, "the tap is up", { node: "node-b", port: "instance-3" }), arp]) };
  const asks = { from: "instance-7", to: "instance-0", rung: "answers", ok: false, cause: "refused", sentence: "Seat 1 refuses the connection.", remedy: "Seat 1 must leave its lobby and open again.", ladder: ladder(5, [undefined, undefined, undefined, evidence(at - 9, 18_990, "ENUMSESSIONS", { node: "node-b", port: "instance-7" })]) };
  return {
    networkMode: "vxlan", at, lans: [{ name: "party", vni: 7001, mode: "vxlan", seats: 9 }], instances, connectivity,
    sessions: inGame.length === 0 ? [] : [{ name: session, transport: "tcp", instance_guid_wire: "a".repeat(32), app_guid_wire: APP_GUID, max_players: 9, current_players: inGame.length, dialect: 14, password_required: false, host_ip: "10.98.0.1", host_instance: "instance-0", certainty: "announced", evidence: evidence(start + 7, 120, "ENUMSESSIONSREPLY") }],
    players: inGame.map((n) => ({ id: `0000000${n}`, name: names[n], host: n === 0, session, certainty: "announced", instance: `instance-${n}` })),
    diagnosis: roles[3] === "silent" ? [asks, silent] : [], timelines,
    lags: [{ from: "10.98.0.6", to: "10.98.0.1", rtt_ms: 12.4, guest_ms: 9.1, fabric_ms: 3.3, error_ms: 0.8, samples: 40 }],
    strangers: [], anomalies: [], observers: {}, ...change.over,
  };
}

/** The last hour before `at`, as /api/lan-status/history tells it; `state` is the LAN of that moment. */
export function history(from, to, state) {
  const samples = [];
  for (let t = Math.ceil(from / 5) * 5; t <= to; t += 5) {
    const age = (to - t) / 60;
    samples.push({ at: t, rate: age > 49 ? 20 + (t % 35) : age > 30 ? 180 + (t % 60) : 420 + ((t * 7) % 130), sessions: age > 49 ? 0 : 1, players: age > 49 ? 0 : 4 });
  }
  const event = (minutes, what, instance) => ({ at: to - minutes * 60, what, lan: "party", ...(instance ? { instance } : {}) });
  return { from, to, step: 5, samples, events: [event(49, "host opens", "instance-0"), event(30, "seat 6 joins", "instance-5"), event(16, "node-c back")], ...(state ? { state } : {}) };
}
