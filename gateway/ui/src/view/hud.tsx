// What stands beside the picture in focus: who, the controls, the way out; on the right the other seats and what was
// measured. Never on the picture.
import { useEffect, useRef, useState, type ReactNode } from "react";
import { strokeOf } from "../domain/chars";
import { label, type SeatView } from "../domain/seat";
import { BOARD, boardAt } from "../domain/boards";
import { VIEW_ONLY, YOU_HAVE } from "../domain/words";
import { useApp, useAudio, usePage, useSeat } from "./hooks";
import { Icon, STATE_ICON } from "./icons";
import { saveScreenshot } from "./save";

function Controls({ view }: { view: SeatView }): ReactNode {
  const app = useApp();
  const page = usePage();
  if (page.role === "view") return <p className="two">{VIEW_ONLY}</p>;
  if (page.capture === view.instance && view.lease === "you") {
    return (
      <div className="st lever" data-hud="controls">
        <Icon name="lever" />
        {YOU_HAVE}
      </div>
    );
  }
  if (view.lease === undefined) return null;
  const words = { other: "Another viewer has the controls.", free: "The controls are free.", you: "The keyboard is yours again." }[view.lease];
  return (
    <div className="stack" data-hud="controls">
      <span className="two">{words}</span>
      <button className="btn p" data-act="take" onClick={() => app.capture()}>
        <Icon name="lever" />
        Take the controls
      </button>
    </div>
  );
}

export function HudLeft({ view }: { view: SeatView }): ReactNode {
  const app = useApp();
  const page = usePage();
  const captured = page.capture !== undefined;
  return (
    <aside className="hud left" aria-label={`Seat ${view.seat}`}>
      <span className={`plate${captured ? " mine" : ""}`}>{view.seat}</span>
      <div className="hudname">
        <div className="big">{view.name}</div>
        <span className={`st ${view.tone}`}>
          <Icon name={STATE_ICON[view.state]} />
          {view.word}
        </span>
      </div>
      <Controls view={view} />
      {captured ? (
        <div className="keys desk">
          <span>Every key goes to the game, Esc too.</span>
          <span>
            Press and let go the left <kbd>Ctrl</kbd> + <kbd>Alt</kbd> to get your keyboard back.
          </span>
        </div>
      ) : null}
      <div className="bot row">
        <button className="btn" data-act="leave" onClick={() => app.leave()}>
          Back to the wall
        </button>
      </div>
      <TouchRow view={view} />
    </aside>
  );
}

/** Keys that a phone has no keys for. Ctrl and Alt stick until the next key. */
function TouchRow({ view }: { view: SeatView }): ReactNode {
  const app = useApp();
  const field = useRef<HTMLTextAreaElement>(null);
  const [sticky, setSticky] = useState<readonly string[]>([]);
  const input = app.session(view.instance)?.input;
  const send = (codes: readonly string[]): void => {
    input?.stroke([...sticky, ...codes]);
    setSticky([]);
  };
  const toggle = (code: string): void => setSticky(sticky.includes(code) ? sticky.filter((c) => c !== code) : [...sticky, code]);
  const type = (text: string): void => {
    for (const character of text) {
      const stroke = strokeOf(character);
      if (stroke) send(stroke.shift ? ["ShiftLeft", stroke.code] : [stroke.code]);
    }
  };
  return (
    <>
      <div className="touch row">
        <button className="btn" onClick={() => field.current?.focus()}>
          Keyboard
        </button>
        <button className="btn" onClick={() => send(["Escape"])}>
          Esc
        </button>
        <button className="btn" aria-pressed={sticky.includes("ControlLeft")} onClick={() => toggle("ControlLeft")}>
          Ctrl
        </button>
        <button className="btn" aria-pressed={sticky.includes("AltLeft")} onClick={() => toggle("AltLeft")}>
          Alt
        </button>
        <button
          className="btn"
          onClick={() => {
            input?.button(2, true);
            input?.button(2, false);
          }}
        >
          Right click
        </button>
        <textarea
          ref={field}
          className="softkeys"
          aria-label={`Type to seat ${view.seat}`}
          autoCapitalize="off"
          autoCorrect="off"
          spellCheck={false}
          value=""
          onChange={(event) => type(event.currentTarget.value)}
          onKeyDown={(event) => event.key === "Backspace" && send(["Backspace"])}
        />
      </div>
      <p className="touch two">Slide one finger to move the pointer. Tap to click. Two fingers for the right button.</p>
    </>
  );
}

const CHORDS: readonly { name: string; codes: readonly string[] }[] = [
  { name: "Ctrl + Alt + Del", codes: ["ControlLeft", "AltLeft", "Delete"] },
  { name: "Alt + Tab", codes: ["AltLeft", "Tab"] },
  { name: "Alt + F4", codes: ["AltLeft", "F4"] },
  { name: "Ctrl + Esc", codes: ["ControlLeft", "Escape"] },
  { name: "Ctrl + W", codes: ["ControlLeft", "KeyW"] },
  { name: "Esc", codes: ["Escape"] },
  { name: "Meta", codes: ["MetaLeft"] },
];

interface KeyboardLock {
  lock?: (keys: readonly string[]) => Promise<void>;
  unlock?: () => void;
}

/** The browser's own full screen. Where the keyboard cannot be locked, Esc belongs to the browser: say so. */
function useFullScreen(): { on: boolean; words: string | undefined; toggle: () => void } {
  const [on, setOn] = useState(document.fullscreenElement !== null);
  const keyboard = (navigator as Navigator & { keyboard?: KeyboardLock }).keyboard;
  useEffect(() => {
    const change = (): void => setOn(document.fullscreenElement !== null);
    document.addEventListener("fullscreenchange", change);
    return () => {
      document.removeEventListener("fullscreenchange", change);
      if (document.fullscreenElement) void document.exitFullscreen();
    };
  }, []);
  const toggle = (): void => {
    if (document.fullscreenElement) void document.exitFullscreen();
    else void document.documentElement.requestFullscreen().then(() => keyboard?.lock?.(["Escape"]));
  };
  const words = keyboard?.lock ? "Hold Esc 2 s to leave full screen." : "In this browser Esc leaves full screen. Use the Esc button to send it.";
  return { on, words: on ? words : undefined, toggle };
}

function Mini({ place, current }: { place: number; current: number }): ReactNode {
  const app = useApp();
  const view = useSeat(place);
  return (
    <button
      className={place === current ? "on" : view.state === "empty" ? "emp" : ""}
      aria-label={label(view)}
      aria-current={place === current}
      disabled={view.instance === undefined}
      onClick={() => app.focus(place)}
    >
      {view.seat}
      <span className={place === current ? "" : view.tone}>
        <Icon name={STATE_ICON[view.state]} />
      </span>
    </button>
  );
}

function Measured({ name, value }: { name: string; value: string | undefined }): ReactNode {
  return (
    <>
      <span>{name}</span>
      {value === undefined ? <span className="muted">not measured</span> : <b>{value}</b>}
    </>
  );
}

export function HudRight({ view }: { view: SeatView }): ReactNode {
  const app = useApp();
  const page = usePage();
  const audio = useAudio(view.instance);
  const fullScreen = useFullScreen();
  const [problem, setProblem] = useState<string>();
  const menu = useRef<HTMLDetailsElement>(null);
  const instance = app.instance(view.instance);
  const first = boardAt(page.boards, view.place)?.firstPlace ?? 1;
  const places = Array.from({ length: BOARD }, (_, i) => first + i);
  const onLan = places.filter((p) => ["host", "joined", "looking", "on"].includes(app.seat(p).lan)).length;
  const of = places.filter((p) => app.seat(p).instance !== undefined).length;
  const session = app.session(view.instance);
  const lock = (): void => {
    const picture = document.querySelector<HTMLElement>(`[data-place="${view.place}"] .pic`);
    app.capture();
    // Refused by the browser just after Esc: the button can be pressed again, and says nothing that is untrue meanwhile.
    void Promise.resolve(picture?.requestPointerLock()).catch(() => setProblem("The browser did not lock the pointer. Try again in a second."));
  };
  return (
    <aside className="hud right" aria-label="LAN and quality">
      <div className="desk">
        <h2>LAN {instance?.lan}</h2>
        <p className="two">
          {onLan} of {of} on the LAN
        </p>
      </div>
      <div className="mini" role="group" aria-label="Go to a seat">
        {places.map((place) => (
          <Mini key={place} place={place} current={view.place} />
        ))}
      </div>
      <div className="nums">
        <Measured name="Click to picture" value={view.clickToPicture === undefined ? undefined : `${Math.round(view.clickToPicture)} ms`} />
        <Measured name="Pictures a second" value={view.perSecond === undefined ? undefined : view.perSecond === 0 ? "still" : String(view.perSecond)} />
        <Measured name="Packets lost" value={view.lossPercent === undefined ? undefined : `${view.lossPercent.toFixed(1)} %`} />
      </div>
      {page.role === "view" ? null : (
        <details className="menu" ref={menu}>
          <summary className="btn">Send keys</summary>
          <div className="menuitems">
            {CHORDS.map(({ name, codes }) => (
              <button
                key={name}
                className="btn"
                disabled={view.lease !== "you"}
                onClick={() => {
                  app.capture();
                  session?.input.stroke(codes);
                  if (menu.current) menu.current.open = false;
                }}
              >
                {name}
              </button>
            ))}
          </div>
        </details>
      )}
      {fullScreen.words ? <p className="two">{fullScreen.words}</p> : null}
      {problem ? <p className="two">{problem}</p> : null}
      <div className="bot row tight">
        <button
          className="ib"
          data-act="audio"
          aria-pressed={audio === "on"}
          aria-label={audio === "on" ? `Mute seat ${view.seat}` : `Listen to seat ${view.seat}`}
          title={audio === "on" ? "Mute" : "Listen"}
          onClick={(event) => view.instance && app.toggleAudio(view.instance, event.shiftKey)}
        >
          <Icon name={audio === "on" ? "sound" : "mute"} />
        </button>
        <button
          className="ib"
          data-act="screenshot"
          aria-label="Screenshot"
          title="Screenshot"
          onClick={() => view.instance && void saveScreenshot(app.api, view.instance).then(setProblem)}
        >
          <Icon name="camera" />
        </button>
        <button className="ib desk" data-act="lock" aria-label="Lock the pointer. Esc lets it go." title="Lock the pointer. Esc lets it go." onClick={lock}>
          <Icon name="pointer" />
        </button>
        <button className="ib" data-act="fullscreen" aria-pressed={fullScreen.on} aria-label="Full screen" title="Full screen" onClick={fullScreen.toggle}>
          <Icon name="fill" />
        </button>
      </div>
    </aside>
  );
}
