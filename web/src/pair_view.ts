// Two images, their matches, the model between them, and changes by hand.

import { api, type Item, type Pair, type Tiles } from "./api";
import { announce, button, choice, debounced, digits, facts, make, save, section, slider, toggle } from "./dom";
import { apply, inverse, zoomAt, type Matrix } from "./geometry";
import { Grid } from "./grid";
import { nearList } from "./image_view";
import { MatchSet, type Frame } from "./layer";
import { Overlay, type Mode } from "./overlay";
import { verdict } from "./pair_panel";
import { COLUMNS, PairState, State } from "./pair_state";
import type { Pane } from "./pane";
import { Patch } from "./patch";
import { number, remember, type Place } from "./permalink";
import { complain, csv, Stage, stem, type Screen, type Shortcut } from "./stage";
import { count, text, type Key } from "./texts";

const SHOWS = ["all", "inliers", "rejected", "none"] as const;
const SHOW_TEXTS: Key[] = ["showAll", "showInliers", "showRejected", "showNone"];
const MODES: Mode[] = ["side", "swipe", "blink"];
const REACH_PX = 12, FULL_LINES = 120;
const EVERYTHING = { topK: Infinity, minScore: 0, onlyScale: 0 };
const FAINT: [number, number, number, number] = [0.75, 0.78, 0.82, 0.55];

export class PairView implements Screen {
  readonly title: string;
  readonly shortcuts: Shortcut[];
  private readonly stage: Stage;
  private readonly a: Pane;
  private readonly b: Pane;
  private readonly overlay: Overlay;
  private readonly state: PairState;
  private grids: [Grid, Grid] | null = null;
  private selected = -1;
  private hovered = -1;
  private show: number;
  private lines: boolean;
  private arrows: boolean;
  private arrowFactor: number;
  private unmatched: boolean;
  private linked: boolean;
  private adding: { x: number; y: number } | "a" | null = null;
  private readonly status = make("p", { class: "status", role: "status" });
  private readonly verdictBox = make("div");
  private readonly controls = make("div");
  private readonly matchBox = make("div");
  private readonly editBox = make("div");
  private readonly nearBox = make("div", { class: "near" });
  private readonly patches: [Patch, Patch] = [new Patch(), new Patch()];
  private asked = new AbortController();
  private closed = false;

  constructor(
    main: HTMLElement, private readonly pair: Pair,
    private readonly items: [Item & Tiles, Item & Tiles], private readonly place: Place,
  ) {
    this.title = `${stem(pair.a.name)} – ${stem(pair.b.name)}`;
    const { values } = place;
    this.show = Math.max(0, SHOWS.indexOf((values.get("show") ?? "all") as (typeof SHOWS)[number]));
    this.lines = values.get("lines") !== "0";
    this.arrows = values.get("arrows") === "1";
    this.arrowFactor = number(values, "af", 10);
    this.unmatched = values.get("other") === "1";
    this.linked = values.get("link") !== "0";
    this.state = new PairState(pair.id);
    this.stage = new Stage(main);
    this.stage.element.classList.add("two");
    const events = {
      drawn: (pane: Pane) => this.drawn(pane),
      active: (pane: Pane) => (this.stage.active = pane),
      hover: (pane: Pane, at: { x: number; y: number } | null) => this.hover(pane, at),
      click: (pane: Pane, at: { x: number; y: number }) => this.click(pane, at),
    };
    this.a = this.stage.addPane("A", `A: ${pair.a.name}. ${text("stage")}`, events);
    this.b = this.stage.addPane("B", `B: ${pair.b.name}. ${text("stage")}`, events);
    this.overlay = new Overlay(this.stage, this.a, this.b, `${pair.id}-aligned`);
    this.stage.layer.onDraw = () => this.draw();
    this.stage.panel.append(
      make("h1", {}, this.title), this.status, this.verdictBox, this.controls,
      section("edit", this.editBox),
      section("export", make("div", { class: "buttons" },
        button(text("exportPng"), () => this.savePng()),
        button(text("exportMatches"), () => this.saveCsv()),
        button(text("exportJson"), () => this.saveJson()))),
    );
    this.stage.inspector.append(section("match", this.matchBox));
    this.shortcuts = [
      ...this.stage.shortcuts(),
      { keys: ["n"], act: () => this.step(1) },
      { keys: ["p"], act: () => this.step(-1) },
      { keys: ["k"], act: () => this.press("unmatched") },
      { keys: ["r"], act: () => this.press("arrows") },
      { keys: ["l"], act: () => this.press("link") },
      { keys: ["m"], act: () => void this.setMode(MODES[(MODES.indexOf(this.overlay.mode) + 1) % 3]!) },
      { keys: ["b"], act: () => void this.blink() },
      { keys: ["x", "Delete"], act: () => this.flip() },
      { keys: ["a"], act: () => this.add() },
      { keys: ["Enter"], act: () => this.placeCentre() },
      { keys: ["f"], act: () => void this.fit() },
      { keys: ["s"], act: () => this.savePng() },
      { keys: ["c"], act: () => this.saveCsv() },
      { keys: ["Escape"], act: () => this.escape() },
    ];
    void this.load();
  }

  destroy(): void {
    this.closed = true;
    this.asked.abort();
    this.overlay.stop();
    this.stage.destroy();
  }

  private async load(): Promise<void> {
    const [a, b] = this.items;
    const opened = [a, b].map((item, side) => (item.error === null ? this.panes[side]!.open(item, null) : null));
    try {
      await Promise.all([...opened, this.fit(true)]);
    } catch (error) {
      this.status.textContent = complain(error);
      [a, b].forEach((item, side) => item.error !== null && this.panes[side]!.fail(item.error));
      return;
    }
    for (const side of [0, 1] as const)
      if (opened[side] === null) await this.panes[side].open(this.items[side], this.state.meta.size_hw[side]);
    if (this.closed) return;
    const { values } = this.place;
    this.stage.active = this.a;
    this.follow(this.a);
    if (values.has("z"))
      this.a.view = { x: number(values, "x", 0), y: number(values, "y", 0), z: number(values, "z", 1) };
    const index = number(values, "sel", -1);
    if (index >= 0 && index < this.state.matches.count) this.select(index, true);
    const mode = values.get("mode") as Mode | null;
    if (mode !== null && MODES.includes(mode)) await this.setMode(mode);
  }

  private get panes(): [Pane, Pane] {
    return [this.a, this.b];
  }

  private get matrix(): Matrix | null {
    const meta = this.state.meta as typeof this.state.meta | undefined;
    return meta?.is_plane ? meta.matrix : null;
  }

  /** Register, first or with changes by hand. */
  private async fit(first = false): Promise<void> {
    this.status.textContent = text("fitting");
    if (!first) this.state.settleAdded();
    const old = first ? null : { points: this.state.points, matches: this.state.matches };
    try {
      await this.state.fit();
    } catch (error) {
      if (first) throw error;
      this.status.textContent = complain(error);
      return;
    }
    if (this.closed) return;
    for (const set of old ? [...old.points, old.matches] : []) this.stage.layer.drop(set);
    this.selected = this.hovered = -1;
    const { table } = this.state.matches;
    this.grids = [new Grid(table.values, COLUMNS, 0), new Grid(table.values, COLUMNS, 2)];
    this.status.textContent = "";
    this.verdictBox.replaceChildren(verdict(this.state.meta, this.state.fitted));
    this.buildControls();
    this.showMatch(-1);
    this.showEdit();
    this.stage.layer.request();
    const { success, reason, inliers, matches } = this.state.meta;
    announce(`${text(success ? "registered" : "notRegistered")}. ${success ? `${text("inliers")} ${inliers}/${matches}` : reason}`);
  }

  private buildControls(): void {
    const redraw = (): void => {
      this.stage.layer.request();
      this.remember();
    };
    const linkable = this.matrix !== null;
    const modes: [string, string][] = MODES.map((mode): [string, string] => [mode, text(mode)]);
    const mode = choice("mode", linkable ? modes : modes.slice(0, 1), this.overlay.mode, (value) => void this.setMode(value as Mode));
    mode.input.dataset["key"] = "mode";
    this.controls.replaceChildren(section(
      "view", mode.row,
      this.named("link", toggle("link", this.linked && linkable, (on) => { this.linked = on; if (on) this.follow(this.stage.active ?? this.a); redraw(); }), !linkable),
      linkable ? null : make("p", { class: "hint" }, text("linkNone")),
      choice("show", SHOWS.map((name, i): [string, string] => [name, text(SHOW_TEXTS[i]!)]), SHOWS[this.show]!,
        (value) => { this.show = SHOWS.indexOf(value as (typeof SHOWS)[number]); redraw(); }).row,
      this.named("lines", toggle("lines", this.lines, (on) => { this.lines = on; redraw(); })),
      this.named("arrows", toggle("arrows", this.arrows, (on) => { this.arrows = on; redraw(); })),
      slider("arrowFactor", { min: 1, max: 50, step: 1, value: this.arrowFactor }, (v) => `× ${v}`, (v) => { this.arrowFactor = v; redraw(); }).row,
      this.named("unmatched", toggle("unmatched", this.unmatched, (on) => { this.unmatched = on; redraw(); })),
      make("ul", { class: "key" },
        ...(["stateInlier", "showRejected", "stateRemoved", "stateAdded"] as Key[]).map((key) =>
          make("li", { class: key }, text(key)))),
    ));
  }

  private named(name: string, made: { row: HTMLElement; input: HTMLInputElement }, disabled = false): HTMLElement {
    made.input.dataset["key"] = name;
    made.input.disabled = disabled;
    return made.row;
  }

  private press(name: string): void {
    this.controls.querySelector<HTMLInputElement>(`input[data-key="${name}"]`)?.click();
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
    this.stage.layer.request();
    this.remember();
  }

  private async blink(): Promise<void> {
    if (this.overlay.mode !== "blink") await this.setMode("blink");
    else this.overlay.flip();
  }

  private drawn(pane: Pane): void {
    if (pane === (this.stage.active ?? this.a)) this.follow(pane);
    this.stage.layer.draw();
    this.remember();
  }

  /** Move the other pane to the same part of the scene. */
  private follow(pane: Pane): void {
    const { matrix } = this;
    if (!this.linked || matrix === null || this.overlay.mode !== "side") return;
    const other = pane === this.a ? this.b : this.a, way = pane === this.a ? matrix : inverse(matrix);
    const { x, y, z } = pane.view, to = apply(way, x, y);
    if (to !== null) other.view = { ...to, z: z / zoomAt(way, x, y) };
  }

  private draw(): void {
    if (this.grids === null || this.closed) return;
    const { layer, element } = this.stage, { matches, points } = this.state;
    const marked = this.hovered >= 0 ? this.hovered : this.selected;
    const visible = this.panes.map((pane) => (pane.element.hidden ? null : pane.frame(element)));
    const [a, b] = visible as [Frame | null, Frame | null];
    visible.forEach((frame, side) => {
      if (frame !== null && this.unmatched) layer.drawPoints(points[side as 0 | 1], frame, EVERYTHING, 1.5, FAINT);
    });
    if (this.lines && a !== null && b !== null)
      layer.drawLines(matches, a, b, this.show, marked, Math.max(0.15, Math.min(1, FULL_LINES / matches.count)));
    if (this.arrows && b !== null) layer.drawArrows(matches, b, this.show, marked, this.arrowFactor);
    visible.forEach((frame, side) => {
      if (frame === null) return;
      layer.drawEnds(matches, frame, side as 0 | 1, this.show, marked, matches.count > FULL_LINES ? 2.5 : 4);
      this.drawPending(frame, side as 0 | 1);
    });
  }

  /** Tie points that were added after the last fit, and a first end without its second. */
  private drawPending(frame: Frame, side: 0 | 1): void {
    const rows = this.state.pending.map((row) => (side === 0 ? [row[0]!, row[1]!] : [row[2]!, row[3]!]));
    if (side === 0 && this.adding !== null && this.adding !== "a") rows.push([this.adding.x, this.adding.y]);
    if (rows.length === 0) return;
    const values = new Float32Array(rows.length * COLUMNS);
    rows.forEach(([x, y], i) => values.set([x!, y!, x!, y!, 1, State.Inlier, NaN, NaN, -1], i * COLUMNS));
    const set = new MatchSet({ rows: rows.length, columns: COLUMNS, values });
    this.stage.layer.drawEnds(set, frame, side, 0, -1, 6);
    this.stage.layer.drop(set);
  }

  private isVisible(index: number): boolean {
    const rejected = this.state.at(index).state !== State.Inlier;
    return this.show === 0 || (this.show === 1 && !rejected) || (this.show === 2 && rejected);
  }

  private find(pane: Pane, at: { x: number; y: number }): number {
    const grid = this.grids?.[pane === this.a ? 0 : 1];
    return grid?.nearest(at.x, at.y, REACH_PX / pane.view.z, (i) => this.isVisible(i)) ?? -1;
  }

  private hover(pane: Pane, at: { x: number; y: number } | null): void {
    const found = at === null || this.adding !== null ? -1 : this.find(pane, at);
    if (found === this.hovered) return;
    this.hovered = found;
    this.showMatch(found >= 0 ? found : this.selected);
    this.stage.layer.request();
  }

  private click(pane: Pane, at: { x: number; y: number }): void {
    if (this.adding !== null) this.put(pane, at);
    else this.select(this.find(pane, at), false);
  }

  private select(index: number, reveal: boolean): void {
    this.selected = index;
    this.hovered = -1;
    if (index >= 0) {
      const { xa, ya, xb, yb } = this.state.at(index);
      if (reveal) {
        this.stage.active = this.overlay.mode === "side" ? this.a : this.b;
        if (this.overlay.mode === "side") this.a.reveal(xa, ya);
        if (!this.linked || this.overlay.mode !== "side") this.b.reveal(xb, yb);
      }
      announce(text("matchNamed", { n: count(index + 1), state: this.state.words(index) }));
    }
    this.showMatch(index);
    this.showEdit();
    this.stage.layer.request();
    this.remember();
  }

  private step(by: 1 | -1): void {
    const n = this.grids === null ? 0 : this.state.matches.count;
    for (let tries = 0, i = this.selected; tries < n; tries++) {
      i = i < 0 ? (by > 0 ? 0 : n - 1) : (i + by + n) % n;
      if (this.isVisible(i)) return this.select(i, true);
    }
  }

  private showMatch(index: number): void {
    this.asked.abort();
    if (index < 0) {
      this.matchBox.replaceChildren(make("p", { class: "hint" }, text("matchHint")));
      return;
    }
    const { xa, ya, xb, yb, score, dx, dy } = this.state.at(index);
    void this.patches[0].show(this.pair.a.id, xa, ya, null);
    void this.patches[1].show(this.pair.b.id, xb, yb, null);
    this.nearBox.replaceChildren();
    this.matchBox.replaceChildren(
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
    this.askNearest(index);
  }

  /** The most similar keypoints of B to a match's keypoint of A. */
  private readonly askNearest = debounced(180, (index: number) => {
    if (this.closed || this.state.at(index).origin < 0) return;
    const { xa, ya } = this.state.at(index), { values } = this.state.points[0].table;
    let keypoint = 0;
    while (keypoint * 7 < values.length && (values[keypoint * 7] !== xa || values[keypoint * 7 + 1] !== ya)) keypoint++;
    this.asked = new AbortController();
    api.nearestInPair(this.pair.id, "a", keypoint, this.asked.signal).then(
      (near) => this.nearBox.replaceChildren(nearList(near)),
      () => undefined,
    );
  });

  private showEdit(): void {
    const { state, selected } = this, chosen = selected >= 0 ? selected : -1;
    const removed = chosen >= 0 && state.isRemoved(chosen);
    const prompt = this.adding === null ? "editHint" : this.adding === "a" ? "addA" : "addB";
    const flip = button(text(removed ? "restore" : "remove"), () => this.flip());
    flip.disabled = chosen < 0;
    const fit = button(text("fitAgain"), () => void this.fit(), { class: "primary" });
    const undo = button(text("undoAll"), () => { this.state.discard(); this.adding = null; void this.fit(); });
    undo.disabled = !state.changed;
    fit.disabled = !state.changed && state.fitted.removed + state.fitted.added === 0;
    this.editBox.replaceChildren(
      make("p", { class: "hint" }, text(prompt)),
      make("p", { class: "status" }, text("changes", { removed: state.removed.size, added: state.added.length })),
      make("div", { class: "buttons" }, flip,
        button(text(this.adding === null ? "add" : "addStop"), () => this.add()), fit, undo),
    );
    this.stage.element.classList.toggle("adding", this.adding !== null);
  }

  private flip(): void {
    if (this.selected < 0) return;
    this.state.flip(this.selected);
    this.stage.layer.flagsChanged(this.state.matches);
    announce(this.state.words(this.selected));
    this.showMatch(this.selected);
    this.showEdit();
    this.stage.layer.request();
  }

  private add(): void {
    if (this.overlay.mode !== "side") void this.setMode("side");
    this.adding = this.adding === null ? "a" : null;
    if (this.adding !== null) announce(text("addA"));
    this.showEdit();
    this.stage.layer.request();
  }

  /** Place an end of a tie point by the keyboard: the middle of the pane. */
  private placeCentre(): void {
    if (this.adding === null) return;
    const pane = this.adding === "a" ? this.a : this.b;
    this.put(pane, pane.view);
  }

  private put(pane: Pane, at: { x: number; y: number }): void {
    const { x, y } = at, inside = x >= -0.5 && y >= -0.5 && x <= pane.width - 0.5 && y <= pane.height - 0.5;
    if (!inside) return;
    if (pane === this.a) {
      this.adding = { x, y };
      announce(text("addB"));
    } else if (this.adding !== "a" && this.adding !== null) {
      this.state.added.push([this.adding.x, this.adding.y, x, y]);
      this.adding = null;
      announce(text("added"));
    }
    this.showEdit();
    this.stage.layer.request();
  }

  private escape(): void {
    if (this.adding !== null) this.add();
    else this.select(-1, false);
  }

  private saveCsv(): void {
    if (this.grids === null) return;
    const rows: (number | string)[][] = [];
    for (let i = 0; i < this.state.matches.count; i++) {
      const { xa, ya, xb, yb, score, state, dx, dy } = this.state.at(i);
      const inView = this.overlay.mode === "side" ? this.a.contains(xa, ya) || this.b.contains(xb, yb) : this.b.contains(xb, yb);
      if (!this.isVisible(i) || !inView) continue;
      const name = this.state.isRemoved(i) ? "removed" : ["inlier", "far", "no place", "no model"][state]!;
      rows.push([i, xa, ya, xb, yb, score, name, dx, dy]);
    }
    const header = ["index", "x_a", "y_a", "x_b", "y_b", "score", "state", "residual_x", "residual_y"];
    save(`${this.title.replace(" – ", "-")}-matches.csv`, csv(header, rows));
  }

  private saveJson(): void {
    const { differs_px: _, recorded_success: __, a: ___, b: ____, ...summary } = this.state.meta;
    const content = JSON.stringify({ a: this.pair.a.name, b: this.pair.b.name, ...summary }, null, 2);
    save(`${this.title.replace(" – ", "-")}.json`, new Blob([content, "\n"], { type: "application/json" }));
  }

  private savePng(): void {
    this.stage.savePng(`${this.title.replace(" – ", "-")}-view.png`);
  }

  private remember(): void {
    if (this.closed || this.grids === null) return;
    const { x, y, z } = this.a.view;
    remember("pair", this.pair.id, {
      x: x.toFixed(2), y: y.toFixed(2), z: z.toPrecision(4),
      ...(this.overlay.mode !== "side" ? { mode: this.overlay.mode } : {}),
      ...(this.show ? { show: SHOWS[this.show]! } : {}),
      ...(this.lines ? {} : { lines: "0" }),
      ...(this.arrows ? { arrows: "1", af: String(this.arrowFactor) } : {}),
      ...(this.unmatched ? { other: "1" } : {}),
      ...(this.linked ? {} : { link: "0" }),
      ...(this.selected >= 0 ? { sel: String(this.selected) } : {}),
    });
  }
}
