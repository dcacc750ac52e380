// How long to wait before try number `tries` + 1, with half of it random so that nine tiles (and many viewers) do not come
// back in one instant. The first tries come soon and close together: an agent that was replaced is back within a second
// (docs/adr/0022), and what is lost by asking too early is one request. Whoever is away for longer is asked less often, to 10 s.
const FIRST_MS: readonly number[] = [200, 200, 300, 500];
const MOST_MS = 10_000;

export function backoffMs(tries: number, random: number): number {
  const full = FIRST_MS[tries] ?? Math.min(MOST_MS, 1_000 * 2 ** Math.min(tries - FIRST_MS.length, 10));
  return Math.round(full / 2 + (full / 2) * random);
}
