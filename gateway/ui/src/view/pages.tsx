// Before there is a wall, and when the gateway is gone: sign-in, empty cluster, no answer.
import { useState, type FormEvent, type ReactNode } from "react";
import type { WallDirectory } from "../api/types";
import { clockTime, duration, emptyLines } from "../domain/words";
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
  const { discovery, directory } = usePage();
  const ready = discovery?.agents.filter((agent) => agent.answers).length;
  const nodes = ready === undefined ? "" : `, and ${ready} ${ready === 1 ? "node is" : "nodes are"} ready`;
  const lines = emptyLines(discovery);
  return (
    <div className="view pages">
      <section className="card page">
        <h1>Nine seats, no guests yet</h1>
        <p className="two">The cluster answers{nodes}. It has no guests. Type one of these:</p>
        <div className="code">{lines.join("\n")}</div>
        <p className="two">This page fills by itself.</p>
        <LeftOut directory={directory} />
        <button className="btn" data-act="copy" onClick={() => void navigator.clipboard.writeText((lines[0] ?? "").replace(/ +#.*/, ""))}>
          Copy the first line
        </button>
      </section>
    </div>
  );
}

/** What is not on the wall though the cluster has it. */
function LeftOut({ directory }: { directory: WallDirectory | undefined }): ReactNode {
  const [first, ...others] = directory?.left_out ?? [];
  if (!first) return null;
  const more = (directory?.left_out_count ?? 0) - 1;
  return (
    <p className="caution" role="status">
      {first.subject}: {first.text}
      {more > 0 ? ` And ${more} more${others.length > 0 ? `, such as ${others[0]?.subject ?? ""}` : ""}.` : ""}
    </p>
  );
}

/** The cluster's API is away, or its word cannot be used: the wall is as it was last, and plays. */
export function Stale(): ReactNode {
  const { directory, discovery } = usePage();
  useTick(1_000);
  if (directory?.stale_since === undefined || directory.stale_since === null) return null;
  const age = duration(Date.now() / 1000 - directory.stale_since);
  const kubernetes = directory.mode === "kubernetes";
  return (
    <section className="strip" role="alert" data-stale aria-label="The list of seats may be old">
      <h1>
        <Icon name="stale" />
        {kubernetes ? "The cluster's API does not tell what changes" : "The list of seats cannot be read"}
      </h1>
      <p className="two">
        This is the list of {age} ago. Pictures, sound, keys and the LAN go on; a guest that starts, moves or ends meanwhile shows late. {directory.problem}
      </p>
      <div className="code">{kubernetes ? `kubectl -n ${discovery?.kubernetesDiscovery?.namespace ?? "loco"} get pods -o wide` : "loco status"}</div>
    </section>
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
  const command = discovery?.mode === "kubernetes" ? `kubectl -n ${discovery.kubernetesDiscovery?.namespace ?? "loco"} get pods -l app.kubernetes.io/component=gateway` : "loco status";
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
