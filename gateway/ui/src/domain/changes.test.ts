import { describe, expect, test } from "vitest";
import type { Instance, Wall, WallChange } from "../api/types";
import { applyChange } from "./changes";

const instance = (id: string, node = "n1"): Instance => ({ id, name: id, lan: "party", seat: 0, node, mac: "", ip: "", state: "live" });
const lan = { at: 1, lans: [], instances: {}, connectivity: [] };
const wall: Wall = {
  at: 1,
  directory: { mode: "kubernetes" },
  active: [],
  instances: [instance("instance-0"), instance("instance-1")],
  lan: { ...lan, networkMode: "vxlan", sessions: [{ name: "Loco Party" }], connectivity: [{ from: "a", to: "b", reachable: true }] } as unknown as Wall["lan"],
};
const nothing: WallChange = { at: 2, directory: wall.directory, active: [], instances: [], lan: { ...lan, at: 2, networkMode: "vxlan" }, lists: false };

describe("a wall and its changes", () => {
  test("rows replace those of the same id, the gone go, the rest is shared", () => {
    const next = applyChange(wall, { ...nothing, instances: [instance("instance-1", "n2"), instance("instance-2")], gone: ["instance-0"] });
    expect(next.instances.map((i) => [i.id, i.node])).toEqual([["instance-1", "n2"], ["instance-2", "n1"]]);
    expect(wall.instances).toHaveLength(2);
    expect(applyChange(wall, nothing).instances).toBe(wall.instances);
  });

  test("lists stay until they are given, and are then replaced as a whole", () => {
    expect(applyChange(wall, nothing).lan.sessions).toBe(wall.lan.sessions);
    const next = applyChange(wall, { ...nothing, lists: true });
    expect(next.lan.sessions).toBeUndefined();
    expect(next.lan.connectivity).toHaveLength(1);
  });

  test("pairs and ports go by their keys", () => {
    const change = { ...nothing, lan: { ...nothing.lan, connectivity: [{ from: "b", to: "a", reachable: false }] }, pairs_gone: [["a", "b"]] } as WallChange;
    expect(applyChange(wall, change).lan.connectivity.map((row) => row.from)).toEqual(["b"]);
  });

  test("the directory's word is the newest", () => {
    const next = applyChange(wall, { ...nothing, directory: { mode: "kubernetes", stale_since: 5, problem: "the API does not answer" } });
    expect([next.at, next.directory.stale_since]).toEqual([2, 5]);
  });
});
