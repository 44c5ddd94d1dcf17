// A on the pixels of B: swipe between them, or switch.

import type { Data } from "./api";
import { announce, make, prefersLessMotion } from "./dom";
import type { Pane } from "./pane";
import type { Stage } from "./stage";
import { text } from "./texts";

export type Mode = "side" | "swipe" | "blink";

const BLINK_MS = 700;
const KEY_STEP = 0.02;

export class Overlay {
  mode: Mode = "side";
  private image: OpenSeadragon.TiledImage | null = null;
  private readonly handle: HTMLElement;
  private readonly caption = make("span", { class: "badge caption", hidden: true });
  private share = 0.5; // of the pane's width that shows A
  private showsA = true;
  private timer = 0;

  constructor(
    private readonly stage: Stage, private readonly a: Pane, private readonly b: Pane,
    private readonly data: Data, private readonly source: string,
  ) {
    this.handle = make("div", {
      class: "swipe", role: "slider", tabindex: "0", hidden: true, "aria-label": text("swipeHandle"),
      "aria-valuemin": "0", "aria-valuemax": "100", "aria-orientation": "horizontal",
    });
    this.handle.addEventListener("pointerdown", (event) => this.handle.setPointerCapture(event.pointerId));
    this.handle.addEventListener("pointermove", (event) => {
      if (!this.handle.hasPointerCapture(event.pointerId)) return;
      const box = b.element.getBoundingClientRect();
      this.moveTo((event.clientX - box.left) / box.width);
    });
    this.handle.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -KEY_STEP, ArrowRight: KEY_STEP, Home: -1, End: 1 }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      this.moveTo(this.share + by);
    });
    b.element.append(this.handle, this.caption);
    b.viewer.addHandler("update-viewport", () => this.clip());
  }

  async set(mode: Mode): Promise<void> {
    this.stop();
    if (mode !== "side") this.image ??= await this.b.over(await this.data.source(this.source), 1);
    this.mode = mode;
    this.a.element.hidden = mode !== "side";
    this.handle.hidden = mode !== "swipe";
    this.caption.hidden = mode !== "blink";
    this.b.badge.textContent = mode === "swipe" ? "A | B" : "B";
    this.stage.element.classList.toggle("two", mode === "side");
    this.image?.setOpacity(mode === "side" ? 0 : 1);
    this.showsA = true;
    if (mode === "blink") {
      this.image?.setClip(null);
      this.name();
      if (!prefersLessMotion()) this.timer = window.setInterval(() => this.flip(true), BLINK_MS);
    }
    this.moveTo(this.share);
  }

  /** Switch between A and B; by hand, it stops the timer. */
  flip(timed = false): void {
    if (!timed) this.stop();
    this.showsA = !this.showsA;
    this.image?.setOpacity(this.showsA ? 1 : 0);
    this.name();
    if (!timed) announce(this.caption.textContent);
  }

  stop(): void {
    clearInterval(this.timer);
    this.timer = 0;
  }

  private name(): void {
    this.caption.textContent = text(this.showsA ? "blinkA" : "blinkB");
  }

  private moveTo(share: number): void {
    this.share = Math.min(1, Math.max(0, share));
    this.handle.style.left = `${100 * this.share}%`;
    this.handle.setAttribute("aria-valuenow", String(Math.round(100 * this.share)));
    this.clip();
    this.b.viewer.forceRedraw();
  }

  /** Show A left of the boundary, wherever the view is. */
  private clip(): void {
    if (this.mode !== "swipe" || this.image === null) return;
    const box = this.b.element.getBoundingClientRect();
    const edge = Math.min(this.b.width, Math.max(0, this.b.toImage(this.share * box.width, 0).x + 0.5));
    const before = this.image.getClip();
    if (before !== null && Math.abs(before.width - edge) < 1e-3) return;
    this.image.setClip(new OpenSeadragon.Rect(0, 0, Math.max(edge, 1e-3), this.b.height));
  }
}
