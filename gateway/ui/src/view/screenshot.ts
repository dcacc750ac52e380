// Saves a guest's picture as a file, without loss: the agent makes the PNG, not the video.
import { ApiError, type ApiClient } from "../api/client";

/** The sentence to show when it did not work; undefined when the file is on its way. */
export async function saveScreenshot(api: ApiClient, instance: string): Promise<string | undefined> {
  try {
    const url = URL.createObjectURL(await api.screenshot(instance));
    const link = document.createElement("a");
    link.href = url;
    link.download = `${instance}-${new Date().toISOString().replace(/[:.]/g, "-")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    return undefined;
  } catch (error) {
    return error instanceof ApiError ? `${error.message} ${error.remedy}` : "No screenshot came. Try again.";
  }
}
