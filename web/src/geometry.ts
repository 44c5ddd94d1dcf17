// The registration's plane model: px of A -> px of B.

export type Matrix = number[][];

/** Map a point; null behind the horizon. */
export function apply(matrix: Matrix, x: number, y: number): { x: number; y: number } | null {
  const [u = 0, v = 0, w = 0] = matrix.map((row) => row[0]! * x + row[1]! * y + row[2]!);
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

/** px of the target per px of the source around a place. */
export function zoomAt(matrix: Matrix, x: number, y: number): number {
  const [at, right, below] = [apply(matrix, x, y), apply(matrix, x + 1, y), apply(matrix, x, y + 1)];
  if (at === null || right === null || below === null) return 1;
  const area = (right.x - at.x) * (below.y - at.y) - (right.y - at.y) * (below.x - at.x);
  return Math.sqrt(Math.abs(area)) || 1;
}
