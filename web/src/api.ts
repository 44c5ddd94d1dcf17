// Requests to the local process, and the bytes that it answers with.

export interface Tiles {
  source: string;
  width: number;
  height: number;
  levels: number;
  tile: number;
  error: string | null;
  /** Whether it is read in windows, and its keypoints are detected in tiles when asked. */
  windowed?: boolean;
  /** Width and height of a smaller picture that is shown in its place. */
  shown?: [number, number];
}

export interface Item {
  id: string;
  name: string;
  count: number | null;
  size_hw: [number, number] | null;
  stored: boolean;
}

export interface Named {
  id: string;
  name: string;
}

export interface Pair {
  id: string;
  a: Named;
  b: Named;
}

export interface Session {
  version: string;
  items: number;
  first: string | null;
  pairs: Pair[];
  notes: string[];
}

export interface PointsMeta {
  count: number;
  size_hw: [number, number];
  checkpoint: string | null;
  nms_radius: number | null;
  described: boolean;
  px_per_input_px: number;
}

export interface PairMeta {
  success: boolean;
  reason: string;
  model: "homography" | "affine" | "similarity" | "translation" | "fundamental" | "essential";
  matrix: number[][] | null;
  matches: number;
  inliers: number;
  inlier_ratio: number;
  coverage: number;
  agreement: number | null;
  reprojection_px: { median: number | null; rms: number | null };
  overlap_sd_px: number | null;
  corner_sd_px: number | null;
  size_hw: [[number, number], [number, number]];
  inlier_px: number;
  is_plane: boolean;
  /** px of A and B: x_B^T F x_A = 0; null for a plane model. */
  fundamental: number[][] | null;
  a: PointsMeta;
  b: PointsMeta;
  differs_px: number | null;
  recorded_success: boolean | null;
}

export interface Near {
  image: string;
  name: string;
  row: number;
  x: number;
  y: number;
  cosine: number;
}

export interface Table {
  rows: number;
  columns: number;
  values: Float32Array;
}

export interface Packed<Meta> {
  meta: Meta;
  arrays: Record<string, Table>;
}

/** An answer that is an error, with the server's words. */
export class Refused extends Error {}
/** No answer at all. */
export class Gone extends Error {}

async function answer(path: string, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Gone(path);
  }
  if (response.ok) return response;
  const body: unknown = await response.json().catch(() => ({}));
  const { error } = body as { error?: { message: string } };
  throw new Refused(error?.message ?? `HTTP ${response.status}`);
}

async function json<T>(path: string, init?: RequestInit): Promise<T> {
  return (await answer(path, init)).json() as Promise<T>;
}

async function packed<Meta>(path: string, init?: RequestInit): Promise<Packed<Meta>> {
  return unpack<Meta>(await (await answer(path, init)).arrayBuffer());
}

/** Bytes of `payload.packed`. */
export function unpack<Meta>(buffer: ArrayBuffer): Packed<Meta> {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length))) as {
    meta: Meta;
    arrays: Record<string, [number, number]>;
  };
  const arrays: Record<string, Table> = {};
  let offset = 4 + length;
  for (const [name, [rows, columns]] of Object.entries(head.arrays)) {
    arrays[name] = { rows, columns, values: new Float32Array(buffer, offset, rows * columns) };
    offset += 4 * rows * columns;
  }
  return { meta: head.meta, arrays };
}

const id = encodeURIComponent;

/** Where a view gets its data. */
export interface Data {
  source(source: string): Promise<Tiles>;
  points(item: string, nms: number | null, tiled: boolean): Promise<Packed<PointsMeta>>;
  nearest(item: string, index: number, nms: number | null, signal: AbortSignal): Promise<Near[]>;
  nearestInPair(pair: string, side: "a" | "b", index: number, signal: AbortSignal): Promise<Near[]>;
  fit(pair: string, removed: number[], added: number[][]): Promise<Packed<PairMeta>>;
  /** URL of the pixels around a place. */
  patch(item: string, x: number, y: number): string;
  /** URL of a tile. */
  tile(source: string, level: number, column: number, row: number): string;
}

export const api = {
  session: () => json<Session>("/api/session"),
  items: (offset: number, limit: number, query: string, signal: AbortSignal) =>
    json<{ total: number; items: Item[] }>(
      `/api/items?offset=${offset}&limit=${limit}&q=${encodeURIComponent(query)}`,
      { signal },
    ),
  image: (item: string) => json<Item & Tiles>(`/api/images/${id(item)}`),
  source: (source: string) => json<Tiles>(`/api/sources/${id(source)}`),
  points: (item: string, nms: number | null, tiled: boolean) =>
    packed<PointsMeta>(
      `/api/images/${id(item)}/points${tiled ? "?tiled=true" : nms === null ? "" : `?nms_radius=${nms}`}`,
    ),
  nearest: (item: string, index: number, nms: number | null, signal: AbortSignal) =>
    json<Near[]>(
      `/api/images/${id(item)}/nearest?index=${index}${nms === null ? "" : `&nms_radius=${nms}`}`,
      { signal },
    ),
  nearestInPair: (pair: string, side: "a" | "b", index: number, signal: AbortSignal) =>
    json<Near[]>(`/api/pairs/${id(pair)}/nearest?side=${side}&index=${index}`, { signal }),
  fit: (pair: string, removed: number[], added: number[][]) =>
    packed<PairMeta>(`/api/pairs/${id(pair)}/fit`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ removed, added }),
    }),
  thumbnail: (item: string) => `/api/images/${id(item)}/thumbnail`,
  patch: (item: string, x: number, y: number) => `/api/images/${id(item)}/patch?x=${x}&y=${y}`,
  tile: (source: string, level: number, column: number, row: number) =>
    `/api/tiles/${id(source)}/${level}/${column}/${row}`,
} satisfies Data & Record<string, unknown>;
