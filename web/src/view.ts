// What both views share: the one under the pointer and the selected one, named controls, exports.

import type { Data, Near } from "./api";
import { debounced, make, type Toggle } from "./dom";
import type { Point } from "./geometry";
import type { Pane, PaneEvents } from "./pane";
import { Stage, stem, type Screen, type Shortcut } from "./stage";
import { text } from "./texts";

const REACH_PX = 12;

/** What is around a view: the page, or a cell of a notebook. */
export interface Host {
  data: Data;
  /** Write what is shown into the address. */
  remember(values: Record<string, string>): void;
  /** Address of a place in another image; null if there is none. */
  link(image: string, values: Record<string, string>): string | null;
}

export abstract class View implements Screen {
  abstract readonly title: string;
  readonly shortcuts: Shortcut[];
  protected readonly stage: Stage;
  protected selected = -1;
  protected hovered = -1;
  protected closed = false;
  protected readonly status = make("p", { class: "status", role: "status" });
  protected readonly controls = make("div");
  protected readonly detail = make("div");
  protected readonly nearBox = make("div", { class: "near" });
  private asked = new AbortController();

  constructor(main: HTMLElement, protected readonly host: Host) {
    this.stage = new Stage(main, host.data);
    this.stage.layer.onDraw = () => {
      if (!this.closed) this.draw();
    };
    this.shortcuts = [
      ...this.stage.shortcuts(),
      { keys: ["n"], act: () => this.step(1) },
      { keys: ["p"], act: () => this.step(-1) },
      { keys: ["s"], act: () => this.savePng() },
      { keys: ["c"], act: () => this.saveCsv() },
      { keys: ["Escape"], act: () => this.escape() },
    ];
  }

  destroy(): void {
    this.closed = true;
    this.asked.abort();
    this.stage.destroy();
  }

  /** Number of keypoints or matches. */
  protected abstract get count(): number;
  /** Name of saved files, without what they are. */
  protected abstract get fileName(): string;
  protected abstract draw(): void;
  protected abstract isVisible(index: number): boolean;
  /** The nearest one that is visible; -1 without one within reach. */
  protected abstract find(pane: Pane, at: Point, within: number): number;
  /** Show one in the inspector. */
  protected abstract describe(index: number): void;
  /** Bring one into view. */
  protected abstract reveal(index: number): void;
  /** Announce the selected one. */
  protected abstract name(index: number): void;
  /** What the address holds; null before there is anything to show. */
  protected abstract values(): Record<string, string> | null;
  protected abstract saveCsv(): void;

  protected addPane(name: string, label: string): Pane {
    const events: PaneEvents = {
      drawn: (pane) => this.drawn(pane),
      active: (pane) => (this.stage.active = pane),
      hover: (pane, at) => this.hover(pane, at),
      click: (pane, at) => this.click(pane, at),
    };
    return this.stage.addPane(name, `${label}. ${text("stage")}`, events);
  }

  protected drawn(_: Pane): void {
    this.stage.layer.draw();
    this.remember();
  }

  protected hover(pane: Pane, at: Point | null): void {
    const found = at === null ? -1 : this.find(pane, at, REACH_PX / pane.view.z);
    if (found === this.hovered) return;
    this.hovered = found;
    this.describe(this.marked);
    this.stage.layer.request();
  }

  protected click(pane: Pane, at: Point): void {
    this.select(this.find(pane, at, REACH_PX / pane.view.z), false);
  }

  /** The one under the pointer, or else the selected one. */
  protected get marked(): number {
    return this.hovered >= 0 ? this.hovered : this.selected;
  }

  protected select(index: number, reveal: boolean): void {
    this.selected = index;
    if (index >= 0) {
      if (reveal) this.reveal(index);
      this.name(index);
    }
    this.describe(index);
    this.stage.layer.request();
    this.remember();
  }

  private step(by: 1 | -1): void {
    const n = this.count;
    for (let tries = 0, i = this.selected; tries < n; tries++) {
      i = i < 0 ? (by > 0 ? 0 : n - 1) : (i + by + n) % n;
      if (this.isVisible(i)) return this.select(i, true);
    }
  }

  protected escape(): void {
    this.select(-1, false);
  }

  /** A control that `press` finds. */
  protected named(name: string, made: Toggle, disabled = false): HTMLElement {
    made.input.dataset["key"] = name;
    made.input.disabled = disabled;
    return made.row;
  }

  protected press(name: string): void {
    this.controls.querySelector<HTMLInputElement>(`input[data-key="${name}"]`)?.click();
  }

  /** Forget what was asked for the inspector. */
  protected forget(): void {
    this.asked.abort();
    this.nearBox.replaceChildren();
  }

  /** Ask for similar keypoints, unless another one is described by then. */
  protected readonly askNearest = debounced(180, (ask: (signal: AbortSignal) => Promise<Near[]>) => {
    if (this.closed) return;
    this.asked = new AbortController();
    ask(this.asked.signal).then(
      (near) => this.nearBox.replaceChildren(this.nearList(near)),
      () => undefined, // another one was asked for
    );
  });

  /** The most similar keypoints of other images, as links to them. */
  private nearList(near: Near[]): HTMLElement {
    const list = make("ul");
    for (const one of near) {
      const to = this.host.link(one.image, { x: one.x.toFixed(2), y: one.y.toFixed(2), z: "8", sel: String(one.row) });
      const patch = make("img", { src: this.host.data.patch(one.image, one.x, one.y), alt: "", width: "33", height: "33" });
      const words = `${stem(one.name)} (${one.x.toFixed(1)}, ${one.y.toFixed(1)})`;
      const row = [patch, make("span", {}, words), make("span", { class: "muted" }, text("cosine", { n: one.cosine.toFixed(3) }))];
      list.append(make("li", {}, to === null ? make("span", { class: "one" }, ...row) : make("a", { class: "one", href: to }, ...row)));
    }
    return make("div", {}, make("h3", {}, text("nearest")), near.length ? list : make("p", { class: "hint" }, text("nearestNone")));
  }

  protected savePng(): void {
    this.stage.savePng(`${this.fileName}-view.png`);
  }

  protected remember(): void {
    const values = this.closed ? null : this.values();
    if (values !== null) this.host.remember(values);
  }
}
