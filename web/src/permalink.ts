// The state of the page in the URL's hash: #/image/ID?x=...&y=...&z=...

import { debounced } from "./dom";

export interface Place {
  kind: "gallery" | "image" | "pair";
  id: string;
  values: URLSearchParams;
}

/** The place that a hash names; null for an empty or unknown one. */
export function parse(hash: string): Place | null {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [kind = "", id = ""] = path.split("/");
  if (kind === "gallery" || ((kind === "image" || kind === "pair") && id))
    return { kind, id, values: new URLSearchParams(query) };
  return null;
}

export function link(kind: Place["kind"], id = "", values: Record<string, string> = {}): string {
  const query = new URLSearchParams(values).toString();
  return `#/${kind}${id ? `/${id}` : ""}${query ? `?${query}` : ""}`;
}

export function number(values: URLSearchParams, name: string, otherwise: number): number {
  const value = values.has(name) ? Number(values.get(name)) : NaN;
  return Number.isFinite(value) ? value : otherwise;
}

/** Write the state of a place, without a new entry of the history. */
export const remember = debounced(200, (kind: Place["kind"], id: string, values: Record<string, string>) => {
  const to = link(kind, id, values), here = parse(location.hash);
  if (here?.kind === kind && here.id === id && to !== location.hash) history.replaceState(null, "", to);
});
