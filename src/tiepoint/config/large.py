"""Settings of a registration of large images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from tiepoint.checks import check_choice, check_positive, check_whole
from tiepoint.config.basics import setting

LargeModel = Literal["homography", "affine", "smooth"]

MOST_CELLS, LEAST_CELL_PX, MOST_CELL_PX = 4096, 128, 2048
MOST_POINTS_PER_CELL = 64
LEAST_OVERVIEW_PX, MOST_OVERVIEW_PX = 256, 4096


@dataclass(frozen=True)
class LargeConfig:
    """Choice of the windows that are matched, and limits that a result must meet."""

    model: LargeModel = setting(
        "smooth",
        "Geometric model. homography and affine: one matrix; smooth: a homography and a smooth "
        "displacement, for scans, slides and orthophotos that are bent.",
    )
    max_cells: int = setting(
        400, "Maximum number of windows that are matched at full resolution.", metavar="N"
    )
    cell_px: int = setting(512, "Side of such a window, px.", metavar="PX")
    points_per_cell: int = setting(
        24, "Maximum number of points that one window contributes.", metavar="N"
    )
    overview_px: int = setting(
        1600, "Longer side of the overviews that are registered first, px.", metavar="PX"
    )
    threshold_px: float = setting(
        3.0, "Inlier threshold: maximum distance from the model, px of B.", metavar="PX"
    )
    min_cells: int = setting(
        6, "Minimum number of windows in which both images agree with the model.", metavar="N"
    )
    seed: int = setting(0, "Seed of the robust estimation.", metavar="N")

    def __post_init__(self) -> None:
        check_choice("model", self.model, get_args(LargeModel))
        check_whole("max_cells", self.max_cells, minimum=1, maximum=MOST_CELLS, unit="windows")
        check_whole("cell_px", self.cell_px, minimum=LEAST_CELL_PX, maximum=MOST_CELL_PX, unit="px")
        check_whole(
            "points_per_cell", self.points_per_cell, minimum=4, maximum=MOST_POINTS_PER_CELL,
            unit="points",
        )  # fmt: skip
        check_whole(
            "overview_px", self.overview_px, minimum=LEAST_OVERVIEW_PX, maximum=MOST_OVERVIEW_PX,
            unit="px",
        )  # fmt: skip
        check_positive("threshold_px", self.threshold_px, finite=True)
        check_whole("min_cells", self.min_cells, minimum=1, unit="windows")
        check_whole("seed", self.seed, minimum=0, unit="a seed")


class LargeOptions(TypedDict, total=False):
    """Settings of `LargeConfig` by keyword."""

    model: LargeModel
    max_cells: int
    cell_px: int
    points_per_cell: int
    overview_px: int
    threshold_px: float
    min_cells: int
    seed: int
