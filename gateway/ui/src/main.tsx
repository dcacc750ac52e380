// The page: one store, one capture of keys and pointer, and the views that draw what the store says.
import { StrictMode, Suspense, lazy, type ReactNode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app/app";
import { Capture } from "./app/capture";
import { Bar, Route, useBodyAttributes } from "./view/bar";
import { Guard } from "./view/guard";
import { AppContext, usePage } from "./view/hooks";
import { Away, Empty, SignIn, Stale } from "./view/pages";
import { SettingsView } from "./view/settings-view";
import { Wall } from "./view/wall";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/wall.css";
import "./styles/focus.css";
import "./styles/pages.css";
import "./styles/phone.css";

/** Loaded with its view: the first picture does not wait for it. */
const LanView = lazy(() => import("./view/lan/lan-view"));

function Main(): ReactNode {
  const page = usePage();
  if (!page.signedIn) return <SignIn />;
  // Never answered: there is no wall to keep.
  if (!page.answered && page.api === "away") {
    return (
      <div className="view pages">
        <Away strip={false} />
      </div>
    );
  }
  return (
    <>
      {page.empty && page.route.view === "wall" ? <Empty /> : <Wall />}
      {page.route.view === "lan" ? (
        <Guard view="LAN">
          <Suspense fallback={<p className="two pad">Loading the view.</p>}>
            <LanView />
          </Suspense>
        </Guard>
      ) : null}
      {page.route.view === "settings" ? <SettingsView /> : null}
    </>
  );
}

function Page(): ReactNode {
  const page = usePage();
  useBodyAttributes();
  return (
    <>
      <a className="skip" href="#wall" onClick={(event) => {
        event.preventDefault();
        document.querySelector<HTMLElement>('.tile[tabindex="0"]')?.focus();
      }}>
        Skip to the seats
      </a>
      <Bar />
      {page.signedIn && page.answered ? page.api === "away" ? <Away strip /> : <Stale /> : <span hidden />}
      <main>
        <Main />
      </main>
      {page.signedIn ? (
        <div className="tabbar" inert={page.capture !== undefined}>
          <Route />
        </div>
      ) : null}
      <div className="sr" aria-live="polite" role="status">
        {page.announcement}
      </div>
    </>
  );
}

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");
const app = new App();
new Capture(app, () => document.querySelector<HTMLVideoElement>(".tile.full video"));
createRoot(root).render(
  <StrictMode>
    <AppContext value={app}>
      <Page />
    </AppContext>
  </StrictMode>,
);
