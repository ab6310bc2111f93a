//! The page's side of the strips: one canvas over a container, one worker that draws every marked place in it.

import type { FromWorker, StripStatus, ToWorker } from "./messages.ts";
import type { Scale, StripLayout } from "./sweep.ts";

/** What a place for a strip says about itself, in `data-strip`. */
export interface StripMark {
  id: string;
  patient_id: string;
  measure: string;
  /** Name of the CSS custom property with its colour. */
  color: string;
  scale: Scale;
  /** Time across the strip in ms, or the speed in CSS pixels a second. */
  time: { windowMs: number } | { pxPerSecond: number };
}

/** Largest canvas side in device pixels that every browser draws. */
const CANVAS_SIDE_MAX = 8_192;

export class Stage {
  readonly #canvas: HTMLCanvasElement;
  readonly #worker: Worker;
  readonly #resize: ResizeObserver;
  readonly #mutation: MutationObserver;
  #frame: number | null = null;
  #sent = "";

  constructor(
    private readonly container: HTMLElement,
    onStatus: (strips: StripStatus[]) => void,
  ) {
    this.#canvas = document.createElement("canvas");
    this.#canvas.className = "stage";
    this.#canvas.setAttribute("aria-hidden", "true");
    container.append(this.#canvas);
    this.#worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => onStatus(data.strips);
    const offscreen = this.#canvas.transferControlToOffscreen();
    this.#post({ type: "canvas", canvas: offscreen }, [offscreen]);
    this.#resize = new ResizeObserver(() => this.#schedule());
    this.#resize.observe(container);
    // Tiles come, go and change places without the container changing its size.
    this.#mutation = new MutationObserver(() => this.#schedule());
    this.#mutation.observe(container, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-strip"] });
    this.#schedule();
  }

  setSkew(skewMs: number): void {
    this.#post({ type: "skew", skewMs });
  }

  /** Measures and colours the places anew, after a change of theme. */
  refresh(): void {
    this.#schedule();
  }

  close(): void {
    this.#resize.disconnect();
    this.#mutation.disconnect();
    if (this.#frame !== null) cancelAnimationFrame(this.#frame);
    this.#worker.terminate();
    this.#canvas.remove();
  }

  #post(message: ToWorker, transfer: Transferable[] = []): void {
    this.#worker.postMessage(message, transfer);
  }

  #schedule(): void {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      this.#measure();
    });
  }

  #measure(): void {
    const origin = this.container.getBoundingClientRect();
    const width = this.container.clientWidth;
    // Not scrollHeight: that would count the canvas itself, which then could never shrink.
    const height = this.container.clientHeight;
    const style = getComputedStyle(this.container);
    const strips: StripLayout[] = [];
    for (const element of this.container.querySelectorAll<HTMLElement>("[data-strip]")) {
      const box = element.getBoundingClientRect();
      if (box.width < 8 || box.height < 8) continue;
      const mark = JSON.parse(element.dataset["strip"] ?? "{}") as StripMark;
      strips.push({
        id: mark.id,
        patient_id: mark.patient_id,
        measure: mark.measure,
        x: Math.round(box.left - origin.left),
        y: Math.round(box.top - origin.top),
        w: Math.floor(box.width),
        h: Math.floor(box.height),
        color: style.getPropertyValue(mark.color).trim() || "#0a0",
        windowMs: "windowMs" in mark.time ? mark.time.windowMs : (Math.floor(box.width) / mark.time.pxPerSecond) * 1_000,
        scale: mark.scale,
      });
    }
    const dpr = Math.min(window.devicePixelRatio || 1, CANVAS_SIDE_MAX / Math.max(width, height, 1));
    const message: ToWorker = { type: "layout", width, height, dpr, strips };
    const text = JSON.stringify(message);
    if (text === this.#sent) return;
    this.#sent = text;
    this.#canvas.style.width = `${width}px`;
    this.#canvas.style.height = `${height}px`;
    this.#post(message);
  }
}
