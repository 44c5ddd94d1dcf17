// One image with its keypoints, their filters, the heat map, and the point under the pointer.

import { api, type Item, type Near, type PointsMeta, type Tiles } from "./api";
import {
  announce, button, choice, debounced, digits, facts, make, save, section, slider, toggle,
  type Slider,
} from "./dom";
import { Grid } from "./grid";
import { PointSet } from "./layer";
import type { Pane } from "./pane";
import { Patch } from "./patch";
import { link, number, remember, type Place } from "./permalink";
import { base, complain, csv, Stage, stem, type Screen, type Shortcut } from "./stage";
import { count, text } from "./texts";

const STEPS = 1000;
const COLUMNS = 7;
const REACH_PX = 12;
const LEAST_RADIUS = 1, FAINT_RADIUS = 1.5, MOST_RADIUS = 10;

export class ImageView implements Screen {
  readonly title: string;
  readonly shortcuts: Shortcut[];
  private readonly stage: Stage;
  private readonly pane: Pane;
  private set: PointSet | null = null;
  private grid: Grid | null = null;
  private meta: PointsMeta | null = null;
  private selected = -1;
  private hovered = -1;
  private minScore: number;
  private topK: number;
  private nms: number | null;
  private onlyScale: number;
  private ellipses: boolean;
  private factor: number;
  private radius: number;
  private pointsOn: boolean;
  private heatOn: boolean;
  private heatOpacity: number;
  private heat: OpenSeadragon.TiledImage | null = null;
  private readonly status = make("p", { class: "status", role: "status" });
  private readonly hint = make("p", { class: "hint", hidden: true });
  private readonly controls = make("div");
  private readonly pointBox = make("div");
  private readonly nearBox = make("div", { class: "near" });
  private readonly patch = new Patch();
  private asked = new AbortController();
  private closed = false;

  constructor(main: HTMLElement, private readonly item: Item & Tiles, private readonly place: Place) {
    this.title = base(item.name);
    const { values } = place;
    this.minScore = number(values, "s", 0);
    this.topK = number(values, "k", Infinity);
    this.nms = values.has("nms") ? number(values, "nms", 4) : null;
    this.onlyScale = number(values, "sc", 0);
    this.ellipses = values.get("e") === "1";
    this.factor = number(values, "ef", 3);
    this.radius = number(values, "r", 0);
    this.pointsOn = values.get("p") !== "0";
    this.heatOn = values.get("h") === "1";
    this.heatOpacity = number(values, "ho", 0.7);
    this.stage = new Stage(main);
    this.pane = this.stage.addPane("", `${item.name}. ${text("stage")}`, {
      drawn: () => {
        this.stage.layer.draw();
        this.remember();
      },
      active: () => undefined,
      hover: (_, at) => this.hover(at),
      click: (_, at) => this.select(this.find(at), false),
    });
    this.stage.layer.onDraw = () => this.draw();
    this.stage.panel.append(
      make("h1", { title: item.name }, base(item.name)),
      section("keypoints", this.status, this.controls),
      section("export",
        make("div", { class: "buttons" },
          button(text("exportPng"), () => this.savePng()),
          button(text("exportCsv"), () => this.saveCsv()))),
    );
    this.stage.inspector.append(section("point", this.pointBox));
    this.shortcuts = [
      ...this.stage.shortcuts(),
      { keys: ["n"], act: () => this.step(1) },
      { keys: ["p"], act: () => this.step(-1) },
      { keys: ["e"], act: () => this.press("ellipses") },
      { keys: ["h"], act: () => this.press("heat") },
      { keys: ["k"], act: () => this.press("points") },
      { keys: ["s"], act: () => this.savePng() },
      { keys: ["c"], act: () => this.saveCsv() },
      { keys: ["Escape"], act: () => this.select(-1, false) },
    ];
    void this.load();
  }

  destroy(): void {
    this.closed = true;
    this.asked.abort();
    this.stage.destroy();
  }

  private async load(): Promise<void> {
    this.status.textContent = text(this.item.stored ? "loading" : "detecting");
    this.showPoint(-1);
    const opened = this.item.error === null ? this.pane.open(this.item, null) : null;
    try {
      await Promise.all([opened, this.detect(false)]);
      if (this.closed) return;
      if (opened === null) await this.pane.open(this.item, this.meta!.size_hw);
    } catch (error) {
      this.status.textContent = complain(error);
      if (opened === null) this.pane.fail(this.item.error!);
      return;
    }
    const { values } = this.place;
    if (values.has("z"))
      this.pane.view = { x: number(values, "x", 0), y: number(values, "y", 0), z: number(values, "z", 1) };
    if (this.heatOn) await this.showHeat();
    const index = number(values, "sel", -1);
    if (index >= 0 && index < (this.set?.count ?? 0)) this.select(index, true);
  }

  /** Ask for the keypoints; `again` after a change of the NMS radius. */
  private async detect(again: boolean): Promise<void> {
    const asked = this.nms;
    this.status.textContent = text(this.item.stored && asked === null ? "loading" : "detecting");
    const { meta, arrays } = await api.points(this.item.id, asked);
    if (this.closed || asked !== this.nms) return;
    const all = again && this.topK >= (this.set?.count ?? 0);
    this.stage.layer.drop(this.set);
    this.set = new PointSet(arrays["points"]!);
    this.grid = new Grid(this.set.table.values, COLUMNS);
    this.meta = meta;
    this.selected = this.hovered = -1;
    this.topK = all ? this.set.count : Math.min(this.topK, this.set.count);
    this.buildControls();
    this.changed();
    announce(text("keypointsCount", { n: count(this.set.count) }));
  }

  private buildControls(): void {
    const set = this.set!, meta = this.meta!;
    const [low, high] = set.range;
    const toScore = (v: number): number => low + (high - low) * (v / STEPS) ** 2;
    const fromScore = (s: number): number => STEPS * Math.sqrt(Math.max(0, (s - low) / (high - low || 1)));
    const toCount = (v: number): number => Math.round(Math.max(set.count, 1) ** (v / STEPS));
    const fromCount = (n: number): number =>
      set.count > 1 ? (STEPS * Math.log(Math.max(n, 1))) / Math.log(set.count) : STEPS;
    const scales = [...new Set(this.column(3).filter((s) => s > 0).map((s) => Number(s.toPrecision(6))))].sort((a, b) => a - b);
    const bar = (key: "minScore" | "topK", value: number, words: (v: number) => string, change: (v: number) => void): Slider =>
      slider(key, { min: 0, max: STEPS, step: 1, value }, words, (v) => {
        change(v);
        this.changed();
      });
    const nms = this.nms ?? meta.nms_radius ?? 4;
    const again = debounced(350, (value: number) => void this.setNms(value));
    const radius = this.radius || this.autoRadius();
    this.controls.replaceChildren(
      bar("minScore", fromScore(this.minScore), (v) => toScore(v).toFixed(4), (v) => (this.minScore = v === 0 ? 0 : toScore(v))).row,
      bar("topK", fromCount(Math.min(this.topK, set.count)), (v) => count(toCount(v)), (v) => (this.topK = toCount(v))).row,
      slider("nms", { min: 0, max: 32, step: 1, value: nms }, (v) => `${v} px`, again).row,
      scales.length > 1
        ? choice("scaleFilter", [["0", text("allScales")], ...scales.map((s): [string, string] => [String(s), text("scaleOption", { n: s.toFixed(2) })])],
            String(this.onlyScale), (value) => { this.onlyScale = Number(value); this.changed(); }).row
        : make("span"),
      this.legend(low, high),
      slider("pointSize", { min: LEAST_RADIUS, max: MOST_RADIUS, step: 0.5, value: radius }, (v) => `${v} px`, (v) => { this.radius = v; this.changed(); }).row,
      this.named("points", toggle("points", this.pointsOn, (on) => { this.pointsOn = on; this.changed(); })),
      this.named("ellipses", toggle("ellipses", this.ellipses && set.sd > 0, (on) => { this.ellipses = on; this.changed(); }), set.sd === 0),
      slider("ellipseFactor", { min: 1, max: 20, step: 1, value: this.factor }, (v) => `${v} σ`, (v) => { this.factor = v; this.changed(); }).row,
      this.hint,
      this.named("heat", toggle("heat", this.heatOn, (on) => { this.heatOn = on; void this.showHeat(); })),
      slider("heatOpacity", { min: 0, max: 100, step: 5, value: 100 * this.heatOpacity }, (v) => `${v} %`, (v) => {
        this.heatOpacity = v / 100;
        this.heat?.setOpacity(this.heatOpacity);
        this.remember();
      }).row,
      facts([
        [text("size"), `${meta.size_hw[1]} × ${meta.size_hw[0]} px`],
        [text("checkpoint"), `${meta.checkpoint ?? text("unknown")}, ${text(this.item.stored && this.nms === null ? "stored" : "detected")}`],
      ]),
    );
  }

  private named(name: string, made: { row: HTMLElement; input: HTMLInputElement }, disabled = false): HTMLElement {
    made.input.dataset["key"] = name;
    made.input.disabled = disabled;
    return made.row;
  }

  private press(name: string): void {
    this.controls.querySelector<HTMLInputElement>(`input[data-key="${name}"]`)?.click();
  }

  private legend(low: number, high: number): HTMLElement {
    return make("div", { class: "legend" }, make("span", {}, digits(low, 3)), make("span", { class: "ramp", "aria-hidden": "true" }), make("span", {}, digits(high, 3)));
  }

  private async setNms(value: number): Promise<void> {
    this.nms = value;
    try {
      await this.detect(true);
    } catch (error) {
      this.status.textContent = complain(error);
    }
  }

  private async showHeat(): Promise<void> {
    this.remember();
    if (!this.heatOn) {
      if (this.heat !== null) this.pane.remove(this.heat);
      this.heat = null;
      return;
    }
    if (this.heat !== null) return;
    try {
      const tiles = await api.source(`${this.item.id}-heat`);
      if (this.closed || !this.heatOn) return;
      this.heat = await this.pane.over(tiles, this.heatOpacity);
    } catch (error) {
      this.status.textContent = complain(error);
    }
  }

  /** A filter or a setting is another one. */
  private changed(): void {
    const set = this.set;
    if (set === null) return;
    this.status.textContent = text("shown", { n: count(this.visibleCount()), total: count(set.count) });
    this.hint.hidden = set.sd > 0 && !(this.ellipses && this.tooSmall());
    this.hint.textContent = text(set.sd > 0 ? "ellipsesFar" : "noCovariance");
    this.stage.layer.request();
    this.remember();
  }

  private draw(): void {
    const { set } = this;
    if (set === null) return;
    const frame = this.pane.frame(this.stage.element);
    const filter = { topK: this.topK, minScore: this.minScore, onlyScale: this.onlyScale };
    const small = this.tooSmall();
    if (set.sd > 0 && this.hint.hidden === (this.ellipses && small)) this.hint.hidden = !(this.ellipses && small);
    if (this.ellipses && !small) this.stage.layer.drawEllipses(set, frame, filter, this.factor);
    if (this.pointsOn) {
      const marked = this.hovered >= 0 ? this.hovered : this.selected;
      this.stage.layer.drawPoints(set, frame, filter, this.radius || this.autoRadius(), undefined, marked);
    }
  }

  /** Whether ellipses would be smaller than a pixel of the screen. */
  private tooSmall(): boolean {
    return this.set === null || this.set.sd * this.factor * this.pane.view.z < 1;
  }

  private autoRadius(): number {
    const n = this.set?.count ?? 0;
    return n > 200_000 ? LEAST_RADIUS : n > 50_000 ? FAINT_RADIUS : n > 5_000 ? 2.5 : 4;
  }

  private isVisible(i: number): boolean {
    const values = this.set!.table.values, scale = values[i * COLUMNS + 3]!;
    return (
      i < this.topK && values[i * COLUMNS + 2]! >= this.minScore &&
      !(this.onlyScale > 0 && Math.abs(scale - this.onlyScale) > 1e-4 * this.onlyScale)
    );
  }

  private visibleCount(): number {
    let n = 0;
    const most = Math.min(this.topK, this.set!.count);
    for (let i = 0; i < most; i++) if (this.isVisible(i)) n++;
    return n;
  }

  private column(at: number): number[] {
    const { values } = this.set!.table, out: number[] = [];
    const step = Math.max(1, Math.floor(this.set!.count / 20_000));
    for (let i = at; i < values.length; i += COLUMNS * step) out.push(values[i]!);
    return out;
  }

  private find(at: { x: number; y: number }): number {
    if (this.grid === null) return -1;
    return this.grid.nearest(at.x, at.y, REACH_PX / this.pane.view.z, (i) => this.isVisible(i));
  }

  private hover(at: { x: number; y: number } | null): void {
    const found = at === null || !this.pointsOn ? -1 : this.find(at);
    if (found === this.hovered) return;
    this.hovered = found;
    this.showPoint(found >= 0 ? found : this.selected);
    this.stage.layer.request();
  }

  private select(index: number, reveal: boolean): void {
    this.selected = index;
    if (index >= 0 && reveal) {
      const [x, y] = this.at(index);
      this.pane.reveal(x, y);
    }
    this.showPoint(index);
    if (index >= 0) {
      const [x, y, s] = this.at(index);
      announce(text("pointNamed", { n: count(index + 1), x: x.toFixed(2), y: y.toFixed(2), s: s.toFixed(4) }));
    }
    this.stage.layer.request();
    this.remember();
  }

  private step(by: 1 | -1): void {
    const n = this.set?.count ?? 0;
    for (let tries = 0, i = this.selected; tries < n; tries++) {
      i = i < 0 ? (by > 0 ? 0 : n - 1) : (i + by + n) % n;
      if (this.isVisible(i)) return this.select(i, true);
    }
  }

  private at(index: number): number[] {
    return Array.from(this.set!.table.values.subarray(index * COLUMNS, (index + 1) * COLUMNS));
  }

  private showPoint(index: number): void {
    this.asked.abort();
    if (index < 0) {
      this.patch.clear();
      this.pointBox.replaceChildren(make("p", { class: "hint" }, text("pointHint")));
      return;
    }
    const [x = 0, y = 0, score = 0, scale = NaN, xx = NaN, xy = NaN, yy = NaN] = this.at(index);
    const known = xx > 0;
    void this.patch.show(this.item.id, x, y, known ? [xx, xy, yy] : null);
    this.nearBox.replaceChildren();
    this.pointBox.replaceChildren(
      make("div", { class: "point" }, this.patch.element, facts([
        [text("rank"), count(index + 1)],
        ["x", digits(x, 2)],
        ["y", digits(y, 2)],
        [text("score"), digits(score, 4)],
        [text("scale"), `${digits(scale, 2)} px`],
        [text("sd"), known ? `${Math.sqrt(xx).toFixed(2)}, ${Math.sqrt(yy).toFixed(2)} px` : text("unknown")],
      ])),
      this.nearBox,
    );
    if (this.meta?.described) this.askNearest(index);
  }

  private readonly askNearest = debounced(180, (index: number) => {
    if (this.closed) return;
    this.asked = new AbortController();
    api.nearest(this.item.id, index, this.nms, this.asked.signal).then(
      (near) => this.nearBox.replaceChildren(nearList(near)),
      () => undefined, // another point was asked for
    );
  });

  private saveCsv(): void {
    if (this.set === null) return;
    const rows: number[][] = [];
    for (let i = 0; i < this.set.count; i++) {
      const row = this.at(i);
      if (this.isVisible(i) && this.pane.contains(row[0]!, row[1]!)) rows.push([i, ...row]);
    }
    const header = ["index", "x", "y", "score", "scale_px", "cov_xx", "cov_xy", "cov_yy"];
    save(`${stem(this.item.name)}-points.csv`, csv(header, rows));
  }

  private savePng(): void {
    this.stage.savePng(`${stem(this.item.name)}-view.png`);
  }

  private remember(): void {
    if (this.closed || this.set === null) return;
    const { x, y, z } = this.pane.view;
    remember("image", this.item.id, {
      x: x.toFixed(2), y: y.toFixed(2), z: z.toPrecision(4),
      ...(this.minScore > 0 ? { s: this.minScore.toPrecision(4) } : {}),
      ...(this.topK < this.set.count ? { k: String(this.topK) } : {}),
      ...(this.nms !== null ? { nms: String(this.nms) } : {}),
      ...(this.onlyScale > 0 ? { sc: String(this.onlyScale) } : {}),
      ...(this.ellipses ? { e: "1", ef: String(this.factor) } : {}),
      ...(this.radius ? { r: String(this.radius) } : {}),
      ...(this.pointsOn ? {} : { p: "0" }),
      ...(this.heatOn ? { h: "1", ho: String(this.heatOpacity) } : {}),
      ...(this.selected >= 0 ? { sel: String(this.selected) } : {}),
    });
  }
}

/** The most similar keypoints of other images, as links to them. */
export function nearList(near: Near[]): HTMLElement {
  const list = make("ul");
  for (const one of near) {
    const to = link("image", one.image, { x: one.x.toFixed(2), y: one.y.toFixed(2), z: "8", sel: String(one.row) });
    const patch = make("img", { src: api.patch(one.image, one.x, one.y), alt: "", width: "33", height: "33" });
    const words = `${stem(one.name)} (${one.x.toFixed(1)}, ${one.y.toFixed(1)})`;
    list.append(make("li", {}, make("a", { href: to }, patch, make("span", {}, words), make("span", { class: "muted" }, text("cosine", { n: one.cosine.toFixed(3) })))));
  }
  return make("div", {}, make("h3", {}, text("nearest")), near.length ? list : make("p", { class: "hint" }, text("nearestNone")));
}
