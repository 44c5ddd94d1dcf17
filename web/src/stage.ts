// What both views share: panes under one layer, tools, the panel, exports of what is shown.

import { Gone, type Data } from "./api";
import { announce, iconButton, make, save } from "./dom";
import { Layer } from "./layer";
import { Pane, type PaneEvents } from "./pane";
import { text } from "./texts";

export interface Shortcut {
  keys: string[];
  act: () => void;
}

/** Do what a key asks of the first list that has it; returns whether one has. */
export function press(event: KeyboardEvent, ...lists: Shortcut[][]): boolean {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  const target = event.target as HTMLElement;
  const typing = target.matches("input:not([type=checkbox]), select, textarea");
  if (typing && event.key !== "Escape") return false;
  if (target.matches("button, a, input[type=checkbox]") && ["Enter", " "].includes(event.key)) return false;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const found = lists.flat().find((one) => one.keys.includes(key));
  if (found === undefined) return false;
  event.preventDefault();
  found.act();
  return true;
}

/** A screen of the page. */
export interface Screen {
  title: string;
  shortcuts: Shortcut[];
  destroy(): void;
}

export class Stage {
  readonly element = make("div", { class: "stage" });
  /** Controls, and below them what is under the pointer. */
  readonly panel = make("div", { class: "controls", tabindex: "0", role: "group", "aria-label": text("view") });
  readonly inspector = make("div", { class: "inspector", tabindex: "0", role: "group", "aria-label": text("inspector") });
  readonly layer: Layer;
  readonly panes: Pane[] = [];
  active: Pane | null = null;
  private readonly watcher: ResizeObserver;

  constructor(main: HTMLElement, private readonly data: Data) {
    const canvas = make("canvas", { class: "layer", "aria-hidden": "true" });
    this.element.append(canvas, this.tools());
    const side = make("aside", { class: "panel", id: "panel", tabindex: "-1" }, this.panel, this.inspector);
    side.setAttribute("aria-label", text("panel"));
    main.replaceChildren(this.element, side);
    this.layer = new Layer(canvas);
    this.watcher = new ResizeObserver(() => this.layer.request());
    this.watcher.observe(this.element);
  }

  addPane(name: string, label: string, events: PaneEvents): Pane {
    const pane = new Pane(this.data, name, label, events);
    this.panes.push(pane);
    this.element.insertBefore(pane.element, this.layer.canvas);
    this.active ??= pane;
    return pane;
  }

  /** Keys that move the active pane. */
  shortcuts(): Shortcut[] {
    const on = (act: (pane: Pane) => void) => () => this.active && act(this.active);
    return [
      { keys: ["ArrowLeft"], act: on((pane) => pane.pan(-1, 0)) },
      { keys: ["ArrowRight"], act: on((pane) => pane.pan(1, 0)) },
      { keys: ["ArrowUp"], act: on((pane) => pane.pan(0, -1)) },
      { keys: ["ArrowDown"], act: on((pane) => pane.pan(0, 1)) },
      { keys: ["+", "="], act: on((pane) => pane.zoom(1)) },
      { keys: ["-"], act: on((pane) => pane.zoom(-1)) },
      { keys: ["0"], act: on((pane) => pane.home()) },
      { keys: ["1"], act: on((pane) => pane.pixels()) },
    ];
  }

  /** The stage as a PNG file, with everything that is drawn on it. */
  savePng(name: string): void {
    const ratio = window.devicePixelRatio, box = this.element.getBoundingClientRect();
    const canvas = make("canvas");
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.height * ratio);
    const context = canvas.getContext("2d")!;
    context.fillStyle = getComputedStyle(this.element).backgroundColor;
    context.fillRect(0, 0, canvas.width, canvas.height);
    for (const pane of this.panes) {
      if (pane.element.hidden) continue;
      const { left, top, width, height } = pane.frame(this.element);
      const drawn = (pane.viewer.drawer as unknown as { canvas: HTMLCanvasElement }).canvas;
      context.drawImage(drawn, left * ratio, top * ratio, width * ratio, height * ratio);
    }
    this.layer.draw(); // its pixels are gone after the frame
    context.drawImage(this.layer.canvas, 0, 0);
    canvas.toBlob((blob) => blob && save(name, blob), "image/png");
  }

  destroy(): void {
    this.watcher.disconnect();
    this.layer.onDraw = null;
    for (const pane of this.panes) pane.destroy();
    this.layer.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  private tools(): HTMLElement {
    const on = (act: (pane: Pane) => void) => () => this.active && act(this.active);
    return make(
      "div", { class: "tools", role: "toolbar", "aria-label": text("view") },
      iconButton("plus", text("zoomIn"), on((pane) => pane.zoom(1))),
      iconButton("minus", text("zoomOut"), on((pane) => pane.zoom(-1))),
      iconButton("home", text("home"), on((pane) => pane.home())),
      iconButton("pixels", text("pixels"), on((pane) => pane.pixels())),
    );
  }
}

/** A name without folders. */
export function base(name: string): string {
  return name.split("/").pop() || name;
}

/** A name without folders and ending, for files that are saved. */
export function stem(name: string): string {
  return base(name).replace(/\.\w+$/, "");
}

/** A CSV file; float32 values with the digits that they need. */
export function csv(header: string[], rows: Iterable<(number | string)[]>): Blob {
  const lines = [header.join(",")];
  for (const row of rows) lines.push(row.map(cell).join(","));
  return new Blob([lines.join("\n"), "\n"], { type: "text/csv" });
}

function cell(value: number | string): string {
  if (typeof value === "string") return /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  return Number.isNaN(value) ? "" : String(Number(value.toPrecision(9)));
}

/** Words for an error of a request. */
export function complain(error: unknown): string {
  const known = error instanceof Error && !(error instanceof Gone) && error.name === "Error" && error.message;
  const words = known ? error.message : text("serverGone");
  announce(words);
  return words;
}
