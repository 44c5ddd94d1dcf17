"""The detectors that all requests share, loaded once, and the images that they see."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from tiepoint.config import DetectionConfig, DetectionOptions, ProcessorConfig, resolve_detection
from tiepoint.detector import LARGE_PX, Detector
from tiepoint.errors import ConfigError, ImageError, TiepointError
from tiepoint.features import Features
from tiepoint.geometry import SizeHW, fit_inside, whole_cells, with_longer_side
from tiepoint.images.masks import allowed_by
from tiepoint.images.reading import NamedBytes, SourceImage, read
from tiepoint.service.problems import ProblemError, problem_of
from tiepoint.service.settings import LimitConfig, ServiceSettings
from tiepoint.service.uploads import Upload
from tiepoint.service.work import Work

Result = TypeVar("Result")

DEFAULT = "default"
"""Name that requests may give for the first checkpoint."""

WARMING_HW = (64, 96)
"""Size of an image that is detected before the first request: engines are built on first use."""


class Models:
    """Detectors by the names that requests give.

    Raises:
        CheckpointError, ConfigError, MissingExtraError: As for `Detector`; also for two
            checkpoints of one name.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._detectors: dict[str, Detector] = {}
        for given in settings.checkpoints:
            detector = Detector(
                given,
                engine=settings.engine,
                device=settings.device,
                precision=settings.precision,
                threads=settings.threads,
            )
            name = _public_name(detector)
            if name in self._detectors:
                raise ConfigError(f"two checkpoints are named {name!r}, expected different names")
            detector(np.zeros(WARMING_HW, np.uint8))
            self._detectors[name] = detector

    @property
    def names(self) -> tuple[str, ...]:
        """Names that requests may give; the first is the default."""
        return tuple(self._detectors)

    def get(self, name: str | None) -> Model:
        """The model of a name; None and "default" are the first.

        Raises:
            ProblemError: Another name.
        """
        chosen = self.names[0] if name is None or name == DEFAULT else name
        if chosen not in self._detectors:
            known = ", ".join(self.names)
            raise ProblemError(
                422,
                "unknown_checkpoint",
                f"checkpoint is {chosen[:100]!r}, expected one of {known}",
                setting="checkpoint",
                got=repr(chosen[:100]),
                expected=known,
            )
        return Model(chosen, self._detectors[chosen])


def _public_name(detector: Detector) -> str:
    """The name of a checkpoint for clients: of a folder the last part."""
    name = detector.provenance().checkpoint
    return Path(name).name if Path(name).is_absolute() else name


class Model(NamedTuple):
    """A detector and the name that clients know it by."""

    name: str
    detector: Detector

    def public(self, features: Features) -> Features:
        """Features whose provenance has the public name, because a folder is the server's."""
        made = features.provenance
        assert made is not None
        return replace(features, provenance=replace(made, checkpoint=self.name))


class Limits(NamedTuple):
    """What bounds the work of one request."""

    config: LimitConfig
    work: Work

    def image(self, upload: Upload, mask: Upload | None = None) -> SourceImage:
        """Decode an upload, and its mask.

        Raises:
            ProblemError: Too large, not an image, or a mask of another size.
        """
        most = self.config.max_pixels
        image = _named_part(
            upload, lambda: read(upload.read(self.config.max_bytes), max_pixels=most)
        )
        if mask is None:
            return image

        def masked() -> SourceImage:
            data = mask.read(self.config.max_bytes)
            allowed = allowed_by(NamedBytes(data, mask.name), max_pixels=most)
            if allowed.shape != image.size_hw:
                raise ImageError(
                    f"{mask.name}: the mask is {allowed.shape[1]}x{allowed.shape[0]} px, expected "
                    f"the {image.size_hw[1]}x{image.size_hw[0]} px of {image.name}, upright"
                )
            return replace(image, mask=np.ascontiguousarray(allowed), mask_name=mask.name)

        return _named_part(mask, masked)

    def detect(self, model: Model, image: SourceImage, options: DetectionOptions) -> Features:
        """Features of an image, with at most as many keypoints as the service allows.

        Raises:
            ProblemError: More work or more keypoints than the limits.
            ConfigError: A setting out of range.
        """
        processor, detection = resolve_detection(model.detector.checkpoint.detection, options)
        most = self.config.max_keypoints
        if detection.max_keypoints is not None:
            check_keypoints(detection.max_keypoints, most)
            return self.alone_if_large(
                image.size_hw, processor, detection, lambda: model.detector(image, **options)
            )
        bounded: DetectionOptions = {**options, "max_keypoints": most + 1}
        features = self.alone_if_large(
            image.size_hw, processor, detection, lambda: model.detector(image, **bounded)
        )
        if len(features) > most:
            raise ProblemError(
                413,
                "too_many_keypoints",
                f"more than the limit of {most} keypoints; give max_keypoints, or a higher "
                "threshold",
                setting="max_keypoints",
                limit_keypoints=most,
            )
        return replace(features, provenance=model.detector.provenance(**options))

    def alone_if_large(
        self,
        size_hw: SizeHW,
        processor: ProcessorConfig,
        detection: DetectionConfig,
        work: Callable[[], Result],
    ) -> Result:
        """Call a function of an image; with no other large one beside it if its input is large.

        Raises:
            ProblemError: More pixels of the network's input than the limit.
        """
        resized_hw = fit_inside(size_hw, processor.max_side)
        sides = (max(1, round(max(resized_hw) * scale)) for scale in detection.scales)
        inputs = [math.prod(whole_cells(with_longer_side(resized_hw, side))) for side in sides]
        total = sum(inputs) * detection.phases
        most = self.config.max_input_pixels
        if total > most:
            raise ProblemError(
                413,
                "too_many_input_pixels",
                f"{total / 1e6:.1f} million pixels of input over all scales and phases, more than "
                f"the limit of {most / 1e6:.1f} million; give a smaller max_side, fewer scales or "
                "phases",
                limit_pixels=most,
            )
        if max(inputs) <= LARGE_PX:
            return work()
        with self.work.large:
            return work()


def check_keypoints(wanted: int, most: int) -> None:
    """Raise ProblemError for more keypoints than the service allows."""
    if wanted > most:
        raise ProblemError(
            422,
            "invalid_setting",
            f"max_keypoints is {wanted}, expected at most {most} by this service",
            setting="max_keypoints",
            got=str(wanted),
            expected=f"at most {most}",
        )


def _named_part(upload: Upload, work: Callable[[], Result]) -> Result:
    """The errors of an image, with the part of the request that holds it."""
    try:
        return work()
    except TiepointError as error:
        raise problem_of(error, (), part=upload.part) from error
