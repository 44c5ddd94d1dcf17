"""Several methods on one pair of images, without ground truth: verdicts, times, agreement."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint.config import RegistrationConfig
from tiepoint.errors import ConfigError, TiepointError
from tiepoint.evaluation import agreement
from tiepoint.evaluation.approaches import Approach, ApproachSource, Making
from tiepoint.evaluation.settings import COMPARED, CompareSettings
from tiepoint.features import Matches
from tiepoint.images.reading import SourceImage, read
from tiepoint.network.cores import usable_cores
from tiepoint.registration.appearance import picture_of
from tiepoint.registration.models import PLANE_MODELS
from tiepoint.registration.register import Pictured, ordered, paired, registered
from tiepoint.registration.result import Registration


@dataclass(frozen=True)
class Times:
    """Time of one method on the pair, ms: medians over the repetitions.

    Attributes:
        detect: Detection in both images.
        match: Matching.
        fit: Estimation of the transform, checks and guided matching.
    """

    detect: float
    match: float
    fit: float


@dataclass(frozen=True, eq=False)
class ComparedMethod:
    """One method on the pair.

    Attributes:
        name: Name of the method.
        registration: Its result; None if the method failed.
        error: Why it failed, or None.
        settings: What decided the result: weights and settings of the detection.
        times: None without repetitions, and for a method that failed.
        from_others_px: Median distance of its transform from those of the other registered
            methods, px of B; None without others. See `agreement.distance_px`.
        in_consensus: Whether it is in the majority that agrees; None if it is not registered, or
            there is no majority.
    """

    name: str
    registration: Registration | None = None
    error: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    times: Times | None = None
    from_others_px: float | None = None
    in_consensus: bool | None = None

    @property
    def success(self) -> bool:
        """Whether `register` accepts the transform."""
        return self.registration is not None and self.registration.success

    @property
    def reason(self) -> str:
        """ "ok", why `register` refuses the transform, or why the method failed."""
        return self.error or ("" if self.registration is None else self.registration.reason)

    @property
    def inliers(self) -> int | None:
        """Matches that fit the transform, also a refused one; None for a method that failed."""
        return None if self.registration is None else int(self.registration.inliers.sum())


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several methods on one pair of images.

    Attributes:
        image_a, image_b: The images.
        methods: A result for each, in the order given.
        distances_px: M M of the M methods, px of B; NaN where one is not registered.
        config, settings: Settings of the registration and of the comparison.
        agree_px: `CompareSettings.agree_px` in px of B.
        threads: CPU cores of the networks and of OpenCV's methods.
    """

    image_a: SourceImage
    image_b: SourceImage
    methods: tuple[ComparedMethod, ...]
    distances_px: NDArray[np.float64]
    config: RegistrationConfig
    settings: CompareSettings
    agree_px: float
    threads: tuple[int, int]

    @property
    def consensus(self) -> tuple[str, ...]:
        """Names of the methods in the majority that agrees; empty without one."""
        return tuple(one.name for one in self.methods if one.in_consensus)

    @property
    def spread_px(self) -> float | None:
        """Largest distance between two registered methods, px of B; None for fewer than two."""
        known = self.distances_px[~np.isnan(self.distances_px)]
        return float(known.max()) if len(known) > 1 else None


def compare(
    a: Any,
    b: Any,
    methods: Sequence[str] = COMPARED,
    *,
    config: RegistrationConfig | None = None,
    settings: CompareSettings | None = None,
    threads: int | None = None,
    source: ApproachSource | None = None,
    clock: Callable[[], float] = time.perf_counter,
    on_method: Callable[[], None] = lambda: None,
) -> Comparison:
    """Register a pair of images by several methods, and compare their transforms.

    A method that fails becomes a result with its reason. The verdict of a checkpoint is that of
    `register` with this checkpoint and these settings.

    Args:
        a, b: Any sources that `images.read` takes.
        methods: Names: bundled checkpoints, folders, Hub ids, each also with the suffix "+learned"
            for its learned matcher; "sift", "orb", "sift-opencv".
        config: Settings of the registration; its `method` is each method's own.
        settings: Settings of the comparison.
        threads: Maximum number of CPU cores of the networks; None takes all.
        source: Makes a method from its name; None takes `approaches.Making`.
        clock: Current time in seconds.
        on_method: Called after the first run of each method.

    Raises:
        ImageError: An image cannot be read.
        ConfigError: No methods, one named twice, or the model "essential", which needs cameras.
    """
    config, settings = config or RegistrationConfig(), settings or CompareSettings()
    check_methods(methods, config)
    make = source or Making(settings.max_side, threads)
    pair = _Images(read(a), read(b))
    results: list[ComparedMethod] = []
    running: dict[int, Approach] = {}
    for index, name in enumerate(methods):
        try:
            approach = make(name)
            registration, _ = _run(approach, pair, config, clock)
            running[index] = approach
            made = approach.settings
            results.append(ComparedMethod(name, registration, settings=made))
        except (TiepointError, cv2.error, MemoryError) as error:
            results.append(ComparedMethod(name, error=str(error) or type(error).__name__))
        on_method()
    timed: dict[int, list[Times]] = {index: [] for index in running}
    for _ in range(settings.repeats):  # in turn, so that all see the same machine
        for index, approach in running.items():
            timed[index].append(_run(approach, pair, config, clock)[1])
    results = [
        replace(one, times=_median(timed[index])) if timed.get(index) else one
        for index, one in enumerate(results)
    ]
    return _compared(pair, results, config, settings, threads)


class _Images(NamedTuple):
    a: SourceImage
    b: SourceImage


def check_methods(methods: Sequence[str], config: RegistrationConfig) -> None:
    """Raise ConfigError for what `compare` refuses before any work."""
    if not methods or len(set(methods)) < len(methods):
        raise ConfigError(f"methods are {list(methods)}, expected at least one and no name twice")
    if config.model == "essential":
        raise ConfigError(
            "model is 'essential', which needs the cameras; compare by 'fundamental', or register"
        )
    if config.method != "nearest":
        raise ConfigError(
            f"method is {config.method!r}, expected 'nearest': name a method of its own, such as "
            "base+learned"
        )


def _run(
    approach: Approach, pair: _Images, config: RegistrationConfig, clock: Callable[[], float]
) -> tuple[Registration, Times]:
    """Register the pair by one method, as `register` does."""
    start = clock()
    views = [approach.detect(image, config.max_keypoints) for image in pair]
    detected = clock()
    pictured = (Pictured(view, picture_of(image)) for view, image in zip(views, pair, strict=True))
    first, second, names = ordered(*pictured)
    prepared = clock()
    matches: Matches = approach.pairing(first.features, second.features)
    matched = clock()
    registration = registered(paired(first, second, names, matches, config), guided=config.guided)
    fitted = clock()
    detect_s, match_s = detected - start, matched - prepared
    fit_s = (fitted - matched) + (prepared - detected)  # the pictures are for the checks
    return registration, Times(*(1000 * seconds for seconds in (detect_s, match_s, fit_s)))


def _median(times: Sequence[Times]) -> Times:
    table = np.array([(one.detect, one.match, one.fit) for one in times])  # R 3
    return Times(*np.median(table, axis=0).tolist())


def _compared(
    pair: _Images,
    results: Sequence[ComparedMethod],
    config: RegistrationConfig,
    settings: CompareSettings,
    threads: int | None,
) -> Comparison:
    """The results with the distances between their transforms."""
    matrices = [
        one.registration.matrix
        if one.registration is not None and config.model in PLANE_MODELS
        else None
        for one in results
    ]
    a_hw, b_hw = pair.a.size_hw, pair.b.size_hw
    distances = agreement.distances_px(matrices, a_hw, b_hw)
    side = max(b_hw)
    agree_px = settings.agree_px * side / min(side, settings.max_side or side)
    agreeing = agreement.consensus(distances, agree_px)
    from_others = agreement.from_others_px(distances)
    compared = tuple(
        replace(
            one,
            from_others_px=from_others[index],
            in_consensus=index in agreeing if agreeing and one.success else None,
        )
        for index, one in enumerate(results)
    )
    cores = usable_cores(threads), cv2.getNumThreads()
    return Comparison(pair.a, pair.b, compared, distances, config, settings, agree_px, cores)
