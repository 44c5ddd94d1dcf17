// Small builders of labelled, keyboard-ready controls.

import { text, type Key } from "./texts";

type Child = Node | string | null;

/** An element with attributes and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K, attributes: Record<string, string | boolean> = {}, ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "boolean") element.toggleAttribute(name, value);
    else element.setAttribute(name, value);
  }
  for (const child of children) if (child !== null) element.append(child);
  return element;
}

let numbered = 0;

/** An id that no other element has. */
export function freshId(): string {
  return `c${++numbered}`;
}

export function button(label: string, act: () => void, attributes: Record<string, string> = {}): HTMLButtonElement {
  const made = make("button", { type: "button", ...attributes }, label);
  made.addEventListener("click", act);
  return made;
}

const ICONS: Record<string, string> = {
  minus: "M3 8h10",
  plus: "M3 8h10M8 3v10",
  home: "M2.5 5.5v-3h3M10.5 2.5h3v3M13.5 10.5v3h-3M5.5 13.5h-3v-3",
  pixels: "M2.5 2.5h11v11h-11zM8 2.5v11M2.5 8h11",
  left: "M10 3L5 8l5 5",
  right: "M6 3l5 5-5 5",
  help: "M5.5 6a2.5 2.5 0 1 1 3.6 2.2c-.8.4-1.1.8-1.1 1.6M8 12.2v.1",
};

/** A button with an icon; its label is its accessible name and its tooltip. */
export function iconButton(icon: string, label: string, act: () => void): HTMLButtonElement {
  const made = make("button", { type: "button", class: "icon", "aria-label": label, title: label });
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[icon]!);
  svg.append(path);
  made.append(svg);
  made.addEventListener("click", act);
  return made;
}

export interface Toggle {
  row: HTMLElement;
  input: HTMLInputElement;
}

/** A labelled checkbox. */
export function toggle(key: Key, on: boolean, change: (on: boolean) => void): Toggle {
  const id = freshId();
  const input = make("input", { type: "checkbox", id, checked: on });
  input.addEventListener("change", () => change(input.checked));
  return { row: make("div", { class: "row" }, input, make("label", { for: id }, text(key))), input };
}

export interface Slider {
  row: HTMLElement;
  input: HTMLInputElement;
  set(value: number): void;
}

/** A labelled slider with its value in words. */
export function slider(
  key: Key, range: { min: number; max: number; step: number; value: number },
  words: (value: number) => string, change: (value: number) => void,
): Slider {
  const id = freshId();
  const { min, max, step, value } = range;
  const input = make("input", {
    type: "range", id, min: String(min), max: String(max), step: String(step),
  });
  input.value = String(value);
  const output = make("output", { for: id });
  const show = (): void => {
    output.textContent = words(input.valueAsNumber);
    input.setAttribute("aria-valuetext", output.textContent);
    const share = (input.valueAsNumber - min) / (max - min || 1);
    input.style.setProperty("--share", `${100 * share}%`);
  };
  input.addEventListener("input", () => {
    show();
    change(input.valueAsNumber);
  });
  show();
  const row = make("div", { class: "slider" }, make("label", { for: id }, text(key)), output, input);
  return {
    row, input,
    set(to: number) {
      input.value = String(to);
      show();
    },
  };
}

export interface Choice {
  row: HTMLElement;
  input: HTMLSelectElement;
}

/** A labelled list of values. */
export function choice(key: Key, options: [string, string][], value: string, change: (value: string) => void): Choice {
  const id = freshId();
  const input = make("select", { id });
  for (const [name, label] of options) input.append(make("option", { value: name }, label));
  input.value = value;
  input.addEventListener("change", () => change(input.value));
  return { row: make("div", { class: "choice" }, make("label", { for: id }, text(key)), input), input };
}

/** A section of the panel with its heading. */
export function section(key: Key, ...children: Child[]): HTMLElement {
  const id = freshId();
  return make("section", { "aria-labelledby": id }, make("h2", { id }, text(key)), ...children);
}

/** Names and values. */
export function facts(rows: [string, string][]): HTMLElement {
  const list = make("dl");
  for (const [name, value] of rows) list.append(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  return list;
}

let live = document.getElementById("live");

/** Where announcements are written. */
export function announceIn(element: HTMLElement): void {
  live = element;
}

/** Announce something to screen readers. */
export function announce(message: string): void {
  if (live === null) return;
  live.textContent = "";
  requestAnimationFrame(() => (live!.textContent = message));
}

/** Call a function once, a while after the last call. */
export function debounced<A extends unknown[]>(ms: number, act: (...values: A) => void): (...values: A) => void {
  let timer = 0;
  return (...values: A) => {
    clearTimeout(timer);
    timer = window.setTimeout(() => act(...values), ms);
  };
}

export function prefersLessMotion(): boolean {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** A number with its digits, or a word for a missing one. */
export function digits(value: number | null, places: number): string {
  return value === null || Number.isNaN(value) ? text("unknown") : value.toFixed(places);
}

/** Offer a file to save. */
export function save(name: string, content: Blob): void {
  const url = URL.createObjectURL(content);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  announce(text("saved", { name }));
}
