"""How keypoints should be selected: cell phases, NMS radius, threshold, and places in the cell.

    python benchmarks/selection.py --photos ../shared/photos --checkpoint default

First the places: the network decides in cells of 8x8 px, and where its best keypoints are within
the cells should not depend on the grid. Prints how often each of the 64 places comes, least and
most, relative to an even share. The photographs are of the development part, downscaled to 0.83,
off the grid of their JPEG blocks; whole pixels, before refinement.

Then pairs generated from the same photographs, with 1,000 keypoints: by numbers of cell phases
(also with several phases for the descriptors only), by NMS radii, and without a limit at several
thresholds. All rows of a network are computed from the same dense maps.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint import Features, images
from tiepoint.architecture import CELL_PX
from tiepoint.config import DetectionOptions
from tiepoint.detector import Detector
from tiepoint.evaluation.generated import generated_pairs
from tiepoint.evaluation.homography import HOMOGRAPHY
from tiepoint.evaluation.methods import OVERSAMPLING, Method
from tiepoint.evaluation.run import evaluate
from tiepoint.evaluation.settings import PROFILES
from tiepoint.evaluation.summary import rows
from tiepoint.geometry import Placement
from tiepoint.images.photographs import list_photos
from tiepoint.network.dense_maps import DenseMaps
from tiepoint.network.engine import Engine
from tiepoint.network.engines import EnginePool
from tiepoint.network.inputs import to_grey

SCALE, BEST, SEED = 0.83, 1000, 7
RADII_PX = (2, 3, 4, 5, 6)
MEDIAN_POINTS = (300, 600, 1200, 2400)
MOST_POINTS = 20_000
REMEMBERED = 8
"""Inputs whose maps are kept: both images of a pair, at two sizes, and more than one phase."""


@dataclass
class Remembering:
    """An engine that keeps its latest maps, so that many settings cost one run of the network.

    With `descriptor_phases`, descriptors have that number of phases and the heat map has one.
    """

    engine: Engine
    descriptor_phases: int | None = None
    maps: OrderedDict[Any, DenseMaps[Any]] = field(default_factory=OrderedDict)
    batch_size: int = 1
    in_flight: int = 1

    def run(
        self,
        inputs: NDArray[np.float32],
        placements: Sequence[Placement],
        *,
        descriptors: bool,
        phases: int = 1,
    ) -> DenseMaps[Any]:
        wanted = (inputs.tobytes(), inputs.shape, tuple(placements))
        run = partial(self._run, wanted, inputs, placements, descriptors=descriptors)
        if self.descriptor_phases is None:
            return run(phases=phases)
        return replace(run(phases=self.descriptor_phases), heatmap=run(phases=1).heatmap)

    def _run(self, wanted: Any, *given: Any, descriptors: bool, phases: int) -> DenseMaps[Any]:
        key = (wanted, descriptors, phases)
        if key not in self.maps:
            self.maps[key] = self.engine.run(*given, descriptors=descriptors, phases=phases)
        self.maps.move_to_end(key)
        while len(self.maps) > REMEMBERED:
            self.maps.popitem(last=False)
        return self.maps[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--count", type=int, default=90, help="pairs")
    arguments = parser.parse_args()
    photos = list_photos(arguments.photos, "development")
    detector = Detector(arguments.checkpoint, precision="f32", threshold=0.0, max_side=None)
    engine = EnginePool(
        detector.checkpoint, "auto", "auto", "f32", compiled=False, threads=None
    ).get("single")
    for phases in (1, 2):
        print_places(detector, photos, phases)
    thresholds = {n: threshold(detector, photos, n) for n in MEDIAN_POINTS}
    method = partial(make_method, detector, Remembering(engine))
    methods = [
        make_method(detector, Remembering(engine, 2), "2 phases for descriptors only", phases=1),
        *(method(f"{n} phase{'s' * (n > 1)}", phases=n) for n in (1, 2, 4)),
        *(method(f"NMS {radius} px", nms_radius=radius) for radius in RADII_PX),
    ]
    pairs = generated_pairs(photos, arguments.count, SEED)
    settings = replace(PROFILES["tiepoint"], within_px=(1.0, 3.0, 5.0))
    titles = (
        f"{len(pairs)} pairs", "keypoints", "within 1 / 3 / 5 px", "AUC 1 / 3 / 5 px",
        "repeatability", "precision", "correct matches",
    )  # fmt: skip
    print("\n| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|", flush=True)
    print_rows(pairs, methods, settings)
    methods = [
        method(f"threshold {value:.2g} (median {n} points)", threshold=value)
        for n, value in thresholds.items()
    ]
    print_rows(pairs, methods, replace(settings, k=10**6))


def print_rows(pairs: Any, methods: list[Method], settings: Any) -> None:
    for row in rows(evaluate(HOMOGRAPHY, pairs, methods, settings))[: len(methods)]:
        means = row.means
        within = " / ".join(f"{share.mean:.3f}" for share in means.within.values())
        areas = " / ".join(f"{share.mean:.3f}" for share in means.auc.values())
        cells = (
            row.method, f"{row.keypoints:.0f}", within, areas, f"{means.repeatability.mean:.3f}",
            f"{means.precision.mean:.3f}", f"{means.correct.mean:.0f}",
        )  # fmt: skip
        print("| " + " | ".join(cells) + " |", flush=True)


def print_places(detector: Detector, photos: list[Path], phases: int) -> None:
    counts = in_cell_counts(detector, photos, phases)
    even = counts.sum() / counts.size
    spread = np.sqrt(even) / even  # of a count that comes by chance
    print(f"{phases} phases, places of the best {BEST} of {len(photos)} photographs: "
          f"{counts.min() / even:.2f} to {counts.max() / even:.2f} of an even share, "
          f"chance {spread:.2f} either way")  # fmt: skip
    print("\n".join(" ".join(f"{n / even:4.2f}" for n in row) for row in counts), flush=True)


def in_cell_counts(detector: Detector, photos: list[Path], phases: int) -> NDArray[np.int64]:
    """8 8: how often a keypoint is in each row and column of its cell."""
    counts = np.zeros((CELL_PX, CELL_PX), np.int64)
    options: DetectionOptions = {
        "phases": phases, "descriptors": False, "scales": (1.0,), "subpixel": False,
        "max_keypoints": BEST,
    }  # fmt: skip
    for path in photos:
        grey = to_grey(images.read(path).pixels)
        smaller = cv2.resize(grey, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_AREA)
        found = detector(smaller.astype(np.float32), **options)
        xy = found.xy.astype(int)
        np.add.at(counts, (xy[:, 1] % CELL_PX, xy[:, 0] % CELL_PX), 1)
    return counts


def threshold(detector: Detector, photos: list[Path], points: int) -> float:
    """The score at which the median photograph keeps `points` keypoints, long side 640 px."""
    found = detector.stream(
        photos, max_side=640, scales=(1.0,), max_keypoints=points, descriptors=False
    )
    return float(np.median([d.require().scores[-1] for d in found if len(d.require())]))


def make_method(
    detector: Detector, engine: Engine, name: str, **options: Unpack[DetectionOptions]
) -> Method:
    settings: DetectionOptions = {"max_side": None, "threshold": 0.0, "noise_floor": 0.0, **options}
    own = Detector(detector.checkpoint, engine=engine, **settings)

    def detect(grey: NDArray[np.uint8], k: int) -> Features:
        return own(grey, max_keypoints=min(OVERSAMPLING * k, MOST_POINTS))

    return Method(name, detect)


if __name__ == "__main__":
    main()
