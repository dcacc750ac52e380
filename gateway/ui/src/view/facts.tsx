// Terms and values. What was not measured is not listed.
import type { ReactNode } from "react";

export type Fact = readonly [string, string | undefined];

export function Facts({ facts }: { facts: readonly Fact[] }): ReactNode {
  const known = facts.filter((fact): fact is readonly [string, string] => fact[1] !== undefined && fact[1] !== "");
  if (known.length === 0) return <p className="muted">Not measured.</p>;
  return (
    <dl className="facts">
      {known.map(([term, value]) => (
        <div key={term}>
          <dt>{term}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
