// Bodies of the gateway's HTTP API, to the shapes of crates/api. The one place where the page names them:
// `npm run codegen` writes types.gen.ts from gateway/openapi.json, and these become aliases of it.

export type Role = "view" | "play" | "admin";
export type InstanceWord = "starting" | "live" | "recovering" | "failed" | "stopped";
export type Tier = "thumb" | "full";

export interface PortCounters {
  tx_frames: number;
  tx_bytes: number;
  rx_frames: number;
  rx_bytes: number;
  rx_dropped: number;
}

export interface InstanceStatus {
  id: string;
  lan: string;
  seat: number;
  node: string;
  mac: string;
  ip: string;
  host_name: string;
  state: InstanceWord;
  since: number;
  detail?: string | null;
  link?: boolean | null;
  address_in_use?: string | null;
  counters?: PortCounters | null;
  picture?: { width: number; height: number; changes: number; still_for: number } | null;
  accelerator?: string | null;
  qemu_pid?: number | null;
  runner_pid?: number | null;
  lease?: string | null;
  viewers: { thumb: number; full: number };
}

export interface Instance {
  id: string;
  name: string;
  lan: string;
  seat: number;
  node: string;
  mac: string;
  ip: string;
  state: InstanceWord;
  agent_silent_for?: number | null;
  status?: InstanceStatus | null;
}

export interface Connectivity {
  from: string;
  to: string;
  reachable: boolean;
  rtt_ms?: number | null;
  loss?: number | null;
  last_seen?: number | null;
}

export interface LanStatus {
  networkMode?: string | null;
  at: number;
  lans: { name: string; vni: number; mode?: string | null; seats: number }[];
  connectivity: Connectivity[];
}

/** Data of the event `wall`. */
export interface Wall {
  at: number;
  instances: Instance[];
  lan: LanStatus;
  active: string[];
}

export interface WhoAmI {
  role: Role;
  version: string;
}

export interface DiscoveryInfo {
  mode: string;
  source: string;
  problem?: string | null;
  agents: { node: string; url: string; answers: boolean; silentFor?: number | null; problem?: string | null }[];
}

export interface ErrorDetail {
  code: string;
  message: string;
  remedy: string;
}
