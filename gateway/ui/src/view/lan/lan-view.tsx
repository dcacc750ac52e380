// The LAN of one board of nine: session, matrix, doctor, join lanes. All cards show one moment. Loaded with its view.
import { useMemo, useState, type ReactNode } from "react";
import { boardAt } from "../../domain/boards";
import { lanSeats, sessionTabs } from "../../domain/lan-board";
import { worst } from "../../domain/ladder";
import { lanesOf } from "../../domain/lanes";
import type { MatrixSeat } from "../../domain/matrix";
import { useTheme } from "../bar";
import { useApp, usePage } from "../hooks";
import { DoctorCard } from "./doctor-card";
import { LanesCard } from "./lanes-card";
import { MatrixCard } from "./matrix-card";
import { MomentWords, Scrub } from "./scrub";
import { SessionCard } from "./session-card";
import { useMoment } from "./use-moment";
import "../../styles/lan.css";

export default function LanView(): ReactNode {
  const app = useApp();
  const page = usePage();
  const theme = useTheme();
  const moment = useMoment();
  const [wanted, setWanted] = useState<string>();
  const { route, boards } = page;
  const { status, instances, at, now } = moment;
  const board = (route.board === undefined ? boardAt(boards, route.pair?.from ?? 1) : boards[route.board - 1]) ?? boards[0];
  const when = at !== undefined ? "then" : page.api === "away" ? "away" : "now";
  const seats = useMemo(() => (board ? lanSeats(board, instances, status, when) : []), [board, instances, status, when]);
  const tabs = useMemo(() => (board ? sessionTabs(status, board.lan, seats) : []), [board, status, seats]);
  const tab = tabs.find((one) => one.key === wanted) ?? tabs[0];
  const matrixSeats = useMemo(
    () =>
      seats.map((seat): MatrixSeat => {
        const ip = seat.instance && (status?.instances[seat.instance.id]?.ip ?? undefined);
        const one: MatrixSeat = { seat: seat.seat, name: seat.name, silent: seat.lan?.role === "silent" };
        if (seat.instance) one.instance = seat.instance.id;
        if (ip !== undefined) one.ip = ip;
        const stream = seat.instance && status?.instances[seat.instance.id]?.stream;
        if (stream) one.stream = stream;
        return one;
      }),
    [seats, status],
  );
  const lanes = useMemo(
    () => lanesOf(seats, status?.timelines ?? [], status?.diagnosis ?? [], at ?? now, tab?.session.host_instance ?? undefined, tab?.session.name ?? undefined),
    [seats, status, at, now, tab],
  );
  if (!board) return null;
  const seatOf = (place: number) => seats.find((seat) => seat.place === place);
  const [from, to] = route.pair ? [seatOf(route.pair.from), seatOf(route.pair.to)] : [];
  const pair = from && to ? { from, to } : undefined;
  const ask = (a: number, b: number): void => {
    app.go({ pair: { from: a, to: b } });
    const heading = document.querySelector<HTMLElement>("#doctor h2");
    heading?.focus({ preventScroll: true });
    heading?.scrollIntoView({ block: "nearest" });
  };
  // Of a seat alone the doctor is asked about its host; of the host, about itself.
  const askSeat = (place: number): void => ask(place, tab?.hostPlace ?? place);
  // With nothing asked, the doctor opens with the worst that is known, and the matrix points at it.
  const index = (id: string | undefined): number => seats.findIndex((seat) => seat.instance !== undefined && seat.instance.id === id);
  const fault = worst((status?.diagnosis ?? []).filter((d) => index(d.from) >= 0));
  const spot = pair ? { row: seats.indexOf(pair.from), column: seats.indexOf(pair.to) } : { row: index(fault?.from), column: index(fault?.to) };
  const chosen = spot.row >= 0 && spot.column >= 0 ? spot : undefined;
  return (
    <div className="view lan" data-at={at} data-loading={moment.loading ? "true" : undefined}>
      {boards.length > 1 ? (
        <nav className="seg boardtabs" aria-label="Boards">
          {boards.map((one) => (
            <button key={one.index} aria-pressed={one === board} onClick={() => app.go({ board: one.index + 1, pair: undefined })}>
              {one.title}
            </button>
          ))}
        </nav>
      ) : null}
      <SessionCard board={board} seats={seats} status={status} tabs={tabs} tab={tab} now={now} onTab={setWanted} onAsk={askSeat} />
      <MatrixCard
        seats={matrixSeats}
        rows={status?.connectivity ?? []}
        lags={status?.lags ?? []}
        at={status?.at}
        theme={theme}
        moment={<MomentWords moment={moment} />}
        chosen={chosen}
        onOpen={(row, column) => {
          const [a, b] = [seats[row], seats[column]];
          if (a && b) ask(a.place, b.place);
        }}
      >
        <Scrub moment={moment} lan={board.lan} theme={theme} />
      </MatrixCard>
      <DoctorCard seats={seats} status={status} at={at} now={now} pair={pair} />
      <LanesCard lanes={lanes} />
    </div>
  );
}
