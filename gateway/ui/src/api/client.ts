// The gateway's HTTP API. Every failure leaves as one ApiError that says what and what to do; nothing else throws.
import type { ControlAction, DiscoveryInfo, Doctor, ErrorDetail, LanHistory, Tier, WhoAmI } from "./types";

/** `status` 0: no answer at all. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly remedy: string,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

export interface WhepAnswer {
  sdp: string;
  /** Path that ends the session with DELETE. */
  location: string;
  /** All UDP ports that sessions of that node may use, "14900-14999"; "" if the agent does not say. */
  ports: string;
}

function isErrorDetail(value: unknown): value is ErrorDetail {
  if (typeof value !== "object" || value === null) return false;
  const v = value as Record<string, unknown>;
  return typeof v["code"] === "string" && typeof v["message"] === "string" && typeof v["remedy"] === "string";
}

/** Reads the one error body of the API, or says what came instead. */
export async function toApiError(response: Response): Promise<ApiError> {
  try {
    const body: unknown = await response.json();
    const detail = typeof body === "object" && body !== null ? (body as Record<string, unknown>)["error"] : undefined;
    if (isErrorDetail(detail)) return new ApiError(response.status, detail.code, detail.message, detail.remedy);
  } catch {
    // Not JSON: a proxy answered in the gateway's place. The status says enough.
  }
  return new ApiError(response.status, `http-${response.status}`, `The gateway answered ${response.status}.`, "Try again.");
}

/**
 * Offers that are under way at once. A browser opens six connections to a host without TLS; the event stream has one, and
 * one stays free for everything else, however slow an agent answers.
 */
const OFFERS_MAX = 4;

export class ApiClient {
  #token: string;
  #offers = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(token: string, readonly base = "") {
    this.#token = token;
  }

  async request(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    headers.set("Authorization", `Bearer ${this.#token}`);
    let response: Response;
    try {
      response = await fetch(this.base + path, { ...init, headers, cache: "no-store" });
    } catch (cause) {
      if (init.signal?.aborted) throw cause;
      throw new ApiError(0, "no-answer", "The gateway does not answer.", "Check that it runs: loco status");
    }
    if (!response.ok) throw await toApiError(response);
    return response;
  }

  async whoAmI(): Promise<WhoAmI> {
    return (await (await this.request("/api/session")).json()) as WhoAmI;
  }

  async discovery(): Promise<DiscoveryInfo> {
    return (await (await this.request("/api/instances/discovery-info")).json()) as DiscoveryInfo;
  }

  async offer(instance: string, tier: Tier, sdp: string, signal: AbortSignal): Promise<WhepAnswer> {
    if (this.#offers >= OFFERS_MAX) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#offers += 1;
    try {
      return await this.#offer(instance, tier, sdp, signal);
    } finally {
      this.#offers -= 1;
      this.#waiting.shift()?.();
    }
  }

  async #offer(instance: string, tier: Tier, sdp: string, signal: AbortSignal): Promise<WhepAnswer> {
    const path = `/api/whep/${encodeURIComponent(instance)}`;
    const response = await this.request(`${path}?tier=${tier}`, {
      method: "POST",
      headers: { "Content-Type": "application/sdp" },
      body: sdp,
      signal,
    });
    const location = response.headers.get("Location") ?? "";
    const ports = response.headers.get("X-Loco-Media-Ports") ?? "";
    return { sdp: await response.text(), location: location.startsWith("/") ? location : "", ports };
  }

  /** Ends a session. `keepalive`, so that it also leaves while the page unloads; a failure changes nothing for us. */
  async endSession(location: string): Promise<void> {
    if (location === "") return;
    try {
      await this.request(location, { method: "DELETE", keepalive: true });
    } catch {
      // The agent ends a session by itself when its peer is gone.
    }
  }

  async screenshot(instance: string): Promise<Blob> {
    return await (await this.request(`/api/instances/${encodeURIComponent(instance)}/screenshot.png`)).blob();
  }

  /** What happened on the LANs between two times, and the state at the second. Seconds since the epoch. */
  async lanHistory(from: number, to: number, signal: AbortSignal): Promise<LanHistory> {
    return (await (await this.request(`/api/lan-status/history?from=${from.toFixed(3)}&to=${to.toFixed(3)}`, { signal })).json()) as LanHistory;
  }

  /** Why `from` does not see the game of `to`; also when all is well. */
  async doctor(from: string, to: string, signal: AbortSignal): Promise<Doctor> {
    const query = new URLSearchParams({ from, to });
    return (await (await this.request(`/api/doctor?${query.toString()}`, { signal })).json()) as Doctor;
  }

  /** The last frames of a port, as the agent keeps them. `last`: `60s`. */
  async pcap(instance: string, last: string): Promise<Blob> {
    return await (await this.request(`/api/instances/${encodeURIComponent(instance)}/pcap?last=${last}`)).blob();
  }

  /** The guest's power button or its reset line. */
  async power(instance: string, action: "shutdown" | "reset"): Promise<void> {
    await this.#order(`/api/instances/${encodeURIComponent(instance)}/power`, action);
  }

  /** What its runner does with a guest: restart it, or reset it to a fresh disk. */
  async control(instance: string, action: ControlAction): Promise<void> {
    await this.#order(`/api/control/${encodeURIComponent(instance)}`, action);
  }

  async #order(path: string, action: string): Promise<void> {
    await this.request(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ action }),
    });
  }
}
