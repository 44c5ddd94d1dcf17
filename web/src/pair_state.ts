// The matches of a pair with what was changed by hand, apart from how they are drawn.

import type { Data, PairMeta } from "./api";
import { MatchSet, PointSet } from "./layer";
import { text } from "./texts";

export const COLUMNS = 9;

export enum State { Inlier, Far, NoPlace, NoModel }

export interface Match {
  xa: number;
  ya: number;
  xb: number;
  yb: number;
  score: number;
  state: State;
  dx: number;
  dy: number;
  origin: number;
}

/** Tie points added since the last fit are kept in `pending`, those before it are matches. */
export class PairState {
  meta!: PairMeta;
  points!: [PointSet, PointSet];
  matches!: MatchSet;
  /** Indices into the first fit's matches. */
  removed = new Set<number>();
  added: number[][] = [];
  /** What the matches that are shown were fitted with. */
  fitted = { removed: 0, added: 0 };

  constructor(private readonly data: Data, private readonly id: string) {}

  /** Register the pair with the changes so far. */
  async fit(): Promise<void> {
    const removed = [...this.removed], added = this.added.map((row) => [...row]);
    const { meta, arrays } = await this.data.fit(this.id, removed, added);
    this.meta = meta;
    this.points = [new PointSet(arrays["points_a"]!), new PointSet(arrays["points_b"]!)];
    this.matches = new MatchSet(arrays["matches"]!);
    this.fitted = { removed: removed.length, added: added.length };
  }

  get changed(): boolean {
    return this.removed.size > 0 || this.added.length > 0;
  }

  /** Tie points added since the last fit: x and y in A, x and y in B. */
  get pending(): number[][] {
    return this.added.slice(this.fitted.added);
  }

  at(index: number): Match {
    const values = this.matches.table.values, i = index * COLUMNS;
    return {
      xa: values[i]!, ya: values[i + 1]!, xb: values[i + 2]!, yb: values[i + 3]!,
      score: values[i + 4]!, state: values[i + 5]!, dx: values[i + 6]!, dy: values[i + 7]!,
      origin: values[i + 8]!,
    };
  }

  /** Index of the keypoint in A of a match. */
  keypoint(index: number): number {
    const { xa, ya } = this.at(index), { values } = this.points[0].table;
    let row = 0;
    while (row * 7 < values.length && (values[row * 7] !== xa || values[row * 7 + 1] !== ya)) row++;
    return row;
  }

  isRemoved(index: number): boolean {
    return this.matches.removed[index] === 1;
  }

  /** Remove a match of the next fit, or take it back. */
  flip(index: number): void {
    const { origin } = this.at(index);
    const now = !this.isRemoved(index);
    this.matches.removed[index] = now ? 1 : 0;
    if (origin >= 0) {
      if (now) this.removed.add(origin);
      else this.removed.delete(origin);
    }
  }

  /** Added tie points that were removed again leave the next fit. */
  settleAdded(): void {
    const gone = new Set<number>();
    for (let i = 0; i < this.matches.count; i++) {
      const { origin } = this.at(i);
      if (origin < 0 && this.isRemoved(i)) gone.add(-1 - origin);
    }
    this.added = this.added.filter((_, k) => !gone.has(k));
  }

  discard(): void {
    this.removed.clear();
    this.added = [];
  }

  /** The state of a match in words. */
  words(index: number): string {
    const { state, dx, dy, origin } = this.at(index);
    if (this.isRemoved(index)) return text("stateRemoved");
    const by = origin < 0 ? `${text("stateAdded")}. ` : "";
    if (state === State.Inlier) return by + text("stateInlier");
    if (state === State.Far) return by + text("stateFar", { n: Math.hypot(dx, dy).toFixed(1) });
    if (state === State.NoPlace) return by + text("stateNoPlace");
    return by + text("stateNoModel", { reason: this.meta.reason });
  }
}
