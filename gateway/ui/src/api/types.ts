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
export type WhoAmI = Schemas["WhoAmI"];
export type DiscoveryInfo = Schemas["DiscoveryInfo"];
export type ErrorDetail = Schemas["ErrorDetail"];
