"""Verdicts of `register` on situations that invite a wrong answer (benchmarks/situations.py).

Unrelated pairs must be refused: blank frames, overlays, and photographs of different scenes, of
which the features are matched. True pairs should be registered, and may be refused; a registered
one is wrong if it is off by more than 5 px rms over the common view. Zoomed pairs are registered
in both orders, which must give one verdict and inverse matrices.

    python benchmarks/verdicts.py --photos ../shared/photos
    python benchmarks/verdicts.py --photos ../shared/photos --method learned --matcher runs/base
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

import situations
from situations import CHANGES, OVERLAYS, Situation
from tiepoint.config import MatchMethod, Model, Precision
from tiepoint.detector import Detector
from tiepoint.geometry import apply_homography, inside
from tiepoint.images.photographs import list_photos
from tiepoint.registration.register import register, registration_detector
from tiepoint.registration.result import Registration

COUNTS = {
    "blank": 400,
    "faint": 100,
    "facade": 64,
    "overlay": 200,
    "motion": 40,
    "changed": 90,
    "jpeg": 100,
    "zoom": 60,
    "unrelated": 4000,
}
WRONG_PX = 5.0
GRID = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--precision", default="auto", choices=get_args(Precision))
    parser.add_argument("--model", default="homography", choices=get_args(Model))
    parser.add_argument("--method", default="nearest", choices=get_args(MatchMethod))
    parser.add_argument("--matcher", help="folder of a learned matcher; default: the checkpoint's")
    parser.add_argument("--kinds", nargs="*", default=list(COUNTS), choices=COUNTS)
    parser.add_argument("--share", type=float, default=1.0, help="part of the pairs, 0..1")
    options = parser.parse_args()
    photos = list_photos(options.photos)
    detector = registration_detector(options.checkpoint, precision=options.precision)
    method = {"method": options.method, "matcher": options.matcher}
    how = {"model": options.model, **method}
    print(f"{detector}, model {options.model}, {options.method}\n")
    print(f"{'':34s} pairs  registered  wrong  off by more than 2 / 3 sd  median px  sd px")
    asymmetric = 0
    fixed: list[float] = []  # agreement and coverage of unrelated pairs refused by their sum
    for name in options.kinds:
        count = max(1, round(options.share * COUNTS[name]))
        if name == "unrelated":
            print(unrelated_row(detector, photos, count, **how), flush=True)
            continue
        rows: dict[str, list[tuple[Situation, Registration]]] = defaultdict(list)
        for pair in drawn(name, photos, count):
            both = pair.image_a, pair.image_b
            cameras = [camera(image) for image in both] if options.model == "essential" else None
            result = register(*both, detector=detector, intrinsics=cameras, **how)
            rows[pair.kind].append((pair, result))
            if pair.truth is None and "something fixed" in result.reason:
                fixed.append(result.agreement + result.coverage)
            if name == "zoom":
                back = register(*both[::-1], detector=detector, **how)
                asymmetric += not inverse(result, back)
        for kind, results in rows.items():
            print(row(kind, results), flush=True)
    if "zoom" in options.kinds:
        print(f"\nzoomed pairs whose two orders disagree: {asymmetric}")
    if fixed:
        print(f"agreement and coverage of unrelated pairs add up to {max(fixed):.2f} at most")


def drawn(name: str, photos: list[Path], count: int) -> Iterator[Situation]:
    """The pairs of a kind; each depends on its kind and index alone."""
    for index in range(count):
        rng = np.random.default_rng([list(COUNTS).index(name), index])
        if name == "blank":
            yield situations.blank(rng)
        elif name == "faint":
            yield situations.faint(rng, photos)
        elif name == "facade":
            yield situations.facade(rng)
        elif name == "overlay":
            yield situations.overlay(rng, photos, OVERLAYS[index % len(OVERLAYS)])
        elif name == "motion":
            yield situations.overlay_on_motion(rng, photos)
        elif name == "changed":
            yield situations.changed(rng, photos, CHANGES[index % len(CHANGES)])
        elif name == "jpeg":
            yield situations.heavily_compressed(rng, photos)
        else:
            yield situations.zoomed(rng, photos)


def unrelated_row(detector: Detector, photos: list[Path], count: int, **how: Any) -> str:
    """Random pairs of photographs, and the names of those that are registered."""
    rng = np.random.default_rng(len(COUNTS))
    pairs = [rng.choice(len(photos), 2, replace=False) for _ in range(count)]
    features = {number: detector(photos[number]) for number in sorted({*np.ravel(pairs).tolist()})}
    found = [
        (photos[a].name, photos[b].name)
        for a, b in pairs
        if register(features[a], features[b], **how).success
    ]
    return "\n".join(
        [f"{'photographs of different scenes':34s} {count:5d}  {len(found):10d}",
         *(f"    {a} {b}" for a, b in found)]
    )  # fmt: skip


def row(kind: str, results: list[tuple[Situation, Registration]]) -> str:
    registered = [(pair, result) for pair, result in results if result.success]
    line = f"{kind:34s} {len(results):5d}  {len(registered):10d}"
    if not registered:
        return f"{line}  {0:5d}"
    if registered[0][0].truth is None:
        return f"{line}  {len(registered):5d}"
    off = np.array([error_px(pair, result) for pair, result in registered])
    sd = np.array([result.overlap_sd_px for _, result in registered])
    beyond = " / ".join(f"{int((off > factor * sd).sum()):d}" for factor in (2, 3))
    return (
        f"{line}  {int((off > WRONG_PX).sum()):5d}  {beyond:>23s}  "
        f"{np.median(off):9.2f}  {np.median(sd):5.2f}"
    )


def error_px(pair: Situation, result: Registration) -> float:
    """rms over the common view, px of B."""
    assert pair.truth is not None
    height, width = pair.image_a.shape
    steps = (np.arange(GRID) + 0.5) / GRID
    x, y = np.meshgrid(steps * width - 0.5, steps * height - 0.5)
    places = np.stack([x.ravel(), y.ravel()], axis=1)
    true_xy = apply_homography(pair.truth, places)
    shown = inside(true_xy, (pair.image_b.shape[0], pair.image_b.shape[1]))
    apart = result.transform(places[shown]) - true_xy[shown]
    error = float(np.sqrt((apart**2).sum(axis=1).mean()))
    return error if np.isfinite(error) else np.inf


def inverse(there: Registration, back: Registration) -> bool:
    """One verdict, and matrices that undo each other to a thousandth of a pixel."""
    if not there.success or not back.success:
        return there.success == back.success
    corners = np.array([[0.0, 0.0], [100, 0], [0, 100]])
    returned = back.transform(there.transform(corners))
    return bool(np.abs(returned - corners).max() < 1e-3)


def camera(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    height, width = image.shape
    focal = 1.2 * max(height, width)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


if __name__ == "__main__":
    main()
