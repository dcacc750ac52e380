// Why can this seat not join: question, answer, remedy, and the ladder with the frame that proves each rung. The words of
// answer and remedy are the gateway's; with nothing asked, the worst that is known is shown.
import { useEffect, useRef, useState, type ReactNode } from "react";
import { ApiError } from "../../api/client";
import type { Diagnosis, Evidence, LanStatus } from "../../api/types";
import type { LanSeat } from "../../domain/lan-board";
import { CAPTURE_S, EVIDENCE_GONE, RESULTS, evidenceHead, question, rungsOf, who, worst } from "../../domain/ladder";
import { useApp, usePage } from "../hooks";
import { Icon } from "../icons";
import { CAPTURE_ADMIN, saveCapture } from "../save";

interface Props {
  seats: readonly LanSeat[];
  status: LanStatus | undefined;
  /** Epoch seconds that are looked at; absent: now. */
  at: number | undefined;
  now: number;
  pair: { from: LanSeat; to: LanSeat } | undefined;
}

/** The pair's diagnosis: from the state if it is there, else asked for, and again when anybody's role or link changes. */
function useDiagnosis({ status, at, pair }: Props): { diagnosis: Diagnosis | undefined; problem: string | undefined; loading: boolean } {
  const app = useApp();
  const [asked, setAsked] = useState<{ key: string; pair: string; diagnosis?: Diagnosis; problem?: string }>();
  const from = pair?.from.instance?.id;
  const to = pair?.to.instance?.id;
  const known = status?.diagnosis?.find((d) => d.from === from && d.to === to);
  const own = (id: string | undefined): string => {
    const seen = id === undefined ? undefined : status?.instances[id];
    return [id, seen?.link, seen?.ip, seen?.directplay?.role, seen?.directplay?.session].join();
  };
  const key = from !== undefined && to !== undefined && at === undefined && !known && status ? `${own(from)} ${own(to)}` : undefined;
  useEffect(() => {
    if (key === undefined || from === undefined || to === undefined) return undefined;
    const abort = new AbortController();
    app.api.doctor(from, to, abort.signal).then(
      ({ diagnosis }) => {
        const found = diagnosis.find((d) => d.from === from && d.to === to) ?? diagnosis[0];
        setAsked({ key, pair: `${from} ${to}`, ...(found ? { diagnosis: found } : {}) });
      },
      (error: unknown) => {
        if (!abort.signal.aborted) setAsked({ key, pair: `${from} ${to}`, problem: error instanceof ApiError ? `${error.message} ${error.remedy}`.trim() : "The gateway gave no diagnosis." });
      },
    );
    return () => abort.abort();
  }, [app, key, from, to]);
  if (pair) {
    if (known) return { diagnosis: known, problem: undefined, loading: false };
    // Of the same pair, the last answer stays until the next is there.
    const same = asked?.pair === `${from} ${to}`;
    return { diagnosis: key !== undefined && same ? asked?.diagnosis : undefined, problem: asked?.key === key ? asked?.problem : undefined, loading: key !== undefined && asked?.key !== key };
  }
  return { diagnosis: undefined, problem: undefined, loading: false };
}

function Proof({ evidence, failed, seatName }: { evidence: Evidence; failed: boolean; seatName: (id: string) => string }): ReactNode {
  return (
    <div className={`ev${failed ? " bad" : ""}`}>
      {evidenceHead(evidence, seatName)}
      <br />
      {evidence.what}
    </div>
  );
}

export function DoctorCard(props: Props): ReactNode {
  const { seats, status, at, now, pair } = props;
  const app = useApp();
  const page = usePage();
  const [said, setSaid] = useState<string>();
  const asked = useDiagnosis(props);
  const heading = useRef<HTMLHeadingElement>(null);
  const here = new Map(seats.flatMap((seat) => (seat.instance ? [[seat.instance.id, seat] as const] : [])));
  const faults = (status?.diagnosis ?? []).filter((d) => !d.ok && here.has(d.from));
  const diagnosis = pair ? asked.diagnosis : worst(faults);
  const nameOf = (id: string): string => {
    const seat = here.get(id);
    return seat ? who(seat.seat, seat.name) : id;
  };
  const seatName = (id: string): string => {
    const seat = here.get(id);
    return seat ? `seat ${seat.seat}` : id;
  };
  const from = diagnosis ? here.get(diagnosis.from) : pair?.from;
  const to = diagnosis ? here.get(diagnosis.to) : pair?.to;
  const others = [...new Map(faults.filter((d) => d.from !== diagnosis?.from).map((d) => [d.from, d])).values()];
  const evidence = diagnosis?.evidence ?? undefined;
  const gone = evidence !== undefined && evidence.at > 0 && now - evidence.at > CAPTURE_S;
  const reason = page.role === "admin" ? undefined : CAPTURE_ADMIN;
  const numbers = from && to ? `${from.seat}-${to.seat}` : undefined;
  const ask = (one: Diagnosis): void => {
    const [a, b] = [here.get(one.from), here.get(one.to)];
    if (a) app.go({ pair: { from: a.place, to: (b ?? a).place } });
    heading.current?.focus();
  };
  const title = diagnosis ? question(diagnosis, nameOf(diagnosis.from), nameOf(diagnosis.to)) : pair ? (pair.from === pair.to ? `Seat ${pair.from.seat}` : `Seat ${pair.from.seat} and seat ${pair.to.seat}`) : "The doctor";
  const empty = pair && !pair.from.instance ? pair.from : pair && !pair.to.instance ? pair.to : undefined;
  const words = diagnosis
    ? diagnosis.sentence
    : empty
      ? `Nobody sits at seat ${empty.seat}.`
      : !status
        ? "Not measured."
        : pair
          ? (asked.problem ?? (asked.loading ? "Asking the doctor." : at === undefined ? "Nothing is known of this pair." : "No fault of this pair was known then."))
          : `No fault ${at === undefined ? "is" : "was"} known. Choose two seats in the matrix to see how far they get.`;
  return (
    <section className="card doctor" id="doctor" aria-label="Doctor" data-pair={numbers} data-ok={diagnosis?.ok} data-cause={diagnosis?.cause}>
      <header>
        {from ? <span className={`plate s${from.lan?.fault || diagnosis?.ok === false ? " none" : ""}`}>{from.seat}</span> : null}
        <h2 ref={heading} tabIndex={-1}>
          {title}
        </h2>
      </header>
      <p className="say" aria-live="polite">
        {words}
      </p>
      {diagnosis ? (
        <>
          <div className={diagnosis.remedy ? "fix" : "row"}>
            {diagnosis.remedy ? <b>{diagnosis.remedy}</b> : null}
            <div className="row">
              {from ? (
                <button className="btn" data-act="open" onClick={() => app.go({ view: "wall", seat: from.place, mode: "lean", details: true })}>
                  Open seat {from.seat}
                </button>
              ) : null}
              <button
                className="btn"
                data-act="evidence"
                disabled={reason !== undefined}
                onClick={() => void saveCapture(app.api, [...new Set([diagnosis.from, diagnosis.to])].filter((id) => here.has(id))).then(setSaid)}
              >
                <Icon name="pcap" />
                Save the evidence
              </button>
            </div>
            {reason ? <span className="two">{reason}</span> : gone && !diagnosis.ok ? <span className="two">{EVIDENCE_GONE}</span> : null}
            {said ? <span className="danger" role="status">{said}</span> : null}
          </div>
          <ol className="ladder" data-pair={numbers}>
            {rungsOf(diagnosis).map(({ rung, words: name, result, evidence: proof }) => (
              <li key={rung} data-rung={rung} data-result={result} className={result === "unreached" || (result === "unknown" && !proof) ? "un" : ""}>
                <span className={`g ${result === "passed" ? "clear" : result === "failed" ? "danger" : ""}`}>
                  <Icon name={result} />
                </span>
                <div>
                  <h3>
                    {name}
                    <span className={result === "unknown" ? "muted" : "sr"}>: {RESULTS[result]}</span>
                  </h3>
                  {proof ? result === "failed" ? <Proof evidence={proof} failed seatName={seatName} /> : <p className="two">{[proof.what, evidenceHead(proof, seatName)].filter(Boolean).join(" \u00a0")}</p> : null}
                </div>
              </li>
            ))}
          </ol>
        </>
      ) : null}
      {others.length > 0 ? (
        <div className="row others">
          <span className="two">Also:</span>
          {others.map((one) => (
            <button key={one.from} className="btn slim" data-act="ask" onClick={() => ask(one)}>
              <Icon name="failed" />
              {nameOf(one.from)}
            </button>
          ))}
        </div>
      ) : null}
    </section>
  );
}
