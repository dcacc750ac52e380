// Bodies of the gateway's HTTP API: short names for what types.gen.ts says, which `npm run codegen` writes from
// gateway/openapi.json. Nothing is described twice.
import type { components } from "./types.gen";

type Schemas = components["schemas"];

export type Role = Schemas["Role"];
export type Tier = "thumb" | "full";
export type Instance = Schemas["Instance"];
export type InstanceStatus = Schemas["InstanceStatus"];
/** Data of the event `wall`. */
export type Wall = Schemas["Wall"];
/** Data of the event `change`. */
export type WallChange = Schemas["WallChange"];
export type WallDirectory = Schemas["WallDirectory"];
export type WhoAmI = Schemas["WhoAmI"];
export type DiscoveryInfo = Schemas["DiscoveryInfo"];
export type ControlAction = Schemas["ControlAction"];
export type ErrorDetail = Schemas["ErrorDetail"];

export type LanStatus = Schemas["LanStatus"];
export type LanInstance = Schemas["LanInstance"];
export type LanRole = Schemas["LanRole"];
export type Connectivity = Schemas["Connectivity"];
export type Session = Schemas["Session"];
export type Player = Schemas["Player"];
export type Timeline = Schemas["Timeline"];
export type Step = Schemas["Step"];
export type Lag = Schemas["Lag"];
export type StreamLag = Schemas["StreamLag"];
export type Evidence = Schemas["Evidence"];
export type Diagnosis = Schemas["Diagnosis"];
/** `/api/doctor`. */
export type Doctor = Schemas["Doctor"];
export type Rung = Schemas["Rung"];
export type RungResult = Schemas["RungResult"];
/** The last hour: `/api/lan-status/history`. */
export type LanHistory = Schemas["LanHistory"];
export type LanSample = Schemas["LanSample"];
export type LanEvent = Schemas["LanEvent"];
