// How long to wait before try number `tries` + 1: 0.25 s doubling to 10 s, with half of it random so that nine tiles
// (and many viewers) do not come back in one instant.
export function backoffMs(tries: number, random: number): number {
  const full = Math.min(10_000, 250 * 2 ** Math.min(tries, 10));
  return Math.round(full / 2 + (full / 2) * random);
}
