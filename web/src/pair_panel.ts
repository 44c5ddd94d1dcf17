// The verdict and the figures of a registration.

import type { PairMeta } from "./api";
import { digits, facts, make, section } from "./dom";
import { count, text } from "./texts";

/** Verdict, reason and figures. */
export function verdict(meta: PairMeta, fitted: { removed: number; added: number }): HTMLElement {
  const px = (value: number | null): string => (value === null ? text("unknown") : `${value.toFixed(2)} px`);
  const share = (value: number | null): string => (value === null ? text("unknown") : `${Math.round(100 * value)} %`);
  const badge = make(
    "p", { class: meta.success ? "verdict good" : "verdict bad" },
    text(meta.success ? "registered" : "notRegistered"),
  );
  const notes: string[] = [];
  if (fitted.removed || fitted.added) notes.push(text("changesFitted", fitted));
  if (meta.recorded_success !== null && meta.recorded_success !== meta.success) notes.push(text("differsVerdict"));
  else if (meta.differs_px !== null && meta.differs_px > 0.5) notes.push(text("differs", { n: digits(meta.differs_px, 1) }));
  return section(
    "verdict", badge,
    meta.success ? null : make("p", { class: "reason" }, meta.reason),
    ...notes.map((note) => make("p", { class: "hint" }, note)),
    facts([
      [text("model"), text(`model_${meta.model}`)],
      [text("matches"), count(meta.matches)],
      [text("inliers"), `${count(meta.inliers)} (${share(meta.inlier_ratio)})`],
      [text("medianError"), px(meta.reprojection_px.median)],
      [text("rmsError"), px(meta.reprojection_px.rms)],
      [text("overlapSd"), px(meta.overlap_sd_px)],
      [text("cornerSd"), px(meta.corner_sd_px)],
      [text("coverage"), share(meta.coverage)],
      [text("agreement"), share(meta.agreement)],
      [text("threshold"), text("inputPx", { n: meta.inlier_px })],
    ]),
  );
}
