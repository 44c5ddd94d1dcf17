// One image in OpenSeadragon, and the mapping between its pixels and the stage.

import type { Data, Tiles } from "./api";
import { make, prefersLessMotion } from "./dom";
import type { Frame } from "./layer";
import { text } from "./texts";

/** The view of a pane: the place in its middle, px of the image, and CSS px per image px. */
export interface View {
  x: number;
  y: number;
  z: number;
}

export const PIXEL_ZOOM = 16;
const MOST_ZOOM = 64, LEAST_SHARE = 0.3;
const SMOOTH_BELOW = 1.5;
const STEP_SHARE = 0.12, ZOOM_STEP = 1.3;

export interface PaneEvents {
  /** Images were drawn; the layer follows in the same frame. */
  drawn(pane: Pane): void;
  /** The user moves this pane. */
  active(pane: Pane): void;
  hover(pane: Pane, at: { x: number; y: number } | null): void;
  click(pane: Pane, at: { x: number; y: number }): void;
}

export class Pane {
  readonly element: HTMLElement;
  readonly viewer: OpenSeadragon.Viewer;
  width = 1;
  height = 1;
  private readonly host: HTMLElement;
  private readonly notice: HTMLElement;
  readonly badge: HTMLElement;
  private ready = false;
  private smooth = true;

  constructor(private readonly data: Data, readonly name: string, label: string, events: PaneEvents) {
    this.host = make("div", { class: "osd" });
    this.notice = make("p", { class: "notice", hidden: true });
    this.badge = make("span", { class: "badge", "aria-hidden": "true", hidden: !name }, name);
    this.element = make(
      "div", { class: "pane", tabindex: "0", role: "application", "aria-label": label },
      this.host, this.badge, this.notice,
    );
    const motion = prefersLessMotion() ? 0 : 0.25;
    this.viewer = OpenSeadragon({
      element: this.host,
      drawer: "canvas",
      showNavigationControl: false,
      tabIndex: -1,
      animationTime: motion,
      blendTime: 0,
      maxZoomPixelRatio: MOST_ZOOM,
      minZoomImageRatio: LEAST_SHARE,
      visibilityRatio: 0.1,
      constrainDuringPan: false,
      imageLoaderLimit: 4,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: false },
    } as OpenSeadragon.Options);
    // One image px becomes a square: no half pixels from resampling at high zoom.
    const drawn = (): void => {
      if (!this.ready) return;
      if (this.sharpen()) requestAnimationFrame(() => this.viewer.forceRedraw());
      const { x, y, z } = this.view;
      this.element.dataset["view"] = [x, y, z].map((value) => value.toFixed(4)).join(" ");
      events.drawn(this);
    };
    this.viewer.addHandler("update-viewport", drawn);
    this.viewer.addHandler("resize", () => requestAnimationFrame(drawn));
    this.viewer.addHandler("canvas-key", (event) => (event.preventDefaultAction = true));
    this.viewer.addHandler("tile-load-failed", (event) => {
      const { tile } = event as unknown as { tile: OpenSeadragon.Tile };
      if (tile.level === 0) this.fail(text("imageError"));
    });
    this.viewer.addHandler("canvas-click", (event) => {
      event.preventDefaultAction = true;
      this.element.focus({ preventScroll: true });
      if (event.quick) events.click(this, this.toImage(event.position.x, event.position.y));
    });
    for (const kind of ["pointerdown", "wheel", "focusin"])
      this.element.addEventListener(kind, () => events.active(this), { passive: true, capture: true });
    this.element.addEventListener("pointermove", (event) => {
      const box = this.host.getBoundingClientRect();
      events.hover(this, this.toImage(event.clientX - box.left, event.clientY - box.top));
    });
    this.element.addEventListener("pointerleave", () => events.hover(this, null));
  }

  /** Show an image; or, without one, the space where it would be. */
  async open(tiles: Tiles, size: [number, number] | null): Promise<void> {
    this.width = tiles.error === null ? tiles.width : (size?.[1] ?? 1);
    this.height = tiles.error === null ? tiles.height : (size?.[0] ?? 1);
    if (tiles.error !== null) this.fail(tiles.error);
    const source = tiles.error === null ? this.tileSource(tiles) : noTiles(this.width, this.height);
    await this.add(source, {});
    this.ready = true;
    this.viewer.viewport.goHome(true);
    this.viewer.forceRedraw();
  }

  /** Put another image over the first one, with the same outer edges. */
  async over(tiles: Tiles, opacity: number): Promise<OpenSeadragon.TiledImage> {
    if (tiles.error !== null) throw new Error(tiles.error);
    return this.add(this.tileSource(tiles), { opacity });
  }

  remove(image: OpenSeadragon.TiledImage): void {
    this.viewer.world.removeItem(image);
  }

  fail(reason: string): void {
    const words = text("imageError");
    this.notice.textContent = reason === words ? words : `${words} ${reason}`;
    this.notice.hidden = false;
  }

  get failed(): boolean {
    return !this.notice.hidden;
  }

  /** Where the pane is on the stage, and what it shows now. */
  frame(stage: HTMLElement): Frame {
    const outer = stage.getBoundingClientRect(), inner = this.host.getBoundingClientRect();
    const bounds = this.viewer.viewport.getBounds(true);
    return {
      left: inner.left - outer.left,
      top: inner.top - outer.top,
      width: inner.width,
      height: inner.height,
      centreX: (bounds.x + bounds.width / 2) * this.width,
      centreY: (bounds.y + bounds.height / 2) * this.width,
      scale: this.frameScale(),
    };
  }

  get view(): View {
    const bounds = this.viewer.viewport.getBounds(true);
    return {
      x: (bounds.x + bounds.width / 2) * this.width - 0.5,
      y: (bounds.y + bounds.height / 2) * this.width - 0.5,
      z: this.frameScale(),
    };
  }

  /** Move at once. */
  set view(to: View) {
    const { viewport } = this.viewer;
    viewport.zoomTo((to.z * this.width) / viewport.getContainerSize().x, undefined, true);
    viewport.panTo(new OpenSeadragon.Point((to.x + 0.5) / this.width, (to.y + 0.5) / this.width), true);
    this.sharpen();
    this.viewer.forceRedraw();
  }

  /** px of the image at a place of the pane, CSS px from its corner. */
  toImage(left: number, top: number): { x: number; y: number } {
    const bounds = this.viewer.viewport.getBounds(true), size = this.viewer.viewport.getContainerSize();
    return {
      x: (bounds.x + (left / size.x) * bounds.width) * this.width - 0.5,
      y: (bounds.y + (top / size.y) * bounds.height) * this.width - 0.5,
    };
  }

  /** Whether a place of the image is in view. */
  contains(x: number, y: number): boolean {
    const bounds = this.viewer.viewport.getBounds(true);
    const [u, v] = [(x + 0.5) / this.width, (y + 0.5) / this.width];
    return u >= bounds.x && u <= bounds.x + bounds.width && v >= bounds.y && v <= bounds.y + bounds.height;
  }

  /** Bring a place into view without changing the zoom. */
  reveal(x: number, y: number): void {
    if (!this.contains(x, y)) this.view = { x, y, z: this.view.z };
  }

  pan(right: number, down: number): void {
    const { x, y, z } = this.view, size = this.viewer.viewport.getContainerSize();
    const step = (STEP_SHARE * Math.min(size.x, size.y)) / z;
    this.view = { x: x + right * step, y: y + down * step, z };
    this.viewer.viewport.applyConstraints(true);
  }

  zoom(steps: number): void {
    this.viewer.viewport.zoomBy(ZOOM_STEP ** steps).applyConstraints();
  }

  home(): void {
    this.viewer.viewport.goHome();
  }

  pixels(): void {
    this.view = { ...this.view, z: PIXEL_ZOOM };
  }

  destroy(): void {
    this.viewer.destroy();
    this.element.remove();
  }

  /** Show pixels as squares where they are large; returns whether that changed. */
  private sharpen(): boolean {
    const smooth = this.frameScale() * window.devicePixelRatio < SMOOTH_BELOW;
    if (smooth === this.smooth) return false;
    this.smooth = smooth;
    (this.viewer.drawer as OpenSeadragon.DrawerBase).setImageSmoothingEnabled(smooth);
    return true;
  }

  private tileSource(tiles: Tiles): unknown {
    const { tile, levels, source } = tiles, last = levels - 1;
    const [width, height] = tiles.shown ?? [tiles.width, tiles.height];
    return {
      width, height, tileSize: tile, tileOverlap: 0, minLevel: 0, maxLevel: last,
      getTileUrl: (level: number, column: number, row: number) =>
        this.data.tile(source, last - level, column, row),
    };
  }

  private allLoaded(): boolean {
    const { world } = this.viewer;
    return Array.from({ length: world.getItemCount() }, (_, i) => world.getItemAt(i)).every((item) => item.getFullyLoaded());
  }

  private frameScale(): number {
    const { viewport } = this.viewer;
    return viewport.getContainerSize().x / (viewport.getBounds(true).width * this.width);
  }

  private add(tileSource: unknown, options: { opacity?: number }): Promise<OpenSeadragon.TiledImage> {
    return new Promise((resolve, reject) => {
      this.viewer.addTiledImage({
        tileSource, x: 0, y: 0, width: 1, ...options,
        success: (event: unknown) => {
          const { item } = event as { item: OpenSeadragon.TiledImage };
          const loaded = (): void => {
            this.element.toggleAttribute("data-loaded", this.allLoaded());
          };
          item.addHandler("fully-loaded-change", loaded);
          loaded();
          resolve(item);
        },
        error: () => reject(new Error(text("imageError"))),
      } as unknown as OpenSeadragon.TileSourceSpecifier);
    });
  }
}

function noTiles(width: number, height: number): unknown {
  return {
    width, height, tileSize: Math.max(width, height), minLevel: 0, maxLevel: 0,
    tileExists: () => false, getTileUrl: () => "",
  };
}
