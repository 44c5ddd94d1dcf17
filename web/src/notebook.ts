// The views of the page in a cell of a notebook: data from traits, and further data from the kernel.

import library from "openseadragon";
import {
  Gone, Refused, unpack, type Data, type Item, type Near, type Packed, type Pair, type PairMeta,
  type PointsMeta, type Tiles,
} from "./api";
import { announceIn, make } from "./dom";
import { ImageView } from "./image_view";
import { PairView } from "./pair_view";
import { complain, press, type Screen } from "./stage";
import { currentLanguage } from "./texts";
import type { Host } from "./view";
import css from "./view.css";

const PATIENCE_MS = 120_000;
const PATCH_PX = 33;

/** An image of the cell; `shown` is the size of its picture. */
type Shown = Item & Tiles & { shown: [number, number]; type: string };

interface About {
  items: Shown[];
  /** null for a single image. */
  pair: Pair | null;
  height: number;
}

interface Answer {
  id: number;
  error?: string;
  tiles?: Tiles & { type: string };
}

interface Model {
  get(name: "_about"): About;
  get(name: "_pictures"): DataView[];
  get(name: "_first"): DataView;
  on(event: "msg:custom", act: (answer: Answer, buffers: DataView[]) => void): void;
  off(event: "msg:custom", act: (answer: Answer, buffers: DataView[]) => void): void;
  send(request: Record<string, unknown>): void;
}

type Waiting = { resolve: (answer: [Answer, ArrayBuffer]) => void; reject: (error: Error) => void };

/** What a view asks for: at first from the traits, which works without a kernel. */
class CellData implements Data {
  private readonly urls = new Map<string, string>();
  private readonly pictures = new Map<string, { image: HTMLImageElement; zoom: number }>();
  private readonly waiting = new Map<number, Waiting>();
  private asked = 0;

  constructor(private readonly model: Model, private readonly about: About) {
    model.on("msg:custom", this.answered);
  }

  /** Decode the pictures, for patches. */
  async open(): Promise<void> {
    const data = this.model.get("_pictures");
    await Promise.all(this.about.items.map(async (item, i) => {
      const image = new Image();
      image.src = this.keep(item.source, whole(data[i]!), item.type);
      await image.decode();
      this.pictures.set(item.id, { image, zoom: item.shown[0] / item.width });
    }));
  }

  close(): void {
    this.model.off("msg:custom", this.answered);
    for (const url of this.urls.values()) URL.revokeObjectURL(url);
  }

  async source(source: string): Promise<Tiles> {
    const [{ tiles }, bytes] = await this.ask("source", { source });
    this.keep(source, bytes, tiles!.type);
    return tiles!;
  }

  async points(item: string, nms: number | null): Promise<Packed<PointsMeta>> {
    if (nms === null && this.about.pair === null) return unpack(whole(this.model.get("_first")));
    return unpack((await this.ask("points", { item, nms }))[1]);
  }

  async fit(pair: string, removed: number[], added: number[][]): Promise<Packed<PairMeta>> {
    if (removed.length + added.length === 0) return unpack(whole(this.model.get("_first")));
    return unpack((await this.ask("fit", { pair, removed, added }))[1]);
  }

  nearest(item: string, index: number, nms: number | null): Promise<Near[]> {
    return this.near("nearest", { item, index, nms });
  }

  nearestInPair(pair: string, side: "a" | "b", index: number): Promise<Near[]> {
    return this.near("nearest_in_pair", { pair, side, index });
  }

  /** The pixels around a place, from the picture that is shown. */
  patch(item: string, x: number, y: number): string {
    const { image, zoom } = this.pictures.get(item)!, canvas = make("canvas");
    canvas.width = canvas.height = PATCH_PX;
    const context = canvas.getContext("2d")!, half = Math.floor(PATCH_PX / 2);
    context.imageSmoothingEnabled = false;
    const left = Math.floor(x + 0.5) - half, top = Math.floor(y + 0.5) - half, side = PATCH_PX * zoom;
    context.drawImage(image, left * zoom, top * zoom, side, side, 0, 0, PATCH_PX, PATCH_PX);
    return canvas.toDataURL();
  }

  tile(source: string): string {
    return this.urls.get(source)!;
  }

  private async near(name: string, values: Record<string, unknown>): Promise<Near[]> {
    const [, bytes] = await this.ask(name, values);
    return JSON.parse(new TextDecoder().decode(bytes)) as Near[];
  }

  private keep(source: string, bytes: ArrayBuffer, type: string): string {
    const url = URL.createObjectURL(new Blob([bytes], { type }));
    this.urls.set(source, url);
    return url;
  }

  private ask(name: string, values: Record<string, unknown>): Promise<[Answer, ArrayBuffer]> {
    const id = ++this.asked;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      setTimeout(() => this.waiting.delete(id) && reject(new Gone(name)), PATIENCE_MS);
      try {
        this.model.send({ id, name, ...values });
      } catch {
        reject(new Gone(name)); // a page without a kernel
      }
    });
  }

  private readonly answered = (answer: Answer, buffers: DataView[]): void => {
    const waiting = this.waiting.get(answer.id);
    this.waiting.delete(answer.id); // it may be another view's
    if (answer.error !== undefined) waiting?.reject(new Refused(answer.error));
    else waiting?.resolve([answer, buffers.length ? whole(buffers[0]!) : new ArrayBuffer(0)]);
  };
}

/** Bytes on their own, aligned for arrays. */
function whole(view: DataView): ArrayBuffer {
  const { buffer, byteOffset, byteLength } = view;
  return buffer.slice(byteOffset, byteOffset + byteLength) as ArrayBuffer;
}

function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const about = model.get("_about"), data = new CellData(model, about);
  const live = make("div", { class: "hidden", role: "status", "aria-live": "polite" });
  const main = make("div", { id: "main", lang: currentLanguage() }), style = make("style");
  style.textContent = css;
  main.style.height = `${about.height}px`;
  // Its own tree: neither the notebook's style sheets nor these reach the other.
  const host = make("div");
  host.attachShadow({ mode: "open" }).append(style, main, live);
  el.append(host);
  announceIn(live);
  const around: Host = { data, remember: () => undefined, link: () => null };
  const values = new URLSearchParams();
  let screen: Screen | null = null, closed = false;
  main.addEventListener("keydown", (event) => {
    press(event, screen?.shortcuts ?? []);
    event.stopPropagation(); // the notebook has keys of its own
  });
  data.open().then(() => {
    if (closed) return;
    const [a, b] = about.items as [Shown, Shown];
    screen = about.pair === null ? new ImageView(main, around, a, values) : new PairView(main, around, about.pair, [a, b], values);
  }).catch((error: unknown) => main.replaceChildren(make("p", { class: "notice" }, complain(error))));
  return () => {
    closed = true;
    screen?.destroy();
    data.close();
  };
}

(globalThis as { OpenSeadragon?: unknown }).OpenSeadragon ??= library;

export default { render };
