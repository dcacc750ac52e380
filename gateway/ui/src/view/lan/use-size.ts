// Width of an element as it is laid out, and a reason to draw again when colours change.
import { useEffect, useState, type RefObject } from "react";

export function useWidth(ref: RefObject<HTMLElement | null>): number {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const element = ref.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(([entry]) => entry && setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(element);
    return () => observer.disconnect();
  }, [ref]);
  return width;
}

/** Reads the page's colour tokens, for a canvas. */
export function tokens(): (name: string) => string {
  const style = getComputedStyle(document.body);
  return (name) => style.getPropertyValue(name).trim();
}

/** A canvas of that many CSS pixels, sharp on this screen. */
export function prepared(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D | undefined {
  const scale = devicePixelRatio || 1;
  const w = Math.round(width * scale);
  const h = Math.round(height * scale);
  if (canvas.width !== w) canvas.width = w;
  if (canvas.height !== h) canvas.height = h;
  const x = canvas.getContext("2d") ?? undefined;
  x?.setTransform(scale, 0, 0, scale, 0, 0);
  x?.clearRect(0, 0, width, height);
  return x;
}
