// The enlarged pixels around a keypoint, with its place and its covariance.

import type { Data } from "./api";
import { make } from "./dom";
import { text } from "./texts";

const SIDE = 33; // px of the image, as the server cuts
const ZOOM = 8;

export class Patch {
  readonly element = make("canvas", { class: "patch", role: "img", "aria-label": text("patchAlt") });
  private shown = "";

  constructor(private readonly data: Data) {
    this.element.width = this.element.height = SIDE * ZOOM;
  }

  /** Show the surroundings of a place of an image; the covariance is xx, xy, yy in px². */
  async show(image: string, x: number, y: number, covariance: [number, number, number] | null): Promise<void> {
    const url = this.data.patch(image, x, y);
    this.shown = url;
    const picture = new Image();
    picture.src = url;
    try {
      await picture.decode();
    } catch {
      if (this.shown === url) this.clear();
      return;
    }
    if (this.shown === url) this.draw(picture, x, y, covariance);
  }

  clear(): void {
    this.shown = "";
    this.element.getContext("2d")!.clearRect(0, 0, SIDE * ZOOM, SIDE * ZOOM);
  }

  private draw(picture: HTMLImageElement, x: number, y: number, covariance: [number, number, number] | null): void {
    const context = this.element.getContext("2d")!;
    context.imageSmoothingEnabled = false;
    context.clearRect(0, 0, SIDE * ZOOM, SIDE * ZOOM);
    context.drawImage(picture, 0, 0, SIDE * ZOOM, SIDE * ZOOM);
    // The middle pixel holds the place; its centre is a whole number.
    const left = (x - Math.floor(x + 0.5) + SIDE / 2) * ZOOM;
    const top = (y - Math.floor(y + 0.5) + SIDE / 2) * ZOOM;
    for (const [colour, width] of [["#000", 3], ["#fff", 1]] as const) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]] as const) {
        context.moveTo(left + 4 * dx, top + 4 * dy);
        context.lineTo(left + 14 * dx, top + 14 * dy);
      }
      if (covariance !== null && covariance[0] > 0) ellipse(context, left, top, covariance);
      context.stroke();
    }
  }
}

/** One standard deviation. */
function ellipse(context: CanvasRenderingContext2D, left: number, top: number, [xx, xy, yy]: [number, number, number]): void {
  const mean = (xx + yy) / 2, spread = Math.hypot((xx - yy) / 2, xy);
  const [major, minor] = [Math.sqrt(mean + spread), Math.sqrt(Math.max(mean - spread, 0))];
  const angle = Math.atan2(2 * xy, xx - yy) / 2;
  context.moveTo(left + major * ZOOM * Math.cos(angle), top + major * ZOOM * Math.sin(angle));
  context.ellipse(left, top, major * ZOOM, minor * ZOOM, angle, 0, 2 * Math.PI);
}
