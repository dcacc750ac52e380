// The bar above the wall: name plate, the views as stops on a line, counts, the server's clock. On a phone the stops
// move to the bottom.
import { useEffect, type ReactNode } from "react";
import type { View } from "../domain/route";
import { clockTime } from "../domain/words";
import { useApp, useMedia, usePage } from "./hooks";
import { Icon } from "./icons";

const STOPS: readonly { view: View; name: string }[] = [
  { view: "wall", name: "Wall" },
  { view: "lan", name: "LAN" },
  { view: "settings", name: "Settings" },
];

export function Route(): ReactNode {
  const app = useApp();
  const { route } = usePage();
  return (
    <nav className="route" aria-label="Views">
      {STOPS.map(({ view, name }) => (
        <button key={view} data-v={view} aria-current={route.view === view ? "page" : undefined} onClick={() => app.go({ view, details: false, mode: route.mode === "focus" ? "even" : route.mode })}>
          {name}
        </button>
      ))}
    </nav>
  );
}

/** Night or day, as it is drawn now. */
export function useTheme(): "dark" | "light" {
  const { settings } = usePage();
  const systemLight = useMedia("(prefers-color-scheme: light)");
  return settings.theme === "day" || (settings.theme === "system" && systemLight) ? "light" : "dark";
}

export function Bar(): ReactNode {
  const app = useApp();
  const page = usePage();
  const theme = useTheme();
  const wide = ["restarting", "empty"];
  return (
    <header className="top" inert={page.capture !== undefined}>
      <span className="nameplate">LOCO</span>
      {page.signedIn ? <Route /> : null}
      <div className="depart">
        {page.answered
          ? page.counts.map(({ word, count }) => (
              <span key={word} className={wide.includes(word) ? "w" : undefined}>
                <b>{count}</b>
                {word}
              </span>
            ))
          : null}
        {page.session ? (
          <span className="w session">
            <b>{page.session.name}</b>
            {page.session.joined} of {page.session.of} joined
          </span>
        ) : null}
        {page.clockOff === undefined ? null : <span className="caution">clock differs by {Math.abs(page.clockOff)} s</span>}
      </div>
      {page.clock === undefined ? null : (
        <span className="clock" title="Time at the server">
          {clockTime(page.clock, false)}
        </span>
      )}
      <button
        className="ib"
        data-act="theme"
        aria-label={theme === "light" ? "Night" : "Day"}
        title={theme === "light" ? "Night" : "Day"}
        onClick={() => app.set({ theme: theme === "light" ? "night" : "day" })}
      >
        <Icon name={theme === "light" ? "moon" : "sun"} />
      </button>
    </header>
  );
}

/** Mirrors the page's state in the body's attributes: colours hang on them, and tests wait for them. */
export function useBodyAttributes(): void {
  const page = usePage();
  const theme = useTheme();
  const { view } = page.route;
  useEffect(() => {
    const { dataset } = document.body;
    dataset["view"] = view;
    dataset["theme"] = theme;
    dataset["api"] = page.api;
    dataset["motion"] = page.settings.motion;
    if (page.capture === undefined) delete dataset["capture"];
    else dataset["capture"] = page.capture;
  }, [view, theme, page.api, page.capture, page.settings.motion]);
}
