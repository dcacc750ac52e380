// Who sits where: the board of the session, and what is known of it. Two sessions are two tabs.
import type { ReactNode } from "react";
import type { LanStatus } from "../../api/types";
import { type Board } from "../../domain/boards";
import { NO_SESSION, guid, headCount, rails, seatedIn, type LanSeat, type SessionTab } from "../../domain/lan-board";
import { printed } from "../../domain/matrix";
import { frameTime } from "../../domain/ladder";
import { duration, grouped, isLong } from "../../domain/words";
import { shortWord } from "../../domain/lan-role";
import { Facts, type Fact } from "../facts";
import { Icon, LAN_ICON } from "../icons";

/** Anomalies that are listed, the newest. */
const ODD_MAX = 5;

interface Props {
  board: Board;
  seats: readonly LanSeat[];
  status: LanStatus | undefined;
  tabs: readonly SessionTab[];
  tab: SessionTab | undefined;
  now: number;
  onTab: (key: string) => void;
  /** A seat was chosen. */
  onAsk: (place: number) => void;
}

const MODES: Record<string, string> = { vxlan: "VXLAN", bridge: "bridge", l2: "L2", kernel: "kernel", socket: "socket" };

function Seat({ seat, joined, rail, onAsk }: { seat: LanSeat; joined: boolean; rail: { right: boolean; down: boolean }; onAsk: (place: number) => void }): ReactNode {
  const lan = seat.lan;
  const tone = lan?.fault ? "danger" : joined ? "clear" : "off";
  const word = lan ? shortWord(lan) : "Empty";
  const inner = (
    <>
      <span className={`row${isLong(seat.name) ? " long" : " nowrap"}`}>
        <span className={`plate s${joined ? "" : " none"}`}>{seat.seat}</span>
        <b>{seat.name}</b>
      </span>
      <small className={tone}>
        <Icon name={lan ? (lan.link === "down" ? "silent" : LAN_ICON[lan.attr]) : "empty"} /> {word}
      </small>
    </>
  );
  const classes = `cell${joined ? "" : " out"}${rail.right ? " rail" : ""}${rail.down ? " drop" : ""}`;
  return (
    <li className={classes} data-seat-of={seat.seat} data-lan={lan?.attr}>
      {seat.instance ? (
        <button onClick={() => onAsk(seat.place)} aria-label={`Seat ${seat.seat}${seat.name === `Seat ${seat.seat}` ? "" : `, ${seat.name}`}, ${word}. Ask the doctor.`} data-act="ask">
          {inner}
        </button>
      ) : (
        <div>{inner}</div>
      )}
    </li>
  );
}

function facts(tab: SessionTab | undefined, status: LanStatus | undefined, board: Board, seats: readonly LanSeat[], now: number): Fact[] {
  const session = tab?.session;
  const host = seats.find((seat) => seat.place === tab?.hostPlace);
  const lan = status?.lans.find((l) => l.name === board.lan);
  const nodes = new Set(seats.flatMap((seat) => (seat.instance ? [seat.instance.node] : []))).size;
  const mode = lan?.mode ?? status?.networkMode ?? undefined;
  const at = host ? `seat ${host.seat}` : (session?.host_ip ?? session?.host_ipx ?? undefined);
  const since = session?.evidence && session.evidence.at > 0 ? `, seen ${frameTime(session.evidence.at).slice(0, 8)}` : "";
  return [
    ["Game", session?.app_guid_wire ? guid(session.app_guid_wire) : undefined],
    ["Speaks", session ? `DirectPlay 4${session.dialect ? `, dialect ${session.dialect}` : ""}, ${session.transport === "ipx" ? "IPX" : "TCP/IP"}` : undefined],
    ["Host", at === undefined ? undefined : `${at}${since}`],
    ["Password", session?.password_required === true ? "asked for" : session?.password_required === false ? "none" : undefined],
    ["How sure", session ? (session.certainty === "announced" ? "announced by the host" : "inferred from traffic") : undefined],
    ["LAN", lan ? `${mode === undefined ? lan.name : (MODES[mode] ?? mode)}, VNI ${lan.vni}, on ${nodes} ${nodes === 1 ? "node" : "nodes"}` : undefined],
    ["Read", status ? (now - status.at < 1 ? "now" : `${duration(now - status.at)} ago`) : undefined],
  ];
}

function nodeFacts(status: LanStatus | undefined, seats: readonly LanSeat[]): Fact[] {
  const nodes = [...new Set(seats.flatMap((seat) => (seat.instance ? [seat.instance.node] : [])))].sort();
  return nodes.map((node): Fact => {
    const count = seats.filter((seat) => seat.instance?.node === node).length;
    const rows = status?.connectivity.filter((row) => row.from === node && seats.some((seat) => seat.instance?.id === row.to)) ?? [];
    const rtts = rows.flatMap((row) => (row.rtt_ms === undefined || row.rtt_ms === null ? [] : [row.rtt_ms])).sort((a, b) => a - b);
    const reach = rows.length === 0 ? "reach not measured" : `reaches ${rows.filter((row) => row.reachable).length} of ${rows.length}`;
    const middle = rtts[Math.floor(rtts.length / 2)];
    return [node, `${count} ${count === 1 ? "seat" : "seats"}, ${reach}${middle === undefined ? "" : `, ${printed(middle)} ms`}`];
  });
}

export function SessionCard({ board, seats, status, tabs, tab, now, onTab, onAsk }: Props): ReactNode {
  const nodes = nodeFacts(status, seats);
  const strangers = status?.strangers ?? [];
  const here = new Set(seats.flatMap((seat) => (seat.instance ? [seat.instance.node] : [])));
  const eyes = Object.entries(status?.observers ?? {}).filter(([node]) => here.has(node));
  const odd = (status?.anomalies ?? []).filter((anomaly) => anomaly.lan === board.lan).slice(0, ODD_MAX);
  return (
    <section className="card sessions" aria-label="Session">
      <header>
        {tabs.length > 1 ? (
          <div className="seg" role="tablist" aria-label="Sessions">
            {tabs.map((one) => (
              <button key={one.key} role="tab" aria-selected={one === tab} aria-controls="session-board" onClick={() => onTab(one.key)}>
                {one.title}
              </button>
            ))}
          </div>
        ) : (
          <h2>{tab?.title ?? "Session"}</h2>
        )}
        {tab ? <span className="two sp">{headCount(tab, seats)}</span> : null}
      </header>
      {tab ? null : <p className="two nosession">{status ? NO_SESSION : "Sessions are not measured."}</p>}
      <div id="session-board" role={tabs.length > 1 ? "tabpanel" : undefined} aria-label={tabs.length > 1 ? tab?.title : undefined}>
        <ul className="map3" aria-label="Who sits where">
          {seats.map((seat, index) => (
            <Seat key={seat.place} seat={seat} joined={seatedIn(seat, tab)} rail={rails(seats, index, tab)} onAsk={onAsk} />
          ))}
        </ul>
      </div>
      <Facts facts={facts(tab, status, board, seats, now)} />
      {nodes.length > 0 ? (
        <>
          <h3>Nodes</h3>
          <Facts facts={nodes} />
        </>
      ) : null}
      {eyes.map(([node, eye]) =>
        eye.problem || eye.events_lost > 0 ? (
          <p key={node} className="caution eye" role="status">
            {node}: {[eye.problem, eye.events_lost > 0 ? `${grouped(eye.events_lost)} frames that matter were lost: what is known may lack them.` : undefined].filter(Boolean).join(" ")}
          </p>
        ) : null,
      )}
      {odd.length > 0 ? (
        <>
          <h3>No healthy program sends this</h3>
          <Facts facts={odd.map((a): Fact => [a.what, a.count > 1 ? `${grouped(a.count)} times` : "once"])} />
        </>
      ) : null}
      {strangers.length > 0 ? (
        <>
          <h3>Others on this LAN</h3>
          <Facts facts={strangers.slice(0, 12).map((m): Fact => [m.name ?? m.ips[0] ?? m.mac, [m.name ? m.ips[0] : undefined, m.ipx_nodes.length > 0 ? "IPX" : undefined, m.mac].filter(Boolean).join(", ")])} />
        </>
      ) : null}
    </section>
  );
}
