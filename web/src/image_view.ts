// One image with its keypoints, the heat map, and the point under the pointer.

import type { Item, PointsMeta, Tiles } from "./api";
import { announce, button, digits, facts, make, save, section } from "./dom";
import type { Point } from "./geometry";
import { Grid } from "./grid";
import { COLUMNS, imageControls, ImageSettings } from "./image_settings";
import { PointSet } from "./layer";
import type { Pane } from "./pane";
import { Patch } from "./patch";
import { number } from "./permalink";
import { base, complain, csv, stem } from "./stage";
import { count, text } from "./texts";
import { View, type Host } from "./view";

export class ImageView extends View {
  readonly title: string;
  private readonly pane: Pane;
  private readonly settings: ImageSettings;
  private readonly patch: Patch;
  private set: PointSet | null = null;
  private grid: Grid | null = null;
  private meta: PointsMeta | null = null;
  private heat: OpenSeadragon.TiledImage | null = null;
  private readonly hint = make("p", { class: "hint", hidden: true });

  constructor(main: HTMLElement, host: Host, private readonly item: Item & Tiles, private readonly given: URLSearchParams) {
    super(main, host);
    this.title = base(item.name);
    this.settings = new ImageSettings(given);
    this.patch = new Patch(host.data);
    this.pane = this.addPane("", item.name);
    this.stage.panel.append(
      make("h1", { title: item.name }, base(item.name)),
      section("keypoints", this.status, this.controls),
      section("export",
        make("div", { class: "buttons" },
          button(text("exportPng"), () => this.savePng()),
          button(text("exportCsv"), () => this.saveCsv()))),
    );
    this.stage.inspector.append(section("point", this.detail));
    this.shortcuts.push(
      { keys: ["e"], act: () => this.press("ellipses") },
      { keys: ["h"], act: () => this.press("heat") },
      { keys: ["k"], act: () => this.press("points") },
    );
    void this.load();
  }

  private async load(): Promise<void> {
    this.describe(-1);
    const { item } = this;
    const opened = item.error === null ? this.pane.open(item, null) : null;
    try {
      await Promise.all([opened, this.inTiles ? this.offer() : this.detect()]);
      if (this.closed) return;
      if (opened === null) await this.pane.open(item, this.meta!.size_hw);
    } catch (error) {
      this.status.textContent = complain(error);
      if (opened === null) this.pane.fail(item.error!);
      return;
    }
    const { given } = this;
    if (given.has("z"))
      this.pane.view = { x: number(given, "x", 0), y: number(given, "y", 0), z: number(given, "z", 1) };
    if (this.settings.heat) await this.showHeat();
    const index = number(given, "sel", -1);
    if (index >= 0 && index < this.count) this.select(index, true);
  }

  /** Whether the keypoints are detected in tiles, which takes long, and nobody has asked yet. */
  private get inTiles(): boolean {
    return this.item.windowed === true && !this.item.stored && this.item.count === null;
  }

  /** Offer to detect in tiles. */
  private offer(): void {
    this.status.textContent = text("notDetected");
    const start = button(text("detectTiled"), () => {
      this.controls.replaceChildren();
      this.detect({ tiled: true }).catch((error: unknown) => {
        this.status.textContent = complain(error);
        this.controls.replaceChildren(start);
      });
    }, { class: "primary" });
    this.controls.replaceChildren(make("p", { class: "hint" }, text("detectTiledHint")), start);
  }

  /** Ask for the keypoints; `again` after a change of the NMS radius. */
  private async detect({ again = false, tiled = false } = {}): Promise<void> {
    const { settings } = this, asked = settings.nms;
    this.status.textContent = text(this.item.stored && asked === null ? "loading" : "detecting");
    const { meta, arrays } = await this.host.data.points(this.item.id, asked, tiled);
    if (this.closed || asked !== settings.nms) return;
    const all = again && settings.topK >= this.count;
    this.stage.layer.drop(this.set);
    this.set = new PointSet(arrays["points"]!);
    this.grid = new Grid(this.set.table.values, COLUMNS);
    this.meta = meta;
    this.selected = this.hovered = -1;
    settings.topK = all ? this.set.count : Math.min(settings.topK, this.set.count);
    const { item } = this, changed = (): void => this.changed();
    this.controls.replaceChildren(...imageControls(
      settings, this.set, meta, text(item.stored && asked === null ? "stored" : "detected"), this.hint, {
        changed,
        nms: item.windowed ? null : (radius) => void this.setNms(radius),
        heat: () => void this.showHeat(),
        opacity: () => {
          this.heat?.setOpacity(settings.heatOpacity);
          this.remember();
        },
        named: (...control) => this.named(...control),
      }));
    this.changed();
    announce(text("keypointsCount", { n: count(this.set.count) }));
  }

  private async setNms(value: number): Promise<void> {
    this.settings.nms = value;
    try {
      await this.detect({ again: true });
    } catch (error) {
      this.status.textContent = complain(error);
    }
  }

  private async showHeat(): Promise<void> {
    this.remember();
    if (!this.settings.heat) {
      if (this.heat !== null) this.pane.remove(this.heat);
      this.heat = null;
      return;
    }
    if (this.heat !== null) return;
    try {
      const tiles = await this.host.data.source(`${this.item.id}-heat`);
      if (this.closed || !this.settings.heat) return;
      this.heat = await this.pane.over(tiles, this.settings.heatOpacity);
    } catch (error) {
      this.status.textContent = complain(error);
    }
  }

  /** A filter or a setting is another one. */
  private changed(): void {
    const { set, settings } = this;
    if (set === null) return;
    this.status.textContent = text("shown", { n: count(settings.passing(set)), total: count(set.count) });
    this.hint.hidden = set.sd > 0 && !(settings.ellipses && this.tooSmall());
    this.hint.textContent = text(set.sd > 0 ? "ellipsesFar" : "noCovariance");
    this.stage.layer.request();
    this.remember();
  }

  protected draw(): void {
    const { set, settings } = this;
    if (set === null) return;
    const frame = this.pane.frame(this.stage.element), small = this.tooSmall();
    if (set.sd > 0 && this.hint.hidden === (settings.ellipses && small)) this.hint.hidden = !(settings.ellipses && small);
    if (settings.ellipses && !small) this.stage.layer.drawEllipses(set, frame, settings, settings.factor);
    if (settings.points)
      this.stage.layer.drawPoints(set, frame, settings, settings.radiusOf(set.count), undefined, this.marked);
  }

  /** Whether ellipses would be smaller than a pixel of the screen. */
  private tooSmall(): boolean {
    return this.set === null || this.set.sd * this.settings.factor * this.pane.view.z < 1;
  }

  protected get count(): number {
    return this.set?.count ?? 0;
  }

  protected get fileName(): string {
    return stem(this.item.name);
  }

  protected isVisible(index: number): boolean {
    return this.settings.passes(this.set!, index);
  }

  protected find(_: Pane, at: Point, within: number): number {
    if (this.grid === null || !this.settings.points) return -1;
    return this.grid.nearest(at.x, at.y, within, (i) => this.isVisible(i));
  }

  protected reveal(index: number): void {
    const [x, y] = this.at(index);
    this.pane.reveal(x!, y!);
  }

  protected name(index: number): void {
    const [x, y, s] = this.at(index);
    announce(text("pointNamed", { n: count(index + 1), x: x!.toFixed(2), y: y!.toFixed(2), s: s!.toFixed(4) }));
  }

  private at(index: number): number[] {
    return Array.from(this.set!.table.values.subarray(index * COLUMNS, (index + 1) * COLUMNS));
  }

  protected describe(index: number): void {
    this.forget();
    if (index < 0) {
      this.patch.clear();
      this.detail.replaceChildren(make("p", { class: "hint" }, text("pointHint")));
      return;
    }
    const [x = 0, y = 0, score = 0, scale = NaN, xx = NaN, xy = NaN, yy = NaN] = this.at(index);
    const known = xx > 0;
    void this.patch.show(this.item.id, x, y, known ? [xx, xy, yy] : null);
    this.detail.replaceChildren(
      make("div", { class: "point" }, this.patch.element, facts([
        ["x", digits(x, 2)],
        ["y", digits(y, 2)],
        [text("score"), digits(score, 4)],
        [text("rank"), count(index + 1)],
        [text("scale"), `${digits(scale, 2)} px`],
        [text("sd"), known ? `${Math.sqrt(xx).toFixed(2)}, ${Math.sqrt(yy).toFixed(2)}` : text("unknown")],
      ])),
      this.nearBox,
    );
    if (this.meta?.described)
      this.askNearest((signal) => this.host.data.nearest(this.item.id, index, this.settings.nms, signal));
  }

  protected saveCsv(): void {
    if (this.set === null) return;
    const rows: number[][] = [];
    for (let i = 0; i < this.set.count; i++) {
      const row = this.at(i);
      if (this.isVisible(i) && this.pane.contains(row[0]!, row[1]!)) rows.push([i, ...row]);
    }
    const header = ["index", "x", "y", "score", "scale_px", "cov_xx", "cov_xy", "cov_yy"];
    save(`${this.fileName}-points.csv`, csv(header, rows));
  }

  protected values(): Record<string, string> | null {
    if (this.set === null && !this.inTiles) return null;
    const { x, y, z } = this.pane.view;
    return {
      x: x.toFixed(2), y: y.toFixed(2), z: z.toPrecision(4),
      ...this.settings.values(this.set?.count ?? Infinity),
      ...(this.selected >= 0 ? { sel: String(this.selected) } : {}),
    };
  }
}
