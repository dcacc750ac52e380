// Joins one session to the one <video> of its tile: stream in, presented frames out, the last picture kept on a canvas
// when a connection ends. No React state per frame: a callback counts, and `data-frame` is written at 2 Hz.
import { useEffect, useRef, type RefObject } from "react";
import type { SeatSession } from "../session/seat-session";
import { useApp } from "./hooks";

const FRAME_WRITE_MS = 500;

export interface Refs {
  tile: RefObject<HTMLElement | null>;
  video: RefObject<HTMLVideoElement | null>;
  canvas: RefObject<HTMLCanvasElement | null>;
}

export function useWebRTC(session: SeatSession | undefined, refs: Refs, frozen: boolean): void {
  const app = useApp();
  const kept = useRef(false);

  useEffect(() => {
    const video = refs.video.current;
    if (!video || !session) return undefined;
    const keep = (): void => {
      const canvas = refs.canvas.current;
      if (!canvas || video.videoWidth === 0) return;
      canvas.width = video.videoWidth;
      canvas.height = video.videoHeight;
      canvas.getContext("2d")?.drawImage(video, 0, 0);
      kept.current = true;
    };
    const attach = (stream: MediaStream): void => {
      video.srcObject = stream;
      video.play().catch((error: unknown) => {
        // Muted video may always play; with sound it needs a click first. A newer srcObject aborts the older play().
        if (error instanceof DOMException && error.name === "NotAllowedError") {
          video.muted = true;
          app.soundWaits(session.instance);
          void video.play();
        }
      });
    };
    let handle = 0;
    const frame: VideoFrameRequestCallback = (now, metadata) => {
      if (session.stream !== undefined && video.srcObject === session.stream) {
        kept.current = false;
        session.presented(now, metadata.rtpTimestamp);
      }
      handle = video.requestVideoFrameCallback(frame);
    };
    handle = video.requestVideoFrameCallback(frame);
    session.onStream = attach;
    session.onFreeze = keep;
    if (session.stream && session.view().phase === "connected") attach(session.stream);
    let written = 0;
    const writer = setInterval(() => {
      if (session.frameNumber === written) return;
      written = session.frameNumber;
      refs.tile.current?.setAttribute("data-frame", String(written));
    }, FRAME_WRITE_MS);
    return () => {
      video.cancelVideoFrameCallback(handle);
      clearInterval(writer);
      session.onStream = () => undefined;
      session.onFreeze = () => undefined;
    };
  }, [session, app, refs.video, refs.canvas, refs.tile]);

  // The guest's own picture froze while its line stands: nobody told us to keep it, so keep it now.
  useEffect(() => {
    if (frozen && !kept.current) session?.onFreeze();
  }, [frozen, session]);
}
