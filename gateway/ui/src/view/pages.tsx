// Before there is a wall, and when the gateway is gone: sign-in, empty cluster, no answer.
import { useState, type FormEvent, type ReactNode } from "react";
import { UP, clockTime, duration } from "../domain/words";
import { useApp, usePage, useTick } from "./hooks";
import { Icon } from "./icons";

export function SignIn(): ReactNode {
  const app = useApp();
  const page = usePage();
  const [token, setToken] = useState("");
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    if (token.trim() !== "") app.signIn(token.trim());
  };
  return (
    <div className="view pages">
      <form className="card page" onSubmit={submit}>
        <span className="nameplate">LOCO</span>
        <h1>Sign in</h1>
        <label className="field">
          Token
          <input type="password" autoComplete="current-password" autoFocus value={token} onChange={(event) => setToken(event.currentTarget.value)} />
        </label>
        <p className="two">
          <code>loco up</code> printed a link with one. Again: <code>loco status -o json</code>
        </p>
        {page.denied ? (
          <p className="danger row nowrap" role="alert">
            <Icon name="error" />
            This is not a token of this cluster.
          </p>
        ) : null}
        <button className="btn p" type="submit">
          Sign in
        </button>
      </form>
    </div>
  );
}

export function Empty(): ReactNode {
  const { discovery } = usePage();
  const ready = discovery?.agents.filter((agent) => agent.answers).length;
  const nodes = ready === undefined ? "" : `, and ${ready} ${ready === 1 ? "node is" : "nodes are"} ready`;
  return (
    <div className="view pages">
      <section className="card page">
        <h1>Nine seats, no guests yet</h1>
        <p className="two">The cluster answers{nodes}. It has no guests. Type one of these:</p>
        <div className="code">
          {`${UP}           # the demo game\nloco up --disk win98.qcow2   # your own disk`}
        </div>
        <p className="two">This page fills by itself.</p>
        <button className="btn" data-act="copy" onClick={() => void navigator.clipboard.writeText(UP)}>
          Copy the first line
        </button>
      </section>
    </div>
  );
}

/** "The gateway does not answer". As a strip above the wall, which stays; as a page while there never was a wall. */
export function Away({ strip }: { strip: boolean }): ReactNode {
  const app = useApp();
  const page = usePage();
  useTick(500);
  const { feed, lastAnswerAt, discovery } = page;
  const now = Date.now();
  const seconds = feed.is === "waiting" ? Math.ceil((feed.nextTryAt - now) / 1000) : 0;
  const tries = feed.is === "waiting" || feed.is === "connecting" ? feed.tries : 0;
  const next = seconds > 0 ? `Next try in ${seconds} s (try ${tries + 1}).` : `Trying now (try ${tries + 1}).`;
  const last = lastAnswerAt === undefined ? "It has not answered since this page was opened." : `Last answer ${clockTime(lastAnswerAt)}, ${duration((now - lastAnswerAt) / 1000)} ago.`;
  const command = discovery?.mode === "kubernetes" ? "kubectl -n loco get pods -l app.kubernetes.io/component=gateway" : "loco status";
  return (
    <section className={strip ? "strip" : "card page"} role="alert" aria-label="The gateway does not answer">
      <h1>
        {strip ? <Icon name="stale" /> : null}
        The gateway does not answer
      </h1>
      <p className="two">
        {last} {next}
        {strip ? " Pictures come straight from the nodes, so those that run keep running; states and numbers are held back until they are true again." : null}
      </p>
      <div className="code">{command}</div>
      <button className="btn" data-act="try" onClick={() => app.tryNow()}>
        Try now
      </button>
    </section>
  );
}
