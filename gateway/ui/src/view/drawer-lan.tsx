// The LAN part of the drawer: what the seat's port says of it, and the last minute of it as a file.
import { useState, type ReactNode } from "react";
import type { Instance, Wall } from "../api/types";
import { CAPTURE_S } from "../domain/ladder";
import { LAN_WORDS, lanView } from "../domain/lan-role";
import { grouped } from "../domain/words";
import { Facts, type Fact } from "./facts";
import { useApp, usePage } from "./hooks";
import { Icon } from "./icons";
import { CAPTURE_ADMIN, saveCapture } from "./save";

/** The busiest classes of traffic that are listed. */
const CLASSES_MAX = 6;

const FRAMINGS: Record<string, string> = { ethernet_ii: "Ethernet II", raw_802_3: "raw 802.3", llc: "802.2", snap: "SNAP" };

export function LanPart({ instance, wall }: { instance: Instance; wall: Wall | undefined }): ReactNode {
  const app = useApp();
  const page = usePage();
  const [said, setSaid] = useState<string>();
  const { status } = instance;
  const seen = wall?.lan.instances[instance.id];
  const lan = lanView(instance, seen, page.api === "away");
  // The edge's own questions: from a node, not from another guest.
  const asked = wall?.lan.connectivity.filter((c) => c.to === instance.id && wall.lan.instances[c.from] === undefined) ?? [];
  const summary = wall?.lan.lans.find((l) => l.name === instance.lan);
  const counters = status?.counters;
  const mode = summary?.mode ?? wall?.lan.networkMode ?? undefined;
  const play = seen?.directplay;
  const classes = Object.entries(seen?.classes ?? {})
    .map(([name, count]) => ({ name, ...count }))
    .sort((a, b) => b.tx_frames + b.rx_frames - a.tx_frames - a.rx_frames);
  const facts: Fact[] = [
    ["Session", play?.session ? `${play.session}, ${LAN_WORDS[play.role].toLowerCase()}` : lan.role === "unknown" ? undefined : lan.word],
    ["Player", play?.player_name ? `${play.player_name}${play.player_id ? ` \u00a0${play.player_id}` : ""}` : undefined],
    ["Address", status?.address_in_use ? `${status.address_in_use} \u00a0${instance.mac}` : undefined],
    ["Card", status?.address_in_use ? undefined : instance.mac],
    ["Given by the edge", status?.address_in_use ? undefined : instance.ip],
    ["Names", seen?.names && seen.names.length > 0 ? seen.names.join(", ") : undefined],
    ["Cable", typeof status?.link === "boolean" ? (status.link ? "in" : "out") : undefined],
    ["Where", [instance.node, mode?.toUpperCase(), summary ? `VNI ${summary.vni}` : undefined].filter(Boolean).join(", ")],
    ["Answers", asked.length > 0 ? `${asked.filter((c) => c.reachable).length} of ${asked.length} nodes` : undefined],
    ["Seen open", seen?.ports_seen_open && seen.ports_seen_open.length > 0 ? seen.ports_seen_open.join(", ") : undefined],
    ["IPX", seen?.ipx ? [seen.ipx.framing ? (FRAMINGS[seen.ipx.framing] ?? seen.ipx.framing) : undefined, ...seen.ipx.nodes].filter(Boolean).join(", ") : undefined],
    ["Sent", counters ? `${grouped(counters.tx_frames)} frames` : undefined],
    ["Received", counters ? `${grouped(counters.rx_frames)} frames` : undefined],
    ["Dropped for it", counters && counters.rx_dropped > 0 ? `${grouped(counters.rx_dropped)} frames` : undefined],
  ];
  const arp = Object.entries(seen?.arp ?? {});
  const reason = page.role === "admin" ? undefined : CAPTURE_ADMIN;
  return (
    <section>
      <h2>LAN</h2>
      <Facts facts={facts} />
      {classes.length > 0 ? (
        <details>
          <summary>Traffic by class</summary>
          <Facts facts={classes.slice(0, CLASSES_MAX).map((c): Fact => [c.name, `${grouped(c.tx_frames)} sent, ${grouped(c.rx_frames)} received`])} />
        </details>
      ) : null}
      {arp.length > 0 ? (
        <details>
          <summary>ARP table</summary>
          <Facts facts={arp} />
        </details>
      ) : null}
      <div className="row">
        <button className="btn" data-act="pcap" disabled={reason !== undefined} onClick={() => void saveCapture(app.api, [instance.id]).then(setSaid)}>
          <Icon name="pcap" />
          Save the last {CAPTURE_S} s (.pcapng)
        </button>
        <button className="btn" data-act="ask" onClick={() => app.go({ view: "lan", details: false, mode: "even" })}>
          Open the LAN
        </button>
      </div>
      {reason ? <p className="two">{reason}</p> : null}
      {said ? (
        <p className="danger" role="status">
          {said}
        </p>
      ) : null}
    </section>
  );
}
