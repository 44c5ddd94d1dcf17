// What is shown of the keypoints of an image, and the controls of it.

import type { PointsMeta } from "./api";
import { choice, debounced, digits, facts, make, slider, toggle, type Slider, type Toggle } from "./dom";
import type { PointFilter, PointSet } from "./layer";
import { number } from "./permalink";
import { count, text } from "./texts";

export const COLUMNS = 7;
const STEPS = 1000;
const LEAST_RADIUS = 1, FAINT_RADIUS = 1.5, MOST_RADIUS = 10;

export class ImageSettings implements PointFilter {
  minScore: number;
  topK: number;
  nms: number | null;
  onlyScale: number;
  ellipses: boolean;
  factor: number;
  radius: number;
  points: boolean;
  heat: boolean;
  heatOpacity: number;

  constructor(values: URLSearchParams) {
    this.minScore = number(values, "s", 0);
    this.topK = number(values, "k", Infinity);
    this.nms = values.has("nms") ? number(values, "nms", 4) : null;
    this.onlyScale = number(values, "sc", 0);
    this.ellipses = values.get("e") === "1";
    this.factor = number(values, "ef", 3);
    this.radius = number(values, "r", 0);
    this.points = values.get("p") !== "0";
    this.heat = values.get("h") === "1";
    this.heatOpacity = number(values, "ho", 0.7);
  }

  /** The settings that are not the usual ones, for the address. */
  values(total: number): Record<string, string> {
    return {
      ...(this.minScore > 0 ? { s: this.minScore.toPrecision(4) } : {}),
      ...(this.topK < total ? { k: String(this.topK) } : {}),
      ...(this.nms !== null ? { nms: String(this.nms) } : {}),
      ...(this.onlyScale > 0 ? { sc: String(this.onlyScale) } : {}),
      ...(this.ellipses ? { e: "1", ef: String(this.factor) } : {}),
      ...(this.radius ? { r: String(this.radius) } : {}),
      ...(this.points ? {} : { p: "0" }),
      ...(this.heat ? { h: "1", ho: String(this.heatOpacity) } : {}),
    };
  }

  /** Whether a keypoint passes the filters. */
  passes(set: PointSet, i: number): boolean {
    const { values } = set.table, scale = values[i * COLUMNS + 3]!;
    return (
      i < this.topK && values[i * COLUMNS + 2]! >= this.minScore &&
      !(this.onlyScale > 0 && Math.abs(scale - this.onlyScale) > 1e-4 * this.onlyScale)
    );
  }

  /** Number of keypoints that pass. */
  passing(set: PointSet): number {
    let n = 0;
    const most = Math.min(this.topK, set.count);
    for (let i = 0; i < most; i++) if (this.passes(set, i)) n++;
    return n;
  }

  /** Radius of a point, CSS px. */
  radiusOf(total: number): number {
    const usual = total > 200_000 ? LEAST_RADIUS : total > 50_000 ? FAINT_RADIUS : total > 5_000 ? 2.5 : 4;
    return this.radius || usual;
  }
}

export interface Changes {
  /** A filter or the look is another one. */
  changed(): void;
  /** Detect again; null if that is not possible. */
  nms: ((radius: number) => void) | null;
  heat(): void;
  opacity(): void;
  named(name: string, made: Toggle, disabled?: boolean): HTMLElement;
}

/** The controls of one image. */
export function imageControls(
  settings: ImageSettings, set: PointSet, meta: PointsMeta, made: string, hint: HTMLElement, on: Changes,
): HTMLElement[] {
  const { nms } = on;
  const toggled = (key: "points" | "ellipses" | "heat", value: boolean, act: () => void, disabled = false): HTMLElement =>
    on.named(key, toggle(key, value, (to) => { settings[key] = to; act(); }), disabled);
  return [
    ...filters(settings, set, on),
    ...(nms === null ? [] : [
      slider("nms", { min: 0, max: 32, step: 1, value: settings.nms ?? meta.nms_radius ?? 4 }, (v) => `${v} px`, debounced(350, nms)).row,
    ]),
    legend(...set.range),
    slider("pointSize", { min: LEAST_RADIUS, max: MOST_RADIUS, step: 0.5, value: settings.radiusOf(set.count) }, (v) => `${v} px`,
      (v) => { settings.radius = v; on.changed(); }).row,
    toggled("points", settings.points, on.changed),
    toggled("ellipses", settings.ellipses && set.sd > 0, on.changed, set.sd === 0),
    slider("ellipseFactor", { min: 1, max: 20, step: 1, value: settings.factor }, (v) => `${v} σ`,
      (v) => { settings.factor = v; on.changed(); }).row,
    hint,
    toggled("heat", settings.heat, on.heat),
    slider("heatOpacity", { min: 0, max: 100, step: 5, value: 100 * settings.heatOpacity }, (v) => `${v} %`,
      (v) => { settings.heatOpacity = v / 100; on.opacity(); }).row,
    facts([
      [text("size"), `${meta.size_hw[1]} × ${meta.size_hw[0]} px`],
      [text("checkpoint"), `${meta.checkpoint ?? text("unknown")}, ${made}`],
    ]),
  ];
}

function filters(settings: ImageSettings, set: PointSet, on: Changes): HTMLElement[] {
  const [low, high] = set.range;
  const toScore = (v: number): number => low + (high - low) * (v / STEPS) ** 2;
  const fromScore = (s: number): number => STEPS * Math.sqrt(Math.max(0, (s - low) / (high - low || 1)));
  const toCount = (v: number): number => Math.round(Math.max(set.count, 1) ** (v / STEPS));
  const fromCount = (n: number): number =>
    set.count > 1 ? (STEPS * Math.log(Math.max(n, 1))) / Math.log(set.count) : STEPS;
  const bar = (key: "minScore" | "topK", value: number, words: (v: number) => string, change: (v: number) => void): Slider =>
    slider(key, { min: 0, max: STEPS, step: 1, value }, words, (v) => {
      change(v);
      on.changed();
    });
  const scales = [...new Set(column(set, 3).filter((s) => s > 0).map((s) => Number(s.toPrecision(6))))].sort((a, b) => a - b);
  const options = scales.map((s): [string, string] => [String(s), text("scaleOption", { n: s.toFixed(2) })]);
  return [
    bar("minScore", fromScore(settings.minScore), (v) => toScore(v).toFixed(4), (v) => (settings.minScore = v === 0 ? 0 : toScore(v))).row,
    bar("topK", fromCount(Math.min(settings.topK, set.count)), (v) => count(toCount(v)), (v) => (settings.topK = toCount(v))).row,
    ...(scales.length > 1
      ? [choice("scaleFilter", [["0", text("allScales")], ...options], String(settings.onlyScale), (value) => {
          settings.onlyScale = Number(value);
          on.changed();
        }).row]
      : []),
  ];
}

function column(set: PointSet, at: number): number[] {
  const { values } = set.table, out: number[] = [];
  const step = Math.max(1, Math.floor(set.count / 20_000));
  for (let i = at; i < values.length; i += COLUMNS * step) out.push(values[i]!);
  return out;
}

function legend(low: number, high: number): HTMLElement {
  return make("div", { class: "legend" },
    make("span", {}, digits(low, 3)), make("span", { class: "ramp", "aria-hidden": "true" }), make("span", {}, digits(high, 3)));
}
