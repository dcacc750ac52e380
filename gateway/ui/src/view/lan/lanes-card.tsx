// How they joined: lanes as SVG, or the same steps as a timetable.
import { useRef, useState, type ReactNode } from "react";
import { STEPS, axisTime, stepName, type Lane, type Lanes } from "../../domain/lanes";
import { frameTime } from "../../domain/ladder";
import { useWidth } from "./use-size";

const ROW = 26;
const TOP = 32;
/** Words behind the end of a lane. */
const RIGHT = 128;
const WIDTH_MIN = 620;
/** Words of the longest wait, with the dots at both ends of its bracket. */
const WAIT_WORDS = 125;

function LaneRow({ lane, index, x, left, end }: { lane: Lane; index: number; x: (t: number) => number; left: number; end: number }): ReactNode {
  const y = TOP + index * ROW;
  const first = lane.points[0];
  const last = lane.points.at(-1);
  const stuck = lane.end === "stuck";
  const until = stuck || lane.end === "starting" ? end : (last?.x ?? 0);
  const name = lane.name === `Seat ${lane.seat}` ? "" : lane.name;
  return (
    <g data-lane={lane.seat} data-end={lane.end}>
      <text x="0" y={y + 5} className="name">
        {lane.seat}
        {"\u00a0\u00a0"}
        {name.length > 13 ? `${name.slice(0, 12)}\u2026` : name}
      </text>
      {first && last ? (
        <>
          <path d={`M${x(first.x)} ${y}H${x(until)}`} className={`rail ${lane.end}`} />
          {lane.points.map((point) => (
            <g key={point.step} data-step={point.step} data-x={point.x.toFixed(3)}>
              {point.kind === "arm" ? (
                <g transform={`translate(${x(point.x)} ${y})`} className="arm">
                  <path d="M0 9V-10" strokeWidth="2" />
                  <path d="M5 2V-8" strokeWidth="4.5" />
                </g>
              ) : (
                <circle cx={x(point.x)} cy={y} r={point.step === "asks" || point.step === "is-answered" ? 5.5 : 4.5} className={point.kind} />
              )}
              <title>
                {stepName(point.step)}, {axisTime(point.x)}, {frameTime(point.evidence.at)}. {point.evidence.what}
              </title>
            </g>
          ))}
          {stuck ? (
            <g transform={`translate(${x(until)} ${y})`} className="stop">
              <path d="M0-9V9M-6-6H6M-6 6H6" />
            </g>
          ) : null}
          <text x={x(until) + 14} y={y + 5} className={stuck ? "bad" : ""}>
            {lane.words}
          </text>
        </>
      ) : (
        <text x={left} y={y + 5} className="none">
          {lane.words}
        </text>
      )}
    </g>
  );
}

function Drawing({ lanes, width }: { lanes: Lanes; width: number }): ReactNode {
  const left = 118;
  const height = TOP + lanes.lanes.length * ROW;
  const scale = (width - left - RIGHT) / (lanes.to - lanes.from);
  const x = (t: number): number => left + (t - lanes.from) * scale;
  const wait = lanes.wait;
  const stuck = lanes.lanes.filter((lane) => lane.end === "stuck").map((lane) => `Seat ${lane.seat}: ${lane.words}.`);
  const plays = lanes.lanes.filter((lane) => lane.end === "plays").map((lane) => `Seat ${lane.seat} ${lane.words}.`);
  const waits = wait ? `Seat ${lanes.lanes[wait.lane]?.seat} waited longest: ${wait.words}.` : "";
  return (
    <svg className="lanes" viewBox={`0 0 ${width} ${height}`} style={{ height, width }} role="img" aria-label={["Join lanes.", ...stuck, ...plays, waits, "The timetable has the same."].filter(Boolean).join(" ")}>
      {lanes.ticks.map((t) => (
        <g key={t}>
          <path d={`M${x(t)} 22V${height - 4}`} className="tick" />
          <text x={x(t)} y="14" className="axis">
            {axisTime(t)}
          </text>
        </g>
      ))}
      {lanes.lanes.map((lane, index) => (
        <LaneRow key={lane.seat} lane={lane} index={index} x={x} left={left} end={lanes.to} />
      ))}
      {wait ? (
        <g className="wait">
          <path d={`M${x(wait.from)} ${TOP + wait.lane * ROW - 8}v-4H${x(wait.to)}v4`} />
          {/* Between bracket and rail, where there is room; else behind it. */}
          <text
            x={x(wait.to) - x(wait.from) > WAIT_WORDS ? (x(wait.from) + x(wait.to)) / 2 : x(wait.to) + 6}
            y={TOP + wait.lane * ROW - (x(wait.to) - x(wait.from) > WAIT_WORDS ? 3 : 8)}
            textAnchor={x(wait.to) - x(wait.from) > WAIT_WORDS ? "middle" : "start"}
          >
            {wait.words}
          </text>
        </g>
      ) : null}
    </svg>
  );
}

function Timetable({ lanes }: { lanes: Lanes }): ReactNode {
  return (
    <div className="tw" tabIndex={0} role="region" aria-label="Timetable">
      <table className="timetable">
        <caption className="sr">Seconds of each step, one column for each seat</caption>
        <thead>
          <tr>
            <th scope="col" className="l">
              Step
            </th>
            {lanes.lanes.map((lane) => (
              <th key={lane.seat} scope="col">
                {lane.seat} {lane.name === `Seat ${lane.seat}` ? "" : lane.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {STEPS.map(({ step, name }) => (
            <tr key={step}>
              <th scope="row" className="l">
                {name}
              </th>
              {lanes.lanes.map((lane) => {
                const point = lane.points.find((p) => p.step === step);
                return (
                  <td key={lane.seat} data-step={step} data-seat-of={lane.seat} data-value={point?.x.toFixed(3)} className={point ? undefined : "muted"}>
                    {point ? `${point.x.toFixed(1)} s` : lane.empty ? "" : "not seen"}
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function LanesCard({ lanes }: { lanes: Lanes }): ReactNode {
  const box = useRef<HTMLDivElement>(null);
  const width = useWidth(box);
  const [table, setTable] = useState(false);
  const since = lanes.zeroIsHost ? "seconds since the host was switched on" : "seconds since the first step that was seen";
  return (
    <section className="card wide" aria-label="How they joined">
      <header>
        <h2>How they joined</h2>
        <span className="muted">{since}. Rings: the guest gets ready. Dots: it asks, is answered, links, becomes a player.</span>
        <div className="seg sp" role="group" aria-label="Show as">
          <button aria-pressed={!table} onClick={() => setTable(false)}>
            Lanes
          </button>
          <button aria-pressed={table} data-act="timetable" onClick={() => setTable(true)}>
            Timetable
          </button>
        </div>
      </header>
      <div ref={box} className="lanebox" data-zero={lanes.zero}>
        {lanes.zero === undefined ? <p className="muted">Not measured: nobody has been seen to start.</p> : table ? <Timetable lanes={lanes} /> : width > 0 ? <Drawing lanes={lanes} width={Math.max(width, WIDTH_MIN)} /> : null}
      </div>
    </section>
  );
}
