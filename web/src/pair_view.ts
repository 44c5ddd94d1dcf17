// Two images, their matches, the model between them, and changes by hand.

import type { Item, Pair, Tiles } from "./api";
import { announce, button, digits, facts, make, save, section } from "./dom";
import { byMatches, byPlane, epipolarLine, inverse, transposed, type Linked, type Matrix, type Point } from "./geometry";
import { Grid } from "./grid";
import type { Frame } from "./layer";
import { Overlay, type Mode } from "./overlay";
import { Editing, segments } from "./pair_edit";
import { verdict } from "./pair_panel";
import { MODES, pairControls, PairSettings, type Way } from "./pair_settings";
import { COLUMNS, PairState, State } from "./pair_state";
import type { Pane } from "./pane";
import { Patch } from "./patch";
import { number } from "./permalink";
import { complain, csv, stem } from "./stage";
import { count, text } from "./texts";
import { View, type Host } from "./view";

const FULL_LINES = 120;
const EVERYTHING = { topK: Infinity, minScore: 0, onlyScale: 0 };
const FAINT: [number, number, number, number] = [0.75, 0.78, 0.82, 0.55];

export class PairView extends View {
  readonly title: string;
  private readonly a: Pane;
  private readonly b: Pane;
  private readonly overlay: Overlay;
  private readonly state: PairState;
  private readonly editing: Editing;
  private readonly settings: PairSettings;
  private readonly patches: [Patch, Patch];
  private readonly verdictBox = make("div");
  private grids: [Grid, Grid] | null = null;
  private inliers: { a: Point; b: Point }[] = [];
  /** The place under the pointer, for its epipolar line in the other image. */
  private pointer: { pane: Pane; at: Point } | null = null;

  constructor(
    main: HTMLElement, host: Host, private readonly pair: Pair,
    private readonly items: [Item & Tiles, Item & Tiles], private readonly given: URLSearchParams,
  ) {
    super(main, host);
    const { data } = host;
    this.title = `${stem(pair.a.name)} – ${stem(pair.b.name)}`;
    this.settings = new PairSettings(given);
    this.patches = [new Patch(data), new Patch(data)];
    this.state = new PairState(data, pair.id);
    this.stage.element.classList.add("two");
    this.a = this.addPane("A", `A: ${pair.a.name}`);
    this.b = this.addPane("B", `B: ${pair.b.name}`);
    this.overlay = new Overlay(this.stage, this.a, this.b, data, `${pair.id}-aligned`);
    this.editing = new Editing(this.state, this.panes, this.stage.element, {
      changed: () => this.edited(),
      sideBySide: () => { if (this.overlay.mode !== "side") void this.setMode("side"); },
      fit: () => void this.fit(),
      flip: () => this.flip(),
    });
    this.stage.panel.append(
      make("h1", {}, this.title), this.status, this.verdictBox, this.controls,
      section("edit", this.editing.box),
      section("export", make("div", { class: "buttons" },
        button(text("exportPng"), () => this.savePng()),
        button(text("exportMatches"), () => this.saveCsv()),
        button(text("exportJson"), () => this.saveJson()))),
    );
    this.stage.inspector.append(section("match", this.detail));
    this.shortcuts.push(
      { keys: ["k"], act: () => this.press("unmatched") },
      { keys: ["r"], act: () => this.press("arrows") },
      { keys: ["l"], act: () => this.press("link") },
      { keys: ["m"], act: () => void this.setMode(MODES[(MODES.indexOf(this.overlay.mode) + 1) % 3]!) },
      { keys: ["b"], act: () => void this.blink() },
      { keys: ["x", "Delete"], act: () => this.flip() },
      { keys: ["a"], act: () => this.editing.toggle() },
      { keys: ["Enter"], act: () => this.editing.putCentre() },
      { keys: ["f"], act: () => void this.fit() },
    );
    void this.load();
  }

  override destroy(): void {
    this.overlay.stop();
    super.destroy();
  }

  private async load(): Promise<void> {
    const { items, panes, given } = this;
    const opened = items.map((item, side) => (item.error === null ? panes[side]!.open(item, null) : null));
    try {
      await Promise.all([...opened, this.fit(true)]);
    } catch (error) {
      this.status.textContent = complain(error);
      items.forEach((item, side) => item.error !== null && panes[side]!.fail(item.error));
      return;
    }
    for (const side of [0, 1] as const)
      if (opened[side] === null) await panes[side].open(items[side], this.state.meta.size_hw[side]);
    if (this.closed) return;
    this.stage.active = this.a;
    this.follow(this.a);
    if (given.has("z"))
      this.a.view = { x: number(given, "x", 0), y: number(given, "y", 0), z: number(given, "z", 1) };
    const index = number(given, "sel", -1);
    if (index >= 0 && index < this.count) this.select(index, true);
    const mode = given.get("mode") as Mode | null;
    if (mode !== null && MODES.includes(mode)) await this.setMode(mode);
  }

  private get panes(): [Pane, Pane] {
    return [this.a, this.b];
  }

  private get matrix(): Matrix | null {
    const { meta } = this.state;
    return this.grids !== null && meta.is_plane ? meta.matrix : null;
  }

  private get way(): Way {
    if (this.matrix !== null) return "plane";
    return byMatches(this.inliers.map(({ a, b }) => ({ from: a, to: b })), { x: 0, y: 0 }) === null ? "none" : "matches";
  }

  /** Register, first or with changes by hand. */
  private async fit(first = false): Promise<void> {
    const { state } = this;
    this.status.textContent = text("fitting");
    if (!first) state.settleAdded();
    const old = first ? [] : [...state.points, state.matches];
    try {
      await state.fit();
    } catch (error) {
      if (first) throw error;
      this.status.textContent = complain(error);
      return;
    }
    if (this.closed) return;
    for (const set of old) this.stage.layer.drop(set);
    this.selected = this.hovered = -1;
    const { values } = state.matches.table;
    this.grids = [new Grid(values, COLUMNS, 0), new Grid(values, COLUMNS, 2)];
    this.inliers = Array.from({ length: this.count }, (_, i) => state.at(i)).filter((one) => one.state === State.Inlier)
      .map(({ xa, ya, xb, yb }) => ({ a: { x: xa, y: ya }, b: { x: xb, y: yb } }));
    this.status.textContent = "";
    this.verdictBox.replaceChildren(verdict(state.meta, state.fitted));
    this.controls.replaceChildren(pairControls(this.settings, this.overlay.mode, this.way, state.meta.fundamental !== null, {
      changed: () => this.changed(),
      linked: () => {
        this.follow(this.stage.active ?? this.a);
        this.changed();
      },
      mode: (mode) => void this.setMode(mode),
      named: (...control) => this.named(...control),
    }));
    this.describe(-1);
    this.edited();
    const { success, reason, inliers, matches } = state.meta;
    announce(`${text(success ? "registered" : "notRegistered")}. ${success ? `${text("inliers")} ${inliers}/${matches}` : reason}`);
  }

  private changed(): void {
    this.stage.layer.request();
    this.remember();
  }

  private edited(): void {
    this.editing.show(this.selected);
    this.stage.layer.request();
  }

  private async setMode(mode: Mode): Promise<void> {
    if (this.matrix === null && mode !== "side") return;
    try {
      await this.overlay.set(mode);
    } catch (error) {
      this.status.textContent = complain(error);
    }
    if (this.closed) return;
    const select = this.controls.querySelector<HTMLSelectElement>('select[data-key="mode"]');
    if (select !== null) select.value = this.overlay.mode;
    this.stage.active = this.overlay.mode === "side" ? this.a : this.b;
    announce(`${text("mode")}: ${text(this.overlay.mode)}`);
    this.changed();
  }

  private async blink(): Promise<void> {
    if (this.overlay.mode !== "blink") await this.setMode("blink");
    else this.overlay.flip();
  }

  protected override drawn(pane: Pane): void {
    if (pane === (this.stage.active ?? this.a)) this.follow(pane);
    super.drawn(pane);
  }

  /** Move the other pane to the same part of the scene. */
  private follow(pane: Pane): void {
    if (!this.settings.link || this.overlay.mode !== "side") return;
    const other = pane === this.a ? this.b : this.a, to = this.linked(pane);
    if (to !== null) other.view = { x: to.x, y: to.y, z: pane.view.z / to.zoom };
  }

  /** Where the middle of a pane is in the other image. */
  private linked(pane: Pane): Linked | null {
    const forward = pane === this.a, { matrix } = this;
    if (matrix !== null) return byPlane(forward ? matrix : inverse(matrix), pane.view);
    return byMatches(this.inliers.map(({ a, b }) => (forward ? { from: a, to: b } : { from: b, to: a })), pane.view);
  }

  protected draw(): void {
    if (this.grids === null) return;
    const { settings, marked } = this, { layer, element } = this.stage, { matches, points } = this.state;
    const [a, b] = this.panes.map((pane) => (pane.element.hidden ? null : pane.frame(element))) as [Frame | null, Frame | null];
    const sides = [a, b].flatMap((frame, side) => (frame === null ? [] : [{ frame, side: side as 0 | 1 }]));
    if (settings.unmatched) for (const { frame, side } of sides) layer.drawPoints(points[side], frame, EVERYTHING, 1.5, FAINT);
    if (settings.lines && a !== null && b !== null)
      layer.drawLines(matches, a, b, settings.show, marked, Math.max(0.15, Math.min(1, FULL_LINES / matches.count)));
    if (settings.arrows && b !== null) layer.drawArrows(matches, b, settings.show, marked, settings.arrowFactor);
    for (const { frame, side } of sides) {
      const radius = Math.min(matches.count > FULL_LINES ? 2.5 : 4, frame.width / 160);
      layer.drawEnds(matches, frame, side, settings.show, marked, radius);
      this.editing.draw(layer, frame, side);
    }
    if (a !== null && b !== null) this.drawEpipolar(a, b);
  }

  /** The epipolar line in the other image: of the match or the place under the pointer, or of the
   * selected match. */
  private drawEpipolar(a: Frame, b: Frame): void {
    const { fundamental } = this.state.meta, { pointer } = this;
    const index = pointer === null ? this.selected : this.hovered;
    if (fundamental === null || (pointer === null && index < 0)) return;
    const inA = pointer?.pane !== this.b, other = inA ? this.b : this.a;
    const match = index < 0 ? null : this.state.at(index);
    const at = match === null ? pointer!.at : inA ? { x: match.xa, y: match.ya } : { x: match.xb, y: match.yb };
    const ends = epipolarLine(inA ? fundamental : transposed(fundamental), at, other.width, other.height);
    if (ends === null) return;
    const set = segments([ends]), frame = inA ? b : a;
    this.stage.layer.drawLines(set, frame, frame, 0, 0, 1);
    this.stage.layer.drop(set);
  }

  protected get count(): number {
    return this.grids === null ? 0 : this.state.matches.count;
  }

  protected get fileName(): string {
    return this.title.replace(" – ", "-");
  }

  protected isVisible(index: number): boolean {
    return this.settings.passes(this.state.at(index).state);
  }

  protected find(pane: Pane, at: Point, within: number): number {
    const grid = this.grids?.[pane === this.a ? 0 : 1];
    if (grid === undefined || this.editing.isAdding) return -1;
    return grid.nearest(at.x, at.y, within, (i) => this.isVisible(i));
  }

  protected override hover(pane: Pane, at: Point | null): void {
    this.pointer = at === null ? null : { pane, at };
    super.hover(pane, at);
    if (this.grids !== null && this.state.meta.fundamental !== null) this.stage.layer.request();
  }

  protected override click(pane: Pane, at: Point): void {
    if (this.editing.isAdding) this.editing.put(pane, at);
    else super.click(pane, at);
  }

  protected override select(index: number, reveal: boolean): void {
    this.hovered = -1;
    super.select(index, reveal);
    this.editing.show(index);
  }

  protected reveal(index: number): void {
    const { xa, ya, xb, yb } = this.state.at(index), side = this.overlay.mode === "side";
    this.stage.active = side ? this.a : this.b;
    if (side) this.a.reveal(xa, ya);
    if (!this.settings.link || !side) this.b.reveal(xb, yb);
  }

  protected name(index: number): void {
    announce(text("matchNamed", { n: count(index + 1), state: this.state.words(index) }));
  }

  protected override escape(): void {
    if (this.editing.isAdding) this.editing.toggle();
    else super.escape();
  }

  protected describe(index: number): void {
    this.forget();
    if (index < 0) {
      this.detail.replaceChildren(make("p", { class: "hint" }, text("matchHint")));
      return;
    }
    const { xa, ya, xb, yb, score, dx, dy, origin } = this.state.at(index);
    void this.patches[0].show(this.pair.a.id, xa, ya, null);
    void this.patches[1].show(this.pair.b.id, xb, yb, null);
    this.detail.replaceChildren(
      make("div", { class: "patches" }, this.patches[0].element, this.patches[1].element),
      facts([
        [text("rank"), count(index + 1)],
        [text("state"), this.state.words(index)],
        [text("inA"), `${digits(xa, 2)}, ${digits(ya, 2)}`],
        [text("inB"), `${digits(xb, 2)}, ${digits(yb, 2)}`],
        [text("residual"), Number.isNaN(dx) ? text("unknown") : `${dx.toFixed(2)}, ${dy.toFixed(2)} px`],
        [text("score"), digits(score, 4)],
      ]),
      this.nearBox,
    );
    if (origin >= 0)
      this.askNearest((signal) => this.host.data.nearestInPair(this.pair.id, "a", this.state.keypoint(index), signal));
  }

  private flip(): void {
    if (this.selected < 0) return;
    this.state.flip(this.selected);
    this.stage.layer.flagsChanged(this.state.matches);
    announce(this.state.words(this.selected));
    this.describe(this.selected);
    this.edited();
  }

  protected saveCsv(): void {
    const rows: (number | string)[][] = [], side = this.overlay.mode === "side";
    for (let i = 0; i < this.count; i++) {
      const { xa, ya, xb, yb, score, state, dx, dy } = this.state.at(i);
      const inView = (side && this.a.contains(xa, ya)) || this.b.contains(xb, yb);
      if (!this.isVisible(i) || !inView) continue;
      const name = this.state.isRemoved(i) ? "removed" : ["inlier", "far", "no place", "no model"][state]!;
      rows.push([i, xa, ya, xb, yb, score, name, dx, dy]);
    }
    const header = ["index", "x_a", "y_a", "x_b", "y_b", "score", "state", "residual_x", "residual_y"];
    if (this.grids !== null) save(`${this.fileName}-matches.csv`, csv(header, rows));
  }

  private saveJson(): void {
    const { differs_px: _, recorded_success: __, a: ___, b: ____, ...summary } = this.state.meta;
    const content = JSON.stringify({ a: this.pair.a.name, b: this.pair.b.name, ...summary }, null, 2);
    save(`${this.fileName}.json`, new Blob([content, "\n"], { type: "application/json" }));
  }

  protected values(): Record<string, string> | null {
    if (this.grids === null) return null;
    const { x, y, z } = this.a.view;
    return {
      x: x.toFixed(2), y: y.toFixed(2), z: z.toPrecision(4),
      ...(this.overlay.mode !== "side" ? { mode: this.overlay.mode } : {}),
      ...this.settings.values(),
      ...(this.selected >= 0 ? { sel: String(this.selected) } : {}),
    };
  }
}
