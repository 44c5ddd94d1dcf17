// The page: bar, screens by the URL's hash, keys, language.

import { api, type Session } from "./api";
import { announce, button, iconButton, make } from "./dom";
import { Gallery } from "./gallery";
import { ImageView } from "./image_view";
import { PairView } from "./pair_view";
import { link, parse, remember, type Place } from "./permalink";
import { complain, press, type Screen } from "./stage";
import type { Host } from "./view";
import { currentLanguage, setLanguage, text, type Key } from "./texts";

const HELP: [string, Key][] = [
  ["← ↑ → ↓", "keyPan"], ["+ −", "keyZoom"], ["0", "keyHome"], ["1", "keyPixels"], ["N P", "keyStep"],
  ["[ ]", "keyImage"], ["G", "keyGallery"], ["E", "keyEllipses"], ["H", "keyHeat"], ["K", "keyPoints"],
  ["M", "keyMode"], ["B", "keyBlink"], ["L", "keyLink"], ["R", "keyArrows"], ["X", "keyRemove"], ["A", "keyAdd"],
  ["F", "keyFit"], ["S", "keyPng"], ["C", "keyCsv"], ["?", "keyHelp"], ["Esc", "keyEscape"],
];
const NEIGHBOURS = 200;

class Page {
  private readonly bar = document.getElementById("bar")!;
  private readonly main = document.getElementById("main")!;
  private screen: Screen | null = null;
  private shown = 0;

  constructor(private readonly session: Session) {
    window.addEventListener("hashchange", () => void this.show());
    document.addEventListener("keydown", (event) => this.key(event));
    void this.show();
  }

  private get place(): Place {
    const here = parse(location.hash);
    if (here !== null) return here;
    const [pair] = this.session.pairs, values = new URLSearchParams();
    if (pair !== undefined && this.session.pairs.length === 1 && this.session.items === 2)
      return { kind: "pair", id: pair.id, values };
    if (this.session.items === 1) return { kind: "image", id: this.session.first!, values };
    return { kind: "gallery", id: "", values };
  }

  /** Show the screen of the URL. */
  async show(): Promise<void> {
    const { place } = this, turn = ++this.shown;
    if (parse(location.hash) === null) history.replaceState(null, "", link(place.kind, place.id));
    this.screen?.destroy();
    this.screen = null;
    document.documentElement.lang = currentLanguage();
    document.getElementById("skip")!.textContent = text("skip");
    this.main.replaceChildren(make("p", { class: "notice" }, text("loading")));
    this.buildBar(place, "");
    try {
      const make = await this.maker(place);
      if (turn === this.shown) this.opened(place, make()); // another one may be wanted by now
    } catch (error) {
      if (turn === this.shown) this.failed(error);
    }
  }

  /** What makes a screen, once its data is there. */
  private async maker(place: Place): Promise<() => Screen> {
    const { main, session } = this;
    const host: Host = {
      data: api, link: (image, values) => link("image", image, values),
      remember: (values) => remember(place.kind, place.id, values),
    };
    if (place.kind === "gallery") return () => new Gallery(main, session, place);
    if (place.kind === "image") {
      const item = await api.image(place.id);
      return () => new ImageView(main, host, item, place.values);
    }
    const pair = session.pairs.find((one) => one.id === place.id);
    if (pair === undefined) throw new Error(text("imageError"));
    const items = await Promise.all([api.image(pair.a.id), api.image(pair.b.id)]);
    return () => new PairView(main, host, pair, items, place.values);
  }

  private opened(place: Place, screen: Screen): void {
    this.screen = screen;
    this.buildBar(place, screen.title);
    document.title = `${screen.title} · tiepoint`;
    announce(screen.title);
  }

  private failed(error: unknown): void {
    const retry = button(text("retry"), () => void this.show(), { class: "primary" });
    this.main.replaceChildren(make("div", { class: "failure" }, make("p", { class: "notice" }, complain(error)), retry));
  }

  private buildBar(place: Place, title: string): void {
    const language = button(text("language"), () => {
      setLanguage(currentLanguage() === "en" ? "ko" : "en");
      void this.show();
    }, { "aria-label": text("languageName"), lang: currentLanguage() === "en" ? "ko" : "en" });
    const many = this.session.items > 1;
    const nav = make("nav", { "aria-label": text("gallery") },
      make("a", { href: link("gallery"), class: "home", ...(place.kind === "gallery" ? { "aria-current": "page" } : {}) }, text("gallery")),
      ...this.session.pairs.slice(0, 1).map((pair) =>
        make("a", { href: link("pair", pair.id), ...(place.kind === "pair" ? { "aria-current": "page" } : {}) }, text("pair"))),
    );
    const steps = place.kind === "image" && many
      ? make("span", { class: "steps" },
          iconButton("left", text("previous"), () => void this.neighbour(-1)),
          iconButton("right", text("next"), () => void this.neighbour(1)))
      : null;
    this.bar.replaceChildren(...[
      make("span", { class: "brand" }, text("title")), nav, make("span", { class: "title", title }, place.kind === "gallery" ? "" : title), steps,
      language, iconButton("help", text("help"), () => this.help()),
    ].filter((one): one is HTMLElement => one !== null));
  }

  private async neighbour(by: 1 | -1): Promise<void> {
    const { place } = this;
    if (place.kind !== "image") return;
    try {
      for (let offset = 0, before = ""; offset < this.session.items; offset += NEIGHBOURS) {
        const { items } = await api.items(offset, NEIGHBOURS, "", AbortSignal.timeout(10_000));
        const ids = items.map((item) => item.id), at = ids.indexOf(place.id);
        if (at < 0) {
          before = ids.at(-1) ?? before;
          continue;
        }
        let to = at + by < 0 ? before : ids[at + by];
        if (to === undefined && by > 0)
          to = (await api.items(offset + at + 1, 1, "", AbortSignal.timeout(10_000))).items[0]?.id;
        if (to) location.hash = link("image", to);
        return;
      }
    } catch (error) {
      complain(error);
    }
  }

  private help(): void {
    const dialog = make("dialog", { "aria-label": text("help") },
      make("h2", {}, text("help")),
      make("dl", { class: "keys" }, ...HELP.map(([keys, words]) =>
        make("div", {}, make("dt", {}, ...keys.split(" ").map((key) => make("kbd", {}, key))), make("dd", {}, text(words))))),
      button(text("close"), () => dialog.close(), { class: "primary" }));
    dialog.addEventListener("close", () => dialog.remove());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    document.body.append(dialog);
    dialog.showModal();
  }

  private key(event: KeyboardEvent): void {
    if (document.querySelector("dialog[open]")) return;
    press(event, this.screen?.shortcuts ?? [], [
      { keys: ["?"], act: () => this.help() },
      { keys: ["g"], act: () => (location.hash = link("gallery")) },
      { keys: ["["], act: () => void this.neighbour(-1) },
      { keys: ["]"], act: () => void this.neighbour(1) },
    ]);
  }
}

/** OpenSeadragon adds an inline style sheet, which the policy refuses, unless it finds its mark. */
function withoutInlineStyle(): void {
  const mark = document.createElementNS("urn:tiepoint", "style");
  mark.setAttribute("data-openseadragon-mobile-css", "true");
  document.head.append(mark);
}

async function start(): Promise<void> {
  withoutInlineStyle();
  document.documentElement.lang = currentLanguage();
  try {
    new Page(await api.session());
  } catch (error) {
    document.getElementById("main")!.replaceChildren(make("p", { class: "notice" }, complain(error)));
  }
}

void start();
