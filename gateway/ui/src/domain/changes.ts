// The wall and what changed in it since: together the newest wall. Pure.
import type { Connectivity, Instance, LanStatus, Wall, WallChange } from "../api/types";

const pairKey = (from: string, to: string): string => `${from} ${to}`;

/** A new wall; neither argument is touched, and what did not change is shared. */
export function applyChange(wall: Wall, change: WallChange): Wall {
  return {
    at: change.at,
    directory: change.directory,
    active: change.active,
    instances: instancesOf(wall.instances, change.instances, change.gone ?? []),
    lan: lanOf(wall.lan, change),
  };
}

function instancesOf(before: readonly Instance[], rows: readonly Instance[], gone: readonly string[]): Instance[] {
  if (rows.length === 0 && gone.length === 0) return before as Instance[];
  const now = new Map(before.map((row) => [row.id, row]));
  gone.forEach((id) => now.delete(id));
  rows.forEach((row) => now.set(row.id, row));
  return [...now.values()];
}

function lanOf(before: LanStatus, change: WallChange): LanStatus {
  const { lan } = change;
  const lists = change.lists ? lan : before;
  const instances = { ...before.instances, ...lan.instances };
  for (const id of change.lan_gone ?? []) delete instances[id];
  const next: LanStatus = { ...lists, at: lan.at, instances, connectivity: pairsOf(before.connectivity, lan.connectivity, change.pairs_gone ?? []) };
  if (lan.networkMode === undefined) delete next.networkMode;
  else next.networkMode = lan.networkMode;
  return next;
}

function pairsOf(before: readonly Connectivity[], rows: readonly Connectivity[], gone: readonly (readonly string[])[]): Connectivity[] {
  if (rows.length === 0 && gone.length === 0) return before as Connectivity[];
  const now = new Map(before.map((row) => [pairKey(row.from, row.to), row]));
  for (const [from, to] of gone) now.delete(pairKey(from ?? "", to ?? ""));
  rows.forEach((row) => now.set(pairKey(row.from, row.to), row));
  return [...now.values()];
}
