// Saves what the gateway gives as a file. The sentence to show when it did not work; undefined when it is on its way.
import { ApiError, type ApiClient } from "../api/client";
import { CAPTURE_S } from "../domain/ladder";

async function save(blob: Promise<Blob>, name: string, otherwise: string): Promise<string | undefined> {
  try {
    const url = URL.createObjectURL(await blob);
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    return undefined;
  } catch (error) {
    return error instanceof ApiError ? `${error.message} ${error.remedy}` : otherwise;
  }
}

const stamp = (): string => new Date().toISOString().replace(/[:.]/g, "-");

/** A guest's picture, without loss: the agent makes the PNG, not the video. */
export const saveScreenshot = (api: ApiClient, instance: string): Promise<string | undefined> =>
  save(api.screenshot(instance), `${instance}-${stamp()}.png`, "No screenshot came. Try again.");

/** The last frames of a guest's port, one file a port. */
export async function saveCapture(api: ApiClient, instances: readonly string[]): Promise<string | undefined> {
  const said: (string | undefined)[] = [];
  for (const id of instances) said.push(await save(api.pcap(id, `${CAPTURE_S}s`), `${id}-${stamp()}.pcapng`, "No capture came. Try again."));
  return said.find((words) => words !== undefined);
}

/** Why this viewer may not have a capture: it holds what people typed. */
export const CAPTURE_ADMIN = "A capture holds what players typed: it needs an admin token.";
