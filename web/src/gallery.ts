// All images of the session, loaded as they come into view, and the pairs.

import { api, type Item, type Session } from "./api";
import { announce, debounced, freshId, make } from "./dom";
import { link, remember, type Place } from "./permalink";
import { base, complain, type Screen, type Shortcut } from "./stage";
import { count, text } from "./texts";

const PAGE = 60;

export class Gallery implements Screen {
  readonly title = text("gallery");
  readonly shortcuts: Shortcut[];
  private readonly cards = make("ul", { class: "cards" });
  private readonly total = make("p", { class: "status", role: "status" });
  private readonly end = make("div", { class: "end" });
  private readonly search: HTMLInputElement;
  private readonly watcher: IntersectionObserver;
  private asked = new AbortController();
  private loaded = 0;
  private all = Infinity;
  private busy = false;

  constructor(main: HTMLElement, session: Session, place: Place) {
    const id = freshId();
    this.search = make("input", { type: "search", id, placeholder: text("search"), "aria-label": text("search") });
    this.search.value = place.values.get("q") ?? "";
    this.search.addEventListener("input", debounced(200, () => this.restart()));
    const pairs = session.pairs.map((pair) =>
      make("li", {}, make("a", { class: "pair", href: link("pair", pair.id) },
        ...[pair.a, pair.b].map((one) => thumbnail(one.id)),
        make("span", { class: "name", title: `${pair.a.name} – ${pair.b.name}` }, `${base(pair.a.name)} – ${base(pair.b.name)}`))));
    main.replaceChildren(make(
      "div", { class: "gallery", id: "panel", tabindex: "-1" },
      make("h1", {}, text("gallery")),
      ...session.notes.map((note) => make("p", { class: "notice" }, note)),
      pairs.length ? make("section", {}, make("h2", {}, text("pairs")), make("ul", { class: "cards" }, ...pairs)) : null,
      make("section", {}, make("div", { class: "head" }, make("h2", {}, text("images")), this.search, this.total), this.cards, this.end),
    ));
    this.shortcuts = [{ keys: ["/"], act: () => this.search.focus() }];
    this.watcher = new IntersectionObserver((seen) => {
      if (seen.some((one) => one.isIntersecting)) void this.more();
    }, { rootMargin: "600px" });
    this.watcher.observe(this.end);
  }

  destroy(): void {
    this.watcher.disconnect();
    this.asked.abort();
  }

  private restart(): void {
    this.asked.abort();
    this.asked = new AbortController();
    this.cards.replaceChildren();
    this.loaded = 0;
    this.all = Infinity;
    this.busy = false;
    remember("gallery", "", this.search.value ? { q: this.search.value } : {});
    void this.more();
  }

  private async more(): Promise<void> {
    if (this.busy || this.loaded >= this.all) return;
    this.busy = true;
    const { signal } = this.asked;
    try {
      const { total, items } = await api.items(this.loaded, PAGE, this.search.value, signal);
      if (signal.aborted) return;
      const first = this.loaded === 0;
      this.all = total;
      this.loaded += items.length;
      this.cards.append(...items.map(card));
      this.total.textContent = total ? text("searchCount", { n: count(total) }) : text("noImages");
      if (first) announce(this.total.textContent);
    } catch (error) {
      if (!signal.aborted) this.total.textContent = complain(error);
      return;
    } finally {
      if (!signal.aborted) this.busy = false;
    }
    // The observer reports changes only: ask again while the end is still in view.
    if (this.end.getBoundingClientRect().top < window.innerHeight + 600) void this.more();
  }
}

function card(item: Item): HTMLElement {
  const folder = item.name.slice(0, -base(item.name).length).replace(/\/$/, "");
  const facts = [
    item.count === null ? text("notDetected") : text("keypointsCount", { n: count(item.count) }),
    item.size_hw === null ? null : `${item.size_hw[1]} × ${item.size_hw[0]}`,
  ].filter((fact): fact is string => fact !== null);
  return make("li", {}, make(
    "a", { href: link("image", item.id) }, thumbnail(item.id),
    make("span", { class: "name", title: item.name }, base(item.name)),
    folder ? make("span", { class: "muted folder", title: folder }, folder) : null,
    make("span", { class: "muted" }, facts.join(" · ")),
  ));
}

/** A picture that loads when it comes into view, with a word in its place if it cannot. */
function thumbnail(id: string): HTMLElement {
  const image = make("img", { src: api.thumbnail(id), alt: "", loading: "lazy", decoding: "async" });
  const box = make("span", { class: "thumbnail" }, image);
  image.addEventListener("error", () => box.replaceChildren(make("span", { class: "broken" }, text("imageError"))));
  return box;
}
