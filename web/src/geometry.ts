// Maps between A and B: a plane model, the nearest matches without one, and epipolar lines.

export type Matrix = number[][];

export interface Point {
  x: number;
  y: number;
}

/** A place in the other image, and px there per px here. */
export interface Linked extends Point {
  zoom: number;
}

/** Map a point; null behind the horizon. */
export function apply(matrix: Matrix, x: number, y: number): Point | null {
  const [u, v, w] = times(matrix, x, y);
  return w > 0 ? { x: u / w, y: v / w } : null;
}

export function inverse(m: Matrix): Matrix {
  const [[a, b, c], [d, e, f], [g, h, i]] = m as [[number, number, number], [number, number, number], [number, number, number]];
  const determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  return [
    [e * i - f * h, c * h - b * i, b * f - c * e],
    [f * g - d * i, a * i - c * g, c * d - a * f],
    [d * h - e * g, b * g - a * h, a * e - b * d],
  ].map((row) => row.map((value) => value / determinant));
}

export function transposed(m: Matrix): Matrix {
  return [0, 1, 2].map((column) => m.map((row) => row[column]!));
}

/** The place of a point by a plane model. */
export function byPlane(matrix: Matrix, { x, y }: Point): Linked | null {
  const [at, right, below] = [apply(matrix, x, y), apply(matrix, x + 1, y), apply(matrix, x, y + 1)];
  if (at === null) return null;
  if (right === null || below === null) return { ...at, zoom: 1 };
  const area = (right.x - at.x) * (below.y - at.y) - (right.y - at.y) * (below.x - at.x);
  return { ...at, zoom: Math.sqrt(Math.abs(area)) || 1 };
}

const NEAREST = 8, LEAST = 3;

/** The place of a point by the nearest of N matches: their mean shift and their scale. */
export function byMatches(pairs: { from: Point; to: Point }[], { x, y }: Point): Linked | null {
  if (pairs.length < LEAST) return null;
  const apart = (at: Point): number => (at.x - x) ** 2 + (at.y - y) ** 2;
  const near = [...pairs].sort((a, b) => apart(a.from) - apart(b.from)).slice(0, NEAREST);
  const from = middle(near.map((pair) => pair.from)), to = middle(near.map((pair) => pair.to));
  const zoom = Math.min(4, Math.max(0.25, to.spread / from.spread || 1));
  return { x: to.x + (x - from.x) * zoom, y: to.y + (y - from.y) * zoom, zoom };
}

function middle(points: Point[]): Point & { spread: number } {
  const n = points.length;
  const x = points.reduce((sum, at) => sum + at.x, 0) / n, y = points.reduce((sum, at) => sum + at.y, 0) / n;
  return { x, y, spread: Math.sqrt(points.reduce((sum, at) => sum + (at.x - x) ** 2 + (at.y - y) ** 2, 0) / n) };
}

/** The part of an epipolar line inside an image: x, y of both ends; null outside of it. */
export function epipolarLine(
  fundamental: Matrix, { x, y }: Point, width: number, height: number,
): [number, number, number, number] | null {
  const [a, b, c] = times(fundamental, x, y);
  const [right, bottom] = [width - 0.5, height - 0.5], ends: [number, number][] = [];
  for (const u of [-0.5, right]) if (b !== 0) ends.push([u, -(a * u + c) / b]);
  for (const v of [-0.5, bottom]) if (a !== 0) ends.push([-(b * v + c) / a, v]);
  const inside = ends.filter(([u, v]) => u > -0.51 && v > -0.51 && u < right + 0.01 && v < bottom + 0.01);
  inside.sort(([u0, v0], [u1, v1]) => u0 - u1 || v0 - v1);
  const first = inside[0], last = inside.at(-1);
  return first === undefined || last === undefined || first === last ? null : [...first, ...last];
}

function times(matrix: Matrix, x: number, y: number): [number, number, number] {
  return matrix.map((row) => row[0]! * x + row[1]! * y + row[2]!) as [number, number, number];
}
