// Who talks to whom: heat map on a canvas with its twin as a table. Drawn when the data, the chosen cell, the size or the
// colours change, in one animation frame.
import { useEffect, useMemo, useRef, useState, type KeyboardEvent, type PointerEvent, type ReactNode } from "react";
import type { Lag } from "../../api/types";
import { MODES, MODE_KEYS, cellAt, gridOf, lagWords, matrixOf, mix, moveCell, pairWords, rgb, streamWords, strength, textOn, type Grid, type Matrix, type MatrixMode, type MatrixSeat } from "../../domain/matrix";
import type { Connectivity } from "../../api/types";
import { useMedia } from "../hooks";
import { prepared, tokens, useWidth } from "./use-size";

interface Props {
  seats: readonly MatrixSeat[];
  rows: readonly Connectivity[];
  lags: readonly Lag[];
  /** Epoch seconds of the state that is drawn. */
  at: number | undefined;
  theme: string;
  chosen: { row: number; column: number } | undefined;
  /** Enter or a click: the doctor is asked about the pair. */
  onOpen: (row: number, column: number) => void;
  /** Which moment is shown. */
  moment: ReactNode;
  children?: ReactNode;
}

interface Look {
  width: number;
  height: number;
  big: boolean;
  small: boolean;
}

const SANS = '"Loco Text", "Barlow Semi Condensed", system-ui, sans-serif';
const COND = '"Loco Cond", "Barlow Condensed", "Arial Narrow", sans-serif';

function sizes({ width, height, big, small }: Look, count: number): Grid {
  return gridOf(width, height, small ? 26 : big ? 128 : 104, small ? 24 : 30, count);
}

function clip(x: CanvasRenderingContext2D, text: string, width: number): string {
  if (x.measureText(text).width <= width) return text;
  let short = text;
  while (short.length > 1 && x.measureText(`${short}\u2026`).width > width) short = short.slice(0, -1);
  return `${short}\u2026`;
}

function draw(canvas: HTMLCanvasElement, look: Look, matrix: Matrix, at: { row: number; column: number }, focused: boolean): void {
  const x = prepared(canvas, look.width, look.height);
  if (!x) return;
  const css = tokens();
  const grid = sizes(look, matrix.seats.length);
  const scale = look.big ? 1.18 : 1;
  const [cold, hot] = [rgb(css("--heat0")), rgb(css("--heat1"))];
  x.textBaseline = "middle";
  x.textAlign = "left";
  x.fillStyle = css("--ink3");
  x.font = `400 ${12 * scale}px ${SANS}`;
  if (!look.small) x.fillText("from \u2193   to \u2192", 0, grid.top / 2);
  const gap = look.small ? 1 : 1.5;
  matrix.seats.forEach((seat, row) => {
    x.fillStyle = css("--ink2");
    x.textAlign = "left";
    x.font = `600 ${13 * scale}px ${SANS}`;
    const name = seat.instance === undefined ? "empty" : seat.name === `Seat ${seat.seat}` ? "" : seat.name;
    x.fillText(look.small ? String(seat.seat) : clip(x, `${seat.seat}  ${name}`, grid.left - 10), 0, grid.top + grid.cellHeight * (row + 0.5));
    x.textAlign = "center";
    x.font = `600 ${15 * scale}px ${COND}`;
    x.fillText(String(seat.seat), grid.left + grid.cellWidth * (row + 0.5), grid.top / 2);
    for (const cell of matrix.cells[row] ?? []) {
      const left = grid.left + grid.cellWidth * cell.column + gap;
      const top = grid.top + grid.cellHeight * row + gap;
      const [w, h] = [grid.cellWidth - 2 * gap, grid.cellHeight - 2 * gap];
      if (cell.value === undefined) {
        x.strokeStyle = css("--line");
        x.lineWidth = 1;
        x.strokeRect(left + 0.5, top + 0.5, w - 1, h - 1);
        if (!cell.same) hatch(x, left, top, w, h);
        continue;
      }
      const colour = mix(cold, hot, cell.none ? 0 : strength(cell.value, matrix.top));
      x.fillStyle = `rgb(${colour.join()})`;
      x.fillRect(left, top, w, h);
      x.fillStyle = textOn(colour);
      if (cell.none) {
        x.fillStyle = x.strokeStyle = css("--danger");
        x.lineWidth = 1.5;
        x.strokeRect(left + 0.75, top + 0.75, w - 1.5, h - 1.5);
      }
      x.font = `600 ${look.small ? 13 : 17 * scale}px ${COND}`;
      x.fillText(cell.text, left + w / 2, top + h / 2 + 1);
    }
  });
  x.strokeStyle = css(focused ? "--focus" : "--edge");
  x.lineWidth = focused ? 3 : 2;
  x.strokeRect(grid.left + grid.cellWidth * at.column + gap, grid.top + grid.cellHeight * at.row + gap, grid.cellWidth - 2 * gap, grid.cellHeight - 2 * gap);
}

/** Not measured. */
function hatch(x: CanvasRenderingContext2D, left: number, top: number, w: number, h: number): void {
  x.save();
  x.beginPath();
  x.rect(left, top, w, h);
  x.clip();
  x.beginPath();
  for (let k = -h; k < w; k += 7) {
    x.moveTo(left + k, top + h);
    x.lineTo(left + k + h, top);
  }
  x.stroke();
  x.restore();
}

function Table({ matrix }: { matrix: Matrix }): ReactNode {
  return (
    <div className="tw" tabIndex={0} role="region" aria-label={`${MODES[matrix.mode].name} as a table`}>
      <table className="matrix">
        <caption className="sr">
          Rows send, columns receive. {MODES[matrix.mode].unit}
        </caption>
        <thead>
          <tr>
            <th scope="col" className="l">
              from \ to
            </th>
            {matrix.seats.map((seat) => (
              <th key={seat.seat} scope="col">
                {seat.seat}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {matrix.cells.map((row, index) => {
            const from = matrix.seats[index];
            return (
              <tr key={from?.seat}>
                <th scope="row" className="l">
                  {from?.seat} {from?.instance === undefined ? "empty" : from.name === `Seat ${from.seat}` ? "" : from.name}
                </th>
                {row.map((cell) => (
                  <td key={cell.column} data-from={from?.seat} data-to={matrix.seats[cell.column]?.seat} data-value={cell.value} className={cell.none ? "danger" : cell.value === undefined ? "muted" : undefined}>
                    {cell.same ? "" : cell.value === undefined ? "not measured" : cell.text}
                  </td>
                ))}
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

export function MatrixCard({ seats, rows, lags, at, theme, chosen, onOpen, moment, children }: Props): ReactNode {
  const forced = useMedia("(forced-colors: active)");
  const [mode, setMode] = useState<MatrixMode>("rate");
  const [asTable, setAsTable] = useState(forced);
  const [cursor, setCursor] = useState<{ row: number; column: number }>();
  const [focused, setFocused] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const width = useWidth(box);
  const matrix = useMemo(() => matrixOf(seats, rows, mode), [seats, rows, mode]);
  const spot = cursor ?? chosen ?? { row: 0, column: Math.min(1, seats.length - 1) };
  const look: Look = useMemo(() => {
    const big = innerWidth >= 1700;
    const small = width < 420;
    const height = Math.round(small ? width * 0.95 : Math.min(width * 0.78, innerHeight * (big ? 0.405 : 0.5)));
    return { width, height, big, small };
  }, [width]);

  useEffect(() => {
    const element = canvas.current;
    if (!element || look.width === 0) return undefined;
    let gone = false;
    const paint = (): void => {
      if (!gone) draw(element, look, matrix, spot, focused);
    };
    const frame = requestAnimationFrame(paint);
    // The first drawing may come before the page's own letters.
    if (document.fonts.status !== "loaded") void document.fonts.ready.then(paint);
    return () => {
      gone = true;
      cancelAnimationFrame(frame);
    };
  }, [look, matrix, spot.row, spot.column, focused, theme, asTable]);

  const cell = matrix.cells[spot.row]?.[spot.column];
  const lag = cell && lagWords(lags, seats[cell.row], seats[cell.column]);
  const stream = cell && streamWords(seats[cell.row]?.stream);
  const under = (event: PointerEvent | React.MouseEvent): { row: number; column: number } | undefined => {
    const rect = event.currentTarget.getBoundingClientRect();
    return cellAt(sizes(look, seats.length), event.clientX - rect.left, event.clientY - rect.top, seats.length);
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const to = moveCell(spot, event.key, seats.length);
    if (to) setCursor(to);
    else if (event.key === "Enter") onOpen(spot.row, spot.column);
    else return;
    event.preventDefault();
  };
  return (
    <section className="card matrixcard" aria-label="Who talks to whom">
      <header>
        <h2>Who talks to whom</h2>
        <span className="muted">{MODES[mode].unit}</span>
        <div className="seg sp" role="radiogroup" aria-label="Show">
          {MODE_KEYS.map((key, index) => (
            <button
              key={key}
              role="radio"
              aria-checked={key === mode}
              tabIndex={key === mode ? 0 : -1}
              data-mode={key}
              onClick={() => setMode(key)}
              onKeyDown={(event) => {
                const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
                const next = step === undefined ? undefined : MODE_KEYS[(index + step + MODE_KEYS.length) % MODE_KEYS.length];
                if (next === undefined) return;
                event.preventDefault();
                setMode(next);
                event.currentTarget.parentElement?.querySelector<HTMLElement>(`[data-mode="${next}"]`)?.focus();
              }}
            >
              {MODES[key].name}
            </button>
          ))}
        </div>
      </header>
      <div ref={box}>
        {asTable ? (
          <Table matrix={matrix} />
        ) : (
          <canvas
            ref={canvas}
            id="heat"
            role="application"
            aria-roledescription="matrix"
            aria-label={`${MODES[mode].name} between ${seats.length} seats. Arrow keys name a pair, Enter opens the doctor. The same numbers are in the table.`}
            aria-describedby="pair"
            tabIndex={0}
            data-mode={mode}
            data-at={at}
            style={{ height: look.height }}
            onPointerMove={(event) => {
              const to = under(event);
              if (to && (to.row !== spot.row || to.column !== spot.column)) setCursor(to);
            }}
            onClick={(event) => {
              const to = under(event);
              if (to) onOpen(to.row, to.column);
            }}
            onKeyDown={onKeyDown}
            onFocus={() => setFocused(true)}
            onBlur={() => setFocused(false)}
          />
        )}
      </div>
      <div className="row under">
        <span id="pair" aria-live="polite" className="two">
          {cell ? pairWords(matrix, cell) : ""}
          {lag ? `; ${lag}` : ""}
          {stream ? `; ${stream}` : ""}
        </span>
        {moment}
        <button className="btn slim" data-act="table" onClick={() => setAsTable(!asTable)}>
          {asTable ? "Show as a map" : "Show as a table"}
        </button>
      </div>
      {children}
    </section>
  );
}
