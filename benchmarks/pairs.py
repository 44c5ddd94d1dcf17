"""Two images in memory to a verified homography: each stage, by nearest neighbours and learned.

    python benchmarks/pairs.py --repeats 20 --json pairs.json
    python benchmarks/pairs.py --matcher base=runs/base/matcher --matcher small=runs/small/matcher

A photograph of 640x480 px and a warped copy, 1,000 keypoints each, on all usable cores. All rows
take turns, so that a slow moment hits them all. Prints medians in milliseconds:

- detect: both images, one after the other.
- match: features to matches.
- estimate: the rest of `tiepoint.register`, with guided matching and all checks of the result.

On a processor that computes in bfloat16, rows named "compiled" are of `Detector(compiled=True)`,
for many images of one size. Those in int8 have the matcher in bfloat16.

Without a matcher for a checkpoint, one of random weights and the real size is timed, and the row is
named so: the time of a network does not depend on its weights. Its matches are useless, so its
estimate is that of nearest neighbours. LightGlue is kornia's (9 layers of 256 channels, random
weights, no early stopping) on the keypoints of `base`; without kornia it is left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stages import photograph
from tiepoint import Detector, Features, Matches, __version__, match, register
from tiepoint.config import Precision
from tiepoint.errors import CheckpointError, is_installed
from tiepoint.evaluation.methods import method
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.matching.learned.choice import matcher_folder
from tiepoint.matching.learned.folder import MatcherCheckpoint, load_matcher
from tiepoint.matching.learned.matcher import LearnedMatcher
from tiepoint.network.cores import usable_cores
from tiepoint.network.engines import resolve_engine
from tiepoint.registration.register import registration_detector

Image = NDArray[np.uint8]

SIZE_WH, KEYPOINTS = (640, 480), 1000
HOMOGRAPHY = np.array([[0.93, -0.12, 48.0], [0.1, 0.95, -14.0], [6e-5, -4e-5, 1.0]])
SIZES: dict[str, tuple[tuple[float, ...], int]] = {"small": ((1.0,), 60), "base": ((1.0, 0.6), 150)}
"""Checkpoint -> the scales at which it looks, and the time of a pair that is aimed at, ms."""
LIGHTGLUE_LAYERS, LIGHTGLUE_WIDTH, LIGHTGLUE_HEADS = 9, 256, 4
PAUSE_S = 0.05
"""Between two rows: threads of the one that still spin would take cores from the next."""


@dataclass
class Row:
    """One way from two images to a homography.

    Attributes:
        detect: Image -> Features.
        match: Features of two images -> Matches, or anything if `estimated_by` is set.
        options: Options of `register`, which repeats both steps.
        estimated_by: Name of the row whose estimate counts.
        limit_ms: The time that is aimed at.
        stages_ms: Stage -> its times.
    """

    name: str
    detect: Callable[[Image], Features]
    match: Callable[[Features, Features], Any]
    options: dict[str, Any] = field(default_factory=dict)
    estimated_by: str | None = None
    limit_ms: int | None = None
    stages_ms: dict[str, list[float]] = field(default_factory=dict)

    def run(self, images: Sequence[Image]) -> None:
        """Time each stage once."""
        a, b = (self._timed("detect", partial(self.detect, image)) for image in images)
        matched = self._timed("match", partial(self.match, a, b))
        if self.estimated_by is not None:
            return
        assert isinstance(matched, Matches)
        result = self._timed("register", partial(register, *images, **self.options))
        assert result.success, f"{self.name}: {result.reason}"

    def medians(self) -> dict[str, float]:
        """Stage -> median ms of a pair."""
        detect = [sum(pair) for pair in zip(*[iter(self.stages_ms["detect"])] * 2, strict=True)]
        medians = {"detect": statistics.median(detect)}
        medians["match"] = statistics.median(self.stages_ms["match"])
        if "register" in self.stages_ms:
            whole = statistics.median(self.stages_ms["register"])
            medians["estimate"] = whole - medians["detect"] - medians["match"]
        return medians

    def _timed(self, stage: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        self.stages_ms.setdefault(stage, []).append(1000 * (time.perf_counter() - start))
        return result


def rows_of(
    name: str,
    precision: Precision,
    matcher: MatcherCheckpoint,
    *,
    known: bool,
    compiled: bool = False,
) -> list[Row]:
    """A checkpoint in one precision, by nearest neighbours and by its matcher."""
    scales, limit_ms = SIZES[name]
    detector = registration_detector(name, precision=precision, scales=scales, compiled=compiled)

    def detect(image: Image) -> Features:
        return detector(image, max_keypoints=KEYPOINTS)

    learned = LearnedMatcher(matcher, precision="bf16" if precision == "int8" else precision)
    config = matcher.config
    sizes = "one size" if len(scales) == 1 else f"{len(scales)} sizes"
    title = f"{name}, {sizes}, {precision}{', compiled' if compiled else ''}"
    weights = "" if known else f", random weights {config.layers}x{config.width}"
    return [
        Row(f"{title}, nearest", detect, match, {"detector": detector}, limit_ms=limit_ms),
        Row(
            f"{title}, learned{weights}",
            detect,
            partial(match, method="learned", matcher=learned),
            {"detector": detector, "method": "learned", "matcher": learned},
            estimated_by=None if known else f"{title}, nearest",
            limit_ms=limit_ms,
        ),
    ]


def matcher_of(name: str, given: dict[str, str]) -> tuple[MatcherCheckpoint, bool]:
    """The matcher of a checkpoint and whether it is trained."""
    if name in given:
        return load_matcher(matcher_folder(given[name])), True
    try:
        return load_matcher(matcher_folder(name)), True
    except CheckpointError:
        length = Detector(name).checkpoint.network.descriptor_decoder_dim
        config, random = MatcherConfig(descriptor_length=length), np.random.default_rng(0)
        tensors = {
            one: random.normal(0, 0.7 / np.sqrt(shape[-1]), shape).astype(np.float32)
            for one, shape in config.tensor_shapes().items()
        }
        return MatcherCheckpoint("random", "", config, 0.1, None, tensors), False


def sift_row() -> Row:
    """OpenCV's SIFT, by nearest neighbours."""
    sift = method("sift").detect_exactly_k
    assert sift is not None

    def detect(image: Any, max_keypoints: int = KEYPOINTS) -> Features:
        pixels = getattr(image, "pixels", image)
        return sift(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), max_keypoints)

    return Row("SIFT, nearest", detect, match, {"detector": detect})


def lightglue_row(base: Row) -> Row:
    """kornia's LightGlue on the keypoints of another row."""
    import torch
    from kornia.feature import LightGlue

    torch.manual_seed(0)
    length = base.detect(photograph(SIZE_WH)).descriptors
    assert length is not None
    network = LightGlue(
        features=None, input_dim=length.shape[1], descriptor_dim=LIGHTGLUE_WIDTH,
        n_layers=LIGHTGLUE_LAYERS, num_heads=LIGHTGLUE_HEADS,
        depth_confidence=-1, width_confidence=-1,
    ).eval()  # fmt: skip

    def side(features: Features) -> dict[str, Any]:
        size_wh = torch.tensor([features.size_hw[::-1]], dtype=torch.float32)
        xy, described = torch.tensor(features.xy), torch.tensor(features.descriptors)
        return {"keypoints": xy[None], "descriptors": described[None], "image_size": size_wh}

    def matched(a: Features, b: Features) -> Any:
        with torch.inference_mode():
            return network({"image0": side(a), "image1": side(b)})["matches"]

    name = f"kornia LightGlue, random weights {LIGHTGLUE_LAYERS}x{LIGHTGLUE_WIDTH}, f32"
    return Row(name, base.detect, matched, estimated_by=base.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--matcher", action="append", default=[], metavar="CHECKPOINT=DIR",
        help="matcher of a checkpoint; repeat for the other",
    )  # fmt: skip
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    given = dict(one.split("=", 1) for one in arguments.matcher)
    first = photograph(SIZE_WH)
    second = cv2.warpPerspective(first, HOMOGRAPHY, SIZE_WH, borderMode=cv2.BORDER_REFLECT)
    rows = all_rows(given)
    for _ in range(arguments.repeats + 1):
        for row in rows:
            row.run((first, second))
            time.sleep(PAUSE_S)
    for row in rows:  # the first turn compiles
        row.stages_ms = {
            stage: times[2 if stage == "detect" else 1 :] for stage, times in row.stages_ms.items()
        }
    lines = summary(rows)
    machine = f"{platform.processor() or platform.machine()}, {usable_cores()} cores"
    print(f"tiepoint {__version__}, {machine}, {arguments.repeats} rounds, ms\n")
    print("| from two images to a homography | detect | match | estimate | whole | aimed at |")
    print("|---|---|---|---|---|---|")
    for line in lines:
        cells = (f"{line[stage]:.1f}" for stage in ("detect", "match", "estimate", "whole"))
        print(f"| {line['name']} | {' | '.join(cells)} | {line['limit_ms'] or ''} |")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": lines}, indent=1))


def all_rows(given: dict[str, str]) -> list[Row]:
    """Every row that this machine and its libraries have."""
    ways: list[tuple[Precision, bool]] = [("f32", False)]
    if resolve_engine("openvino", "cpu", "auto").precision == "bf16":
        ways += [("bf16", False), ("bf16", True), ("int8", True)]
    rows = [sift_row()]
    for name in SIZES:
        matcher, known = matcher_of(name, given)
        for precision, compiled in ways:
            rows += rows_of(name, precision, matcher, known=known, compiled=compiled)
    if is_installed("kornia") and is_installed("torch"):
        base = next(row for row in rows if row.name.startswith("base"))
        rows.append(lightglue_row(base))
    return rows


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Name, medians and the whole of each row."""
    medians = {row.name: row.medians() for row in rows}
    lines = []
    for row in rows:
        stages = dict(medians[row.name])
        if row.estimated_by is not None:
            stages["estimate"] = medians[row.estimated_by]["estimate"]
        whole = sum(stages.values())
        lines.append({"name": row.name, **stages, "whole": whole, "limit_ms": row.limit_ms})
    return lines


if __name__ == "__main__":
    main()
