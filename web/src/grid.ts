// Points in cells, so that the one under the pointer is found among millions.

const PER_CELL = 4;

/** Finds the nearest of N points. */
export class Grid {
  private readonly start: Uint32Array;
  private readonly order: Uint32Array;
  private readonly columns: number;
  private readonly rows: number;
  private readonly cell: number;
  private readonly left: number;
  private readonly top: number;

  /**
   * @param values Rows of `stride` numbers, x and y at `at` and `at + 1`.
   */
  constructor(
    private readonly values: Float32Array,
    private readonly stride: number,
    private readonly at = 0,
  ) {
    const n = values.length / stride;
    let left = Infinity, top = Infinity, right = -Infinity, bottom = -Infinity;
    for (let i = 0; i < n; i++) {
      const x = this.x(i), y = this.y(i);
      if (x < left) left = x;
      if (x > right) right = x;
      if (y < top) top = y;
      if (y > bottom) bottom = y;
    }
    const width = Math.max(right - left, 1), height = Math.max(bottom - top, 1);
    this.left = n ? left : 0;
    this.top = n ? top : 0;
    this.cell = n ? Math.max(Math.sqrt((width * height * PER_CELL) / n), 1e-3) : 1;
    this.columns = n ? Math.floor(width / this.cell) + 1 : 1;
    this.rows = n ? Math.floor(height / this.cell) + 1 : 1;
    this.start = new Uint32Array(this.columns * this.rows + 1);
    const cells = new Uint32Array(n);
    for (let i = 0; i < n; i++) {
      const c = this.cellOf(this.x(i), this.y(i));
      cells[i] = c;
      this.start[c + 1]!++;
    }
    for (let c = 1; c < this.start.length; c++) this.start[c]! += this.start[c - 1]!;
    this.order = new Uint32Array(n);
    const next = this.start.slice();
    for (let i = 0; i < n; i++) this.order[next[cells[i]!]!++] = i;
  }

  /** The nearest point within a distance that passes a test; -1 without one. */
  nearest(x: number, y: number, within: number, passes: (index: number) => boolean): number {
    const [c0, r0] = this.place(x - within, y - within);
    const [c1, r1] = this.place(x + within, y + within);
    let best = -1, least = within * within;
    for (let r = r0; r <= r1; r++) {
      for (let c = c0; c <= c1; c++) {
        const cell = r * this.columns + c;
        for (let k = this.start[cell]!; k < this.start[cell + 1]!; k++) {
          const i = this.order[k]!;
          const dx = this.x(i) - x, dy = this.y(i) - y;
          const squared = dx * dx + dy * dy;
          if ((squared < least || (squared === least && best < 0)) && passes(i)) {
            best = i;
            least = squared;
          }
        }
      }
    }
    return best;
  }

  private x(i: number): number {
    return this.values[i * this.stride + this.at]!;
  }

  private y(i: number): number {
    return this.values[i * this.stride + this.at + 1]!;
  }

  private place(x: number, y: number): [number, number] {
    const column = Math.floor((x - this.left) / this.cell);
    const row = Math.floor((y - this.top) / this.cell);
    return [
      Math.min(Math.max(column, 0), this.columns - 1),
      Math.min(Math.max(row, 0), this.rows - 1),
    ];
  }

  private cellOf(x: number, y: number): number {
    const [column, row] = this.place(x, y);
    return row * this.columns + column;
  }
}
