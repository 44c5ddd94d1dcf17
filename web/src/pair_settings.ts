// What is shown of a pair, and the controls of it.

import { choice, make, section, slider, toggle, type Toggle } from "./dom";
import type { Mode } from "./overlay";
import { State } from "./pair_state";
import { number } from "./permalink";
import { text, type Key } from "./texts";

export const MODES: Mode[] = ["side", "swipe", "blink"];
const SHOWS = ["all", "inliers", "rejected", "none"] as const;
const SHOW_TEXTS: Key[] = ["showAll", "showInliers", "showRejected", "showNone"];
const STATES: Key[] = ["stateInlier", "showRejected", "stateRemoved", "stateAdded"];

export class PairSettings {
  /** Index into `SHOWS`, as the shaders have it. */
  show: number;
  lines: boolean;
  arrows: boolean;
  arrowFactor: number;
  unmatched: boolean;
  link: boolean;

  constructor(values: URLSearchParams) {
    this.show = Math.max(0, SHOWS.indexOf((values.get("show") ?? "all") as (typeof SHOWS)[number]));
    this.lines = values.get("lines") !== "0";
    this.arrows = values.get("arrows") === "1";
    this.arrowFactor = number(values, "af", 10);
    this.unmatched = values.get("other") === "1";
    this.link = values.get("link") !== "0";
  }

  /** The settings that are not the usual ones, for the address. */
  values(): Record<string, string> {
    return {
      ...(this.show ? { show: SHOWS[this.show]! } : {}),
      ...(this.lines ? {} : { lines: "0" }),
      ...(this.arrows ? { arrows: "1", af: String(this.arrowFactor) } : {}),
      ...(this.unmatched ? { other: "1" } : {}),
      ...(this.link ? {} : { link: "0" }),
    };
  }

  /** Whether matches of a state are shown. */
  passes(state: State): boolean {
    const rejected = state !== State.Inlier;
    return this.show === 0 || (this.show === 1 && !rejected) || (this.show === 2 && rejected);
  }
}

/** What maps one image to the other: a plane model, the matches, or nothing. */
export type Way = "plane" | "matches" | "none";

export interface Changes {
  changed(): void;
  linked(): void;
  mode(mode: Mode): void;
  named(name: string, made: Toggle, disabled?: boolean): HTMLElement;
}

/** The controls of a pair. */
export function pairControls(settings: PairSettings, mode: Mode, way: Way, epipolar: boolean, on: Changes): HTMLElement {
  const toggled = (key: "lines" | "arrows" | "unmatched"): HTMLElement =>
    on.named(key, toggle(key, settings[key], (to) => { settings[key] = to; on.changed(); }));
  const modes = MODES.map((name): [string, string] => [name, text(name)]);
  const arrangement = choice("mode", way === "plane" ? modes : modes.slice(0, 1), mode, (to) => on.mode(to as Mode));
  arrangement.input.dataset["key"] = "mode";
  const link = toggle("link", settings.link && way !== "none", (to) => { settings.link = to; on.linked(); });
  return section(
    "view", arrangement.row,
    on.named("link", link, way === "none"),
    way === "plane" ? null : make("p", { class: "hint" }, text(way === "none" ? "linkNone" : "linkMatches")),
    choice("show", SHOWS.map((name, i): [string, string] => [name, text(SHOW_TEXTS[i]!)]), SHOWS[settings.show]!,
      (to) => { settings.show = SHOWS.indexOf(to as (typeof SHOWS)[number]); on.changed(); }).row,
    toggled("lines"),
    toggled("arrows"),
    slider("arrowFactor", { min: 1, max: 50, step: 1, value: settings.arrowFactor }, (v) => `× ${v}`,
      (v) => { settings.arrowFactor = v; on.changed(); }).row,
    toggled("unmatched"),
    epipolar ? make("p", { class: "hint" }, text("epipolarHint")) : null,
    make("ul", { class: "key" }, ...STATES.map((key) => make("li", { class: key }, text(key)))),
  );
}
