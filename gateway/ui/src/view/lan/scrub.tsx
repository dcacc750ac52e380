// The last hour under the matrix: the line of all frames, ticks of what happened, and the slider that all cards follow.
import { useEffect, useRef, type ReactNode } from "react";
import { HOUR_S, STEP_S, eventsOf, lineOf, momentAt, sliderAt, ticksOf } from "../../domain/timeline";
import { clockTime } from "../../domain/words";
import { Icon } from "../icons";
import type { Moment } from "./use-moment";
import { prepared, tokens, useWidth } from "./use-size";

const HEIGHT = 44;
/** Width of an event's words, in CSS pixels. */
const WORDS = 124;

/** Which moment all cards show, and the way back to now. */
export function MomentWords({ moment }: { moment: Moment }): ReactNode {
  const { at, look } = moment;
  if (at === undefined) {
    return (
      <b className="st clear sp">
        <Icon name="live" />
        Now
      </b>
    );
  }
  return (
    <span className="row sp">
      <span className="two" role="status">
        Looking at <b>{clockTime(at * 1000)}</b>.{moment.loading || moment.status ? "" : " Nothing of that time was kept."}
      </span>
      <button className="btn slim" data-act="now" onClick={() => look(undefined)}>
        Back to now
      </button>
    </span>
  );
}

export function Scrub({ moment, lan, theme }: { moment: Moment; lan: string | undefined; theme: string }): ReactNode {
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const width = useWidth(box);
  const { samples, at, now, problem, look } = moment;
  const ticks = ticksOf(eventsOf(moment.events, lan), now, width > 0 ? WORDS / width : 1);
  const line = lineOf(samples, now);
  useEffect(() => {
    const element = canvas.current;
    if (!element || width === 0) return undefined;
    const frame = requestAnimationFrame(() => {
      const x = prepared(element, width, HEIGHT);
      if (!x) return;
      const css = tokens();
      const y = (share: number): number => HEIGHT - 1.5 - share * (HEIGHT - 18);
      x.strokeStyle = css("--line");
      x.setLineDash([2, 4]);
      x.beginPath();
      x.moveTo(0, HEIGHT - 1.5);
      x.lineTo(width, HEIGHT - 1.5);
      x.stroke();
      x.setLineDash([]);
      for (const run of line.runs) {
        const [first, last] = [run[0], run.at(-1)];
        if (!first || !last) continue;
        x.beginPath();
        for (const point of run) x.lineTo(point.x * width, y(point.y));
        if (run.length === 1) x.lineTo(first.x * width + 1, y(first.y));
        x.strokeStyle = css("--heat1");
        x.lineWidth = 1.5;
        x.stroke();
        x.lineTo(last.x * width, HEIGHT);
        x.lineTo(first.x * width, HEIGHT);
        x.globalAlpha = 0.28;
        x.fillStyle = css("--heat1");
        x.fill();
        x.globalAlpha = 1;
      }
      x.strokeStyle = css("--ink3");
      x.setLineDash([3, 3]);
      for (const tick of ticks) {
        x.beginPath();
        x.moveTo(tick.x * width, 2);
        x.lineTo(tick.x * width, HEIGHT - 2);
        x.stroke();
      }
      x.setLineDash([]);
      x.font = '400 12px "Loco Text", system-ui, sans-serif';
      x.textBaseline = "top";
      x.fillStyle = css("--ink3");
      x.fillText(line.runs.length > 0 ? `All frames, up to ${Math.round(line.top)} a second` : "The last hour was not measured", 0, 0);
    });
    return () => cancelAnimationFrame(frame);
    // Samples and events are new arrays whenever they change; the rest follows from them.
  }, [samples, moment.events, now, width, theme]);
  const known = line.runs.length > 0 || ticks.length > 0;
  return (
    <div className="scrub" ref={box} data-at={at}>
      <canvas ref={canvas} height={HEIGHT} style={{ height: HEIGHT }} aria-hidden="true" />
      <input
        type="range"
        min={0}
        max={HOUR_S}
        step={STEP_S}
        value={sliderAt(at, now)}
        disabled={!known && problem !== undefined}
        aria-label="Time, last hour"
        aria-valuetext={at === undefined ? "now" : clockTime(at * 1000)}
        onChange={(event) => look(momentAt(Number(event.currentTarget.value), now))}
      />
      <div className="lab">
        <span className="from">{clockTime((now - HOUR_S) * 1000, false)}</span>
        {ticks
          .filter((tick) => tick.named)
          .map((tick) => (
            <button key={`${tick.event.at}${tick.event.what}`} style={{ left: `${tick.x * 100}%` }} title={tick.event.what} onClick={() => look(Math.ceil(tick.event.at))} data-event={tick.event.at}>
              {clockTime(tick.event.at * 1000, false)} {tick.event.what}
            </button>
          ))}
        <span className="to">{clockTime(now * 1000, false)}</span>
      </div>
      {problem ? <p className="two">{problem}</p> : null}
    </div>
  );
}
