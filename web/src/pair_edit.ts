// Changes by hand: matches that are removed, tie points that are added, and the fit with them.

import { announce, button, make } from "./dom";
import type { Point } from "./geometry";
import { MatchSet, type Frame, type Layer } from "./layer";
import { COLUMNS, State, type PairState } from "./pair_state";
import type { Pane } from "./pane";
import { text } from "./texts";

export interface EditEvents {
  /** Something to draw is another one. */
  changed(): void;
  /** Both images are to be side by side. */
  sideBySide(): void;
  fit(): void;
  /** Remove the selected match, or take it back. */
  flip(): void;
}

export class Editing {
  readonly box = make("div");
  /** What the next click places: an end in A, or the other one of a place in A. */
  private adding: Point | "a" | null = null;

  constructor(
    private readonly state: PairState, private readonly panes: [Pane, Pane],
    private readonly stage: HTMLElement, private readonly events: EditEvents,
  ) {}

  get isAdding(): boolean {
    return this.adding !== null;
  }

  /** Show the buttons for a selected match; -1 without one. */
  show(selected: number): void {
    const { state, adding } = this, removed = selected >= 0 && state.isRemoved(selected);
    const flip = button(text(removed ? "restore" : "remove"), () => this.events.flip());
    flip.disabled = selected < 0;
    const fit = button(text("fitAgain"), () => this.events.fit(), { class: "primary" });
    fit.disabled = !state.changed && state.fitted.removed + state.fitted.added === 0;
    const undo = button(text("undoAll"), () => {
      state.discard();
      this.adding = null;
      this.events.fit();
    });
    undo.disabled = !state.changed;
    this.box.replaceChildren(
      make("p", { class: "hint" }, text(adding === null ? "editHint" : adding === "a" ? "addA" : "addB")),
      make("p", { class: "status" }, text("changes", { removed: state.removed.size, added: state.added.length })),
      make("div", { class: "buttons" }, flip, button(text(adding === null ? "add" : "addStop"), () => this.toggle()), fit, undo),
    );
    this.stage.classList.toggle("adding", adding !== null);
  }

  /** Start to add a tie point, or stop. */
  toggle(): void {
    this.events.sideBySide();
    this.adding = this.adding === null ? "a" : null;
    if (this.adding !== null) announce(text("addA"));
    this.events.changed();
  }

  /** Place an end of a tie point. */
  put(pane: Pane, { x, y }: Point): void {
    const [a] = this.panes, inside = x >= -0.5 && y >= -0.5 && x <= pane.width - 0.5 && y <= pane.height - 0.5;
    if (!inside) return;
    if (pane === a) {
      this.adding = { x, y };
      announce(text("addB"));
    } else if (this.adding !== "a" && this.adding !== null) {
      this.state.added.push([this.adding.x, this.adding.y, x, y]);
      this.adding = null;
      announce(text("added"));
    }
    this.events.changed();
  }

  /** Place an end in the middle of its pane. */
  putCentre(): void {
    if (this.adding === null) return;
    const pane = this.panes[this.adding === "a" ? 0 : 1];
    this.put(pane, pane.view);
  }

  /** Tie points that were added after the last fit, and a first end without its second. */
  draw(layer: Layer, frame: Frame, side: 0 | 1): void {
    const rows = this.state.pending.map((row) => (side === 0 ? [row[0]!, row[1]!] : [row[2]!, row[3]!]));
    if (side === 0 && this.adding !== null && this.adding !== "a") rows.push([this.adding.x, this.adding.y]);
    const set = segments(rows.map(([x, y]) => [x!, y!, x!, y!]));
    layer.drawEnds(set, frame, side, 0, -1, 6);
    layer.drop(set);
  }
}

/** Pairs of places that are drawn like added matches: x, y, x, y. */
export function segments(ends: [number, number, number, number][]): MatchSet {
  const values = new Float32Array(ends.length * COLUMNS);
  ends.forEach((row, i) => values.set([...row, 1, State.Inlier, NaN, NaN, -1], i * COLUMNS));
  return new MatchSet({ rows: ends.length, columns: COLUMNS, values });
}
