// Details of one seat: beside the wall, never over it. Only what was measured is listed.
import { useEffect, useState, type ReactNode } from "react";
import { ApiError } from "../api/client";
import type { Instance } from "../api/types";
import { VIEW_ONLY, YOU_HAVE, bitrate, duration, grouped } from "../domain/words";
import { LanPart } from "./drawer-lan";
import { Facts, type Fact } from "./facts";
import { useApp, usePage, useSeat, useTick } from "./hooks";
import { Icon, STATE_ICON } from "./icons";
import { saveScreenshot } from "./save";

/** The guest's picture as its agent has it now, loaded once when the drawer opens. */
function Shot({ instance, place }: { instance: Instance; place: number }): ReactNode {
  const app = useApp();
  const view = useSeat(place);
  const { seat } = view;
  const [url, setUrl] = useState<string>();
  const [problem, setProblem] = useState<string>();
  useEffect(() => {
    let made: string | undefined;
    let gone = false;
    app.api.screenshot(instance.id).then(
      (blob) => {
        if (gone) return;
        made = URL.createObjectURL(blob);
        setUrl(made);
      },
      () => undefined, // The button says why when it is pressed; an absent picture needs no words.
    );
    return () => {
      gone = true;
      if (made) URL.revokeObjectURL(made);
    };
  }, [app, instance.id]);
  const frames = app.session(instance.id)?.frameNumber ?? 0;
  const last = app.session(instance.id)?.view().lastFrameAt;
  const picture = instance.status?.picture;
  return (
    <div className="shot">
      {url ? <img src={url} alt={`Picture of seat ${seat} when these details were opened`} /> : <div className="noshot" />}
      <div className="stack start">
        <span className="two">
          {frames > 0 && last !== undefined ? `Frame ${grouped(frames)}, ${duration((Date.now() - last) / 1000)} ago` : "No frame yet"}
          <br />
          {view.state === "live" || picture ? `${view.width} x ${view.height}` : null}
        </span>
        <button className="btn" data-act="screenshot" onClick={() => void saveScreenshot(app.api, instance.id).then(setProblem)}>
          <Icon name="camera" />
          Screenshot
        </button>
        {problem ? <span className="danger">{problem}</span> : null}
      </div>
    </div>
  );
}

function Controls({ place }: { place: number }): ReactNode {
  const app = useApp();
  const page = usePage();
  const view = useSeat(place);
  const session = app.session(view.instance);
  const words = view.lease ? { you: YOU_HAVE, other: "Another viewer has the controls.", free: "Controls: free" }[view.lease] : "No connection to this seat yet.";
  return (
    <section>
      <h2>Controls</h2>
      <p className="row two">
        <Icon name="lever" />
        <span>{words}</span>
      </p>
      {page.role === "view" ? (
        <p className="two">{VIEW_ONLY}</p>
      ) : (
        <div className="row">
          {view.lease === "you" ? (
            <button className="btn" data-act="give" onClick={() => session?.give()}>
              Give
            </button>
          ) : (
            <button className="btn p" data-act="take" disabled={view.lease === undefined} onClick={() => app.focus(place)}>
              <Icon name="lever" />
              Take the controls
            </button>
          )}
        </div>
      )}
    </section>
  );
}

/** What must not happen by a slip of the hand, and the words that ask. */
const ASKED = {
  reset: { line: "Reset pulls the plug: what the game did not save is lost.", yes: "Reset", done: "The reset line was pulled." },
  fresh: {
    line: "The guest switches off and starts on a fresh disk. The disk it has is set aside until the next time.",
    yes: "Start afresh",
    done: "Its runner starts the guest on a fresh disk.",
  },
} as const;

function Power({ instance }: { instance: Instance }): ReactNode {
  const app = useApp();
  const page = usePage();
  const [asking, setAsking] = useState<keyof typeof ASKED>();
  const [said, setSaid] = useState<{ text: string; bad: boolean }>();
  const may = page.role === "admin";
  const running = instance.state === "live" || instance.state === "starting";
  const order = (sent: Promise<void>, done: string): void => {
    setAsking(undefined);
    sent.then(
      () => setSaid({ text: done, bad: false }),
      (error: unknown) => setSaid({ text: error instanceof ApiError ? `${error.message} ${error.remedy}` : "The gateway did not take it. Try again.", bad: true }),
    );
  };
  const confirmed = (what: keyof typeof ASKED): void =>
    order(what === "reset" ? app.api.power(instance.id, "reset") : app.api.control(instance.id, "reset"), ASKED[what].done);
  const reason = may ? (running ? undefined : "Shut down and Reset need a running guest.") : "Shut down, Reset and Fresh disk need an admin token.";
  return (
    <section>
      <h2>Power</h2>
      <div className="row">
        <button className="btn" data-act="restart" onClick={() => app.session(instance.id)?.again()}>
          Restart the stream
        </button>
        <button
          className="btn"
          data-act="shutdown"
          disabled={reason !== undefined}
          onClick={() => order(app.api.power(instance.id, "shutdown"), "The power button was pressed. The guest decides when it is off.")}
        >
          <Icon name="power" />
          Shut down
        </button>
        <button className="btn d" data-act="reset" disabled={reason !== undefined} onClick={() => setAsking("reset")}>
          <Icon name="warn" />
          Reset
        </button>
        {/* A guest that cannot start because of its disk has this way out: it needs no running guest. */}
        <button className="btn d" data-act="fresh" disabled={!may} onClick={() => setAsking("fresh")}>
          <Icon name="warn" />
          Fresh disk
        </button>
      </div>
      {asking ? (
        <div className="fix" role="alert">
          <b>{ASKED[asking].line}</b>
          <div className="row">
            <button className="btn d" data-act={`${asking}-yes`} onClick={() => confirmed(asking)}>
              {ASKED[asking].yes}
            </button>
            <button className="btn" autoFocus onClick={() => setAsking(undefined)}>
              Keep
            </button>
          </div>
        </div>
      ) : (
        <p className="muted">{reason ?? "Reset pulls the plug: the guest may check its disk. Asks first."}</p>
      )}
      {said ? <p className={said.bad ? "danger" : "two"} role="status">{said.text}</p> : null}
    </section>
  );
}

export function Drawer({ place }: { place: number }): ReactNode {
  const app = useApp();
  const view = useSeat(place);
  const { seat } = view;
  useTick(1_000);
  const instance = app.instance(view.instance);
  const close = (): void => {
    app.go({ details: false });
    document.querySelector<HTMLElement>(`[data-place="${place}"]`)?.focus();
  };
  if (!instance) return null;
  const wall = app.wall();
  const { status } = instance;
  const line = app.session(instance.id)?.line;
  const since = status ? duration(wall ? wall.at - status.since : 0) : undefined;
  const facts: Fact[] = [
    ["Instance", instance.id],
    ["State", since === undefined ? instance.state : `${instance.state} for ${since}`],
    ["Said by the agent", status?.detail ?? undefined],
    ["Processor", status?.accelerator ? status.accelerator.toUpperCase() : undefined],
    ["Watched by", status ? `${status.viewers.thumb} small, ${status.viewers.full} full` : undefined],
    ["Stream", line?.codec],
    ["Line", line?.bitrate === undefined ? undefined : bitrate(line.bitrate)],
    ["Round trip", line?.rttMs === undefined ? undefined : `${line.rttMs.toFixed(1)} ms`],
    ["Packets lost", line?.lossPercent === undefined ? undefined : `${line.lossPercent.toFixed(1)} %`],
  ];
  return (
    <aside className="drawer" aria-label={`Details of seat ${seat}`}>
      <header className="row nowrap">
        <span className={`plate m${view.lease === "you" ? " mine" : ""}`}>{seat}</span>
        <div className="grow">
          <div className="drawername">{view.name}</div>
          <span className={`st ${view.tone}`}>
            <Icon name={STATE_ICON[view.state]} />
            {view.state === "live" && since !== undefined && instance.state === "live" ? `Live for ${since}` : view.word}
          </span>
        </div>
        <button className="ib" aria-label="Close" title="Close" onClick={close}>
          <Icon name="close" />
        </button>
      </header>
      <Shot instance={instance} place={place} />
      <Controls place={place} />
      <LanPart instance={instance} wall={wall} />
      <Power instance={instance} />
      <section>
        <h2>Details</h2>
        <Facts facts={facts} />
      </section>
    </aside>
  );
}
