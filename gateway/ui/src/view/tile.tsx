// One seat: its picture, the station board beside it, and, in focus, the pillars left and right of the picture.
// The same elements serve wall, lean and focus: only classes change, so the one <video> never moves in the document.
import { memo, useEffect, useMemo, useRef, type KeyboardEvent, type MouseEvent, type ReactNode } from "react";
import { neighbour, spot, type Direction } from "../domain/layout";
import { label, type Action, type SeatView } from "../domain/seat";
import { REFILL, SOUND_WAITS, isLong } from "../domain/words";
import { PHONE, useApp, useAudio, useMedia, usePage, useSeat } from "./hooks";
import { HudLeft, HudRight } from "./hud";
import { Bars, Icon, LAN_ICON, STATE_ICON } from "./icons";
import { useWebRTC } from "./use-webrtc";

const ARROWS: Record<string, Direction> = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };

function Note({ view, onAct }: { view: SeatView; onAct: (act: Action) => void }): ReactNode {
  const note = view.note;
  if (!note) return null;
  const alert = view.tone === "danger" ? "alert" : undefined;
  if (note.over) {
    return (
      <div className="note over" role={alert}>
        <p>
          <b>{note.title}</b>
          <br />
          {note.text}
        </p>
      </div>
    );
  }
  const { action } = note;
  return (
    <div className="note" role={alert}>
      <span className={view.tone}>
        <Icon name={STATE_ICON[view.state]} />
      </span>
      <b>{note.title}</b>
      <p>{note.text}</p>
      {action ? (
        <button className="btn" data-act={action.act} onClick={() => onAct(action.act)}>
          {action.label}
        </button>
      ) : null}
    </div>
  );
}

function Board({ view }: { view: SeatView }): ReactNode {
  const app = useApp();
  const audio = useAudio(view.instance);
  const empty = view.state === "empty";
  const soundLabel = audio === "waiting" ? SOUND_WAITS : `${audio === "on" ? "Mute" : "Listen to"} seat ${view.seat}`;
  return (
    <div className="board">
      <span className={`plate${view.lease === "you" ? " mine" : ""}${empty ? " none" : ""}`}>{view.seat}</span>
      <div className="who">
        <b className={isLong(view.name) ? "long" : undefined}>{view.name}</b>
        <small>
          {view.lease ? (
            <>
              <Icon name="lever" /> <span className="ctl">Controls: </span>
              {view.controls}
            </>
          ) : (
            view.controls
          )}
        </small>
      </div>
      {empty || view.state === "loading" ? null : (
        <div className="acts">
          {view.hasPicture ? (
            <>
              <button
                className="ib"
                data-act="audio"
                aria-pressed={audio === "on"}
                aria-label={soundLabel}
                title={soundLabel}
                onClick={(event) => view.instance && app.toggleAudio(view.instance, event.shiftKey)}
              >
                <Icon name={audio === "on" ? "sound" : "mute"} />
              </button>
              <button
                className="ib opt"
                data-act="full"
                aria-label={`Fill the window with seat ${view.seat}`}
                title={`Fill the window with seat ${view.seat}`}
                onClick={() => app.focus(view.place)}
              >
                <Icon name="fill" />
              </button>
            </>
          ) : null}
          <button
            className="ib opt"
            data-act="drawer"
            aria-label={`Details of seat ${view.seat}`}
            title={`Details of seat ${view.seat}`}
            onClick={() => app.go({ seat: view.place, details: true })}
          >
            <Icon name="more" />
          </button>
        </div>
      )}
      <div className="rows">
        <span className={`st ${view.tone}`}>
          <Icon name={STATE_ICON[view.state]} />
          {view.word}
        </span>
        {empty || view.state === "loading" ? null : (
          <>
            <span className={view.lanFault ? "st danger" : `opt two${view.held ? " held" : ""}`}>
              <Icon name={view.link === "down" ? "silent" : LAN_ICON[view.lan]} />
              {view.lanWord}
            </span>
            <span className="opt two">
              <span className={view.bars === 0 ? "off" : view.bars > 2 ? "clear" : "caution"}>
                <Bars filled={view.bars} />
              </span>
              {view.quality}
            </span>
          </>
        )}
        {audio === "waiting" ? <span className="opt caution">{SOUND_WAITS}</span> : null}
        {view.state === "live" ? <span className="hint opt two">Enter plays. Space enlarges.</span> : null}
      </div>
    </div>
  );
}

export const Tile = memo(function Tile({ place }: { place: number }): ReactNode {
  const app = useApp();
  const page = usePage();
  const view = useSeat(place);
  const { seat } = view;
  const audio = useAudio(view.instance);
  const phone = useMedia(PHONE);
  const tile = useRef<HTMLElement>(null);
  const video = useRef<HTMLVideoElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const refs = useMemo(() => ({ tile, video, canvas }), []);
  const { route, settings } = page;
  const chosen = route.seat === place;
  // On a phone one seat is always large: the first while nobody chose.
  const large = (route.seat ?? 1) === place;
  const onWall = route.view === "wall";
  const full = onWall && route.mode === "focus" && chosen;
  const covered = onWall && route.mode === "focus" && !chosen;
  useWebRTC(app.session(view.instance), refs, view.frozen);

  useEffect(() => {
    const element = video.current;
    if (!element) return;
    element.volume = settings.volume;
    element.muted = audio !== "on";
    if (audio === "on" && element.srcObject) {
      element.play().catch(() => {
        element.muted = true;
        if (view.instance) app.soundWaits(view.instance);
      });
    }
  }, [app, audio, settings.volume, view.instance]);

  useEffect(() => {
    const element = tile.current;
    if (!element) return undefined;
    const observer = new IntersectionObserver(([entry]) => entry && app.seen(place, entry.isIntersecting));
    observer.observe(element);
    return () => observer.disconnect();
  }, [app, place]);

  const act = (what: Action): void => {
    if (what === "again") app.session(view.instance)?.again();
    else if (what === "why") app.go({ seat: place, details: true });
    else if (what === "copy") void navigator.clipboard.writeText(REFILL);
  };

  const onClick = (event: MouseEvent): void => {
    const target = event.target as Element;
    if (target.closest("button,summary,details,textarea,a,input")) return;
    if (target.closest(".pic")) {
      if (view.instance === undefined) return;
      if (full) {
        if (page.capture === undefined) app.capture();
      } else if (phone && !large) app.go({ seat: place, mode: "lean" });
      else app.focus(place);
    } else if (full) app.leave();
    else if (view.instance !== undefined && !route.details) app.go(route.mode === "lean" && chosen ? { mode: "even" } : { seat: place, mode: "lean" });
  };

  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.target !== tile.current || full || event.ctrlKey || event.altKey || event.metaKey) return;
    const arrow = ARROWS[event.key];
    if (arrow) {
      const to = neighbour(place, arrow, page.places);
      document.querySelector<HTMLElement>(`[data-place="${to}"]`)?.focus();
      if (to !== place && route.mode !== "even") app.go({ seat: to });
    } else if (event.key === "Enter" && view.instance !== undefined) app.focus(place);
    else if (event.key === " ") app.go(route.mode === "lean" && chosen ? { mode: "even" } : { seat: place, mode: "lean" });
    else if (event.key === "Home") app.go({ mode: "even" });
    else if (settings.shortcuts && event.key === "m" && view.instance !== undefined) app.toggleAudio(view.instance, event.shiftKey);
    else if (settings.shortcuts && event.key === "d" && view.instance !== undefined) app.go({ seat: place, details: true });
    else return;
    event.preventDefault();
  };

  const mine = view.lease === "you";
  const wide = view.width / view.height > 1.7 && view.height >= 600;
  const classes = ["tile", mine ? "mine" : "", full ? "full" : "", wide ? "wide" : "", large ? "sel" : "", chosen && route.details ? "det" : ""];
  return (
    <article
      ref={tile}
      className={classes.filter(Boolean).join(" ")}
      role="gridcell"
      tabIndex={large ? 0 : -1}
      inert={covered}
      aria-label={label(view)}
      style={{ gridRow: spot(place).row + 1, gridColumn: spot(place).column + 1 }}
      data-instance={view.instance}
      data-seat={seat}
      data-place={place}
      data-state={view.state}
      data-lan={view.lan}
      data-link={view.link}
      data-lease={view.lease}
      data-audio={view.instance === undefined ? undefined : audio}
      data-tier={view.tier}
      data-focused={full ? "true" : undefined}
      onClick={onClick}
      onKeyDown={onKeyDown}
    >
      {full ? <HudLeft view={view} /> : null}
      <div className="in">
        <div className={`pic${view.frozen ? " staleveil" : ""}${view.state === "empty" ? " emptypic" : ""}`}>
          {view.instance === undefined ? null : (
            <>
              <video ref={video} autoPlay muted playsInline disablePictureInPicture aria-label={`Picture of seat ${seat}`} />
              <canvas ref={canvas} hidden={!view.frozen} aria-hidden="true" />
            </>
          )}
          <Note view={view} onAct={act} />
        </div>
        <Board view={view} />
      </div>
      {full ? <HudRight view={view} /> : null}
    </article>
  );
});
