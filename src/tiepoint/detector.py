"""Detector: the whole way from image to features, on one screen in `Detector._detect`."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint._version import __version__
from tiepoint.config import DetectionConfig, ProcessorConfig
from tiepoint.errors import ConfigError, EngineError, TiepointError
from tiepoint.features import Features
from tiepoint.geometry import Placement, fit_inside
from tiepoint.images.masks import MaskSource, check_masks, in_input, mask_of, read_masked
from tiepoint.images.reading import ChannelOrder, SourceImage
from tiepoint.keypoints.result import Keypoints, in_image, merged, worth_finding
from tiepoint.network import engines, inputs
from tiepoint.streaming import Reader, in_batches, several_at_once, what_failed
from tiepoint.weights.checkpoint import Checkpoint, load_checkpoint

OnError = Literal["raise", "skip", "return"]
Source = TypeVar("Source")

LARGE_PX = 2**21
"""Inputs above this are worked on one at a time, on all cores: each takes half a gigabyte."""


class Options(TypedDict, total=False):
    """Detection options that a call may set; one left out stays as the detector has it.

    `scales`, `threshold`, `nms_radius` and `max_keypoints` of None mean the checkpoint's own,
    `max_side` of None native size. `mask` says where keypoints may lie (0 or black: not there): an
    array or file for all images, one for each, or a function of the source: `masks.read_masked`.
    """

    max_side: int | None
    scales: Sequence[float] | None
    max_keypoints: int | None
    threshold: float | None
    nms_radius: int | None
    descriptors: bool
    spread: bool
    mask: MaskSource


class Detector:
    """Finds keypoints in images. Thread-safe, picklable, and usable after a fork.

    Args:
        checkpoint: "default", a bundled name, a folder with a checkpoint, or a Hub id `org/name`.
        engine: "auto" takes the fastest here, or "openvino", "torch" (extra `torch`).
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        compiled: For many images of few sizes. OpenVINO compiles the network for each size that
            comes (a few tenths of a second), and takes up to a sixth less time then; torch runs it
            through torch.compile: the first images take a minute, then a GPU waits less.
        threads: Most cores that the network takes, with engine "openvino"; None takes all.
        precision: "auto" computes in bfloat16 on a processor that has arithmetic for it, else in
            float32; or say which: "f32", "bf16", "f16", or "int8" on a CPU, with weights that
            `tiepoint quantize` was run on. Coordinates and scores are float32 whatever the
            precision.
        max_side: The longer side is brought down to this many px before detection; None keeps
            the native size. Images are not enlarged to it.
        scales: Parts of that size, up to 2, at which the network sees each image: above 1
            enlarges it, for as much more work as it has more px; several make a pyramid, for
            images that differ in zoom. None takes the checkpoint's, (1, 0.6) of the bundled ones.
        max_keypoints: Keep the best so many; None takes the checkpoint's own limit.
        threshold: A keypoint's probability must exceed this, 0..1; None takes the checkpoint's.
        nms_radius: px of the network's input; None takes the checkpoint's.
        descriptors: False skips them.
        spread: Spread `max_keypoints` evenly over the image; seen at one scale, 1 if none is given.

    Raises:
        CheckpointError: No such checkpoint, or a damaged one.
        ConfigError: A setting out of range.
        MissingExtraError: The engine needs an extra that is not installed.
    """

    def __init__(
        self,
        checkpoint: str | Path = "default",
        *,
        engine: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        compiled: bool = False,
        threads: int | None = None,
        max_side: int | None = 1024,
        scales: Sequence[float] | None = None,
        max_keypoints: int | None = None,
        threshold: float | None = None,
        nms_radius: int | None = None,
        descriptors: bool = True,
        spread: bool = False,
    ) -> None:
        self.checkpoint: Checkpoint = load_checkpoint(checkpoint)
        self.engine, self.device, self.precision = engines.choose(engine, device, precision)
        engines.check_threads(self.engine, threads)
        self.compiled, self.threads = compiled, threads
        self._defaults = Options(
            max_side=max_side, scales=scales, max_keypoints=max_keypoints, threshold=threshold,
            nms_radius=nms_radius, descriptors=descriptors, spread=spread,
        )  # fmt: skip
        self._configs({})  # refuses nonsense at birth
        self._set_up()

    @overload
    def __call__(
        self,
        source: list[Any] | tuple[Any, ...],
        *,
        channel_order: ChannelOrder = ...,
        on_error: Literal["raise"] = ...,
        **options: Unpack[Options],
    ) -> list[Features]: ...
    @overload
    def __call__(
        self,
        source: list[Any] | tuple[Any, ...],
        *,
        channel_order: ChannelOrder = ...,
        on_error: Literal["skip"],
        **options: Unpack[Options],
    ) -> list[Features | None]: ...
    @overload
    def __call__(
        self,
        source: Any,
        *,
        channel_order: ChannelOrder = ...,
        on_error: Literal["raise", "skip"] = ...,
        **options: Unpack[Options],
    ) -> Features: ...
    def __call__(
        self,
        source: Any,
        *,
        channel_order: ChannelOrder = "rgb",
        on_error: Literal["raise", "skip"] = "raise",
        **options: Unpack[Options],
    ) -> Any:
        """Detect keypoints in one image or in a list of images.

        Args:
            source: A path, URL, bytes, file object, PIL image, NumPy array (`H W`, `H W 1/3/4`)
                or torch tensor (`C H W`); or a list or tuple of these, sizes may differ.
            channel_order: "rgb", or "bgr" for arrays from OpenCV.
            on_error: What a bad item in a list does: "raise" names its index, "skip" leaves None
                in its place. A single bad image always raises.
            options: `max_side`, `scales`, `max_keypoints`, `threshold`, `nms_radius`,
                `descriptors`, `spread`, for this call only; and `mask`, see `Options`.

        Returns:
            Features, or a list of them in the order of the sources.

        Raises:
            ImageError: An image cannot be read.
            ConfigError: A setting out of range or unknown.
        """
        _check_choice(on_error, ("raise", "skip"))
        if not isinstance(source, list | tuple):
            check_masks(options.get("mask"), 1)
            mask = mask_of(options.get("mask"), source, 0)
            return self._detect([read_masked(source, mask, channel_order)], options)[0]
        results: list[Features | None] = []
        found = self.stream(source, on_error="return", channel_order=channel_order, **options)
        for index, (_, result) in enumerate(found):
            if isinstance(result, TiepointError):
                if on_error == "raise":
                    raise type(result)(f"item {index} of {len(source)}: {result}") from result
                results.append(None)
            else:
                results.append(result)
        return results

    @overload
    def stream(
        self,
        sources: Iterable[Source],
        *,
        channel_order: ChannelOrder = ...,
        on_error: Literal["raise"] = ...,
        **options: Unpack[Options],
    ) -> Iterator[tuple[Source, Features]]: ...
    @overload
    def stream(
        self,
        sources: Iterable[Source],
        *,
        channel_order: ChannelOrder = ...,
        on_error: Literal["skip"],
        **options: Unpack[Options],
    ) -> Iterator[tuple[Source, Features | None]]: ...
    @overload
    def stream(
        self,
        sources: Iterable[Source],
        *,
        channel_order: ChannelOrder = ...,
        on_error: Literal["return"],
        **options: Unpack[Options],
    ) -> Iterator[tuple[Source, Features | TiepointError]]: ...
    def stream(
        self,
        sources: Iterable[Source],
        *,
        channel_order: ChannelOrder = "rgb",
        on_error: OnError = "raise",
        **options: Unpack[Options],
    ) -> Iterator[tuple[Source, Any]]:
        """Detect in any number of images, a few in memory at a time, in order.

        The next images are decoded while the network works on the last, and a CPU works on several
        at once. Files, bytes and arrays are read from several threads; PIL images, open files and
        mask functions are used by one thread at a time.

        Args:
            sources: Whatever a call takes; may be endless.
            channel_order: "rgb", or "bgr" for arrays from OpenCV.
            on_error: "raise"; "skip" gives None in place of the features; "return" gives the
                error in their place.
            options: As for a call.

        Yields:
            (source, features), in the order of the sources.
        """
        _check_choice(on_error, ("raise", "skip", "return"))
        if isinstance(sources, str | bytes | os.PathLike):
            kind = type(sources).__name__
            raise ConfigError(f"stream takes a list or iterator of images, got one {kind}; wrap it")
        self._configs(options)  # refuses nonsense now, not at the first image
        check_masks(options.get("mask"), len(sources) if isinstance(sources, Sized) else None)
        return self._stream(sources, channel_order, on_error, options)

    def provenance(self, **options: Unpack[Options]) -> dict[str, Any]:
        """The `meta` of features made with these options, without what an image adds."""
        pixels, detection = self._configs(options)
        commit = self.checkpoint.revision
        return {
            "checkpoint": self.checkpoint.name,
            **({} if commit is None else {"revision": commit}),
            "sha256": self.checkpoint.sha256,
            "rules": self.checkpoint.rules,
            "settings": {**vars(pixels), **vars(detection)},
            "engine": self.engine,
            "device": self.device,
            "precision": self.precision,
            "tiepoint_version": __version__,
        }

    def _among_many(self, image: SourceImage, options: Options) -> Features:
        """Detect while others do, but alone what takes much memory or fails in company."""
        pixel_config, detection = self._configs(options)
        seen_px = math.prod(fit_inside(image.size_hw, pixel_config.max_side))
        if seen_px * max(detection.scales) ** 2 <= LARGE_PX:
            with suppress(EngineError):
                return self._detect([image], options, many=True)[0]
        with self._alone:
            return self._detect([image], options)[0]

    def _detect(
        self, images: Sequence[SourceImage], options: Options, *, many: bool = False
    ) -> list[Features]:
        """file -> image was `read`; from here on: pixels -> network -> keypoints -> results.

        `many`: other images are in work meanwhile.
        """
        pixel_config, detection = self._configs(options)
        try:
            pixels = [image.pixels for image in images]
            levels, wanted = [], detection
            for level in inputs.pyramid(pixels, pixel_config, detection.scales):
                levels.append(self._level(images, *level, wanted, many))
                wanted = worth_finding(wanted, levels[-1])
        except (MemoryError, RuntimeError, cv2.error) as error:  # RuntimeError: what engines raise
            raise EngineError(what_failed(images, pixel_config.max_side, error)) from error
        found = [merged(scales, detection.max_keypoints) for scales in zip(*levels, strict=True)]
        provenance = self.provenance(**options)
        return [
            Features(
                xy=keypoints.xy,
                scores=keypoints.scores,
                descriptors=keypoints.descriptors,
                covariance=keypoints.covariance,
                size_hw=image.size_hw,
                meta={
                    **provenance,
                    "source": image.name,
                    "exif_orientation": image.exif_orientation,
                    **({} if image.mask_name is None else {"mask": image.mask_name}),
                },
            )
            for image, keypoints in zip(images, found, strict=True)
        ]

    def _level(
        self,
        images: Sequence[SourceImage],
        pixels: NDArray[np.float32],
        placements: Sequence[Placement],
        detection: DetectionConfig,
        many: bool,
    ) -> list[Keypoints[NDArray[np.float32]]]:
        """Keypoints of each image at one scale, in px of the image."""
        network = self._network(many)
        maps = network(pixels, placements, detection.descriptors)
        masks = [in_input(i.mask, p) for i, p in zip(images, placements, strict=True)]
        found = network.extract(maps, placements, detection, self.checkpoint.sampling, masks)
        return [in_image(keypoints, p) for keypoints, p in zip(found, placements, strict=True)]

    def _stream(
        self, sources: Any, channel_order: ChannelOrder, on_error: OnError, options: Options
    ) -> Iterator[tuple[Any, Any]]:
        few = isinstance(sources, Sized) and len(sources) <= engines.MOST_STREAMS
        network = self._network(many=not few)
        read = Reader(options.get("mask"), channel_order)
        if network.at_once == 1:
            results = in_batches(
                sources,
                read,
                lambda images: self._detect(images, options, many=not few),
                network.batch_size,
            )
        else:
            results = several_at_once(
                sources, read, lambda image: self._among_many(image, options), network.at_once
            )
        for source, result in results:
            if isinstance(result, Features) or on_error == "return":
                yield source, result
            elif on_error == "raise":
                raise result
            else:
                yield source, None

    def _configs(self, options: Options) -> tuple[ProcessorConfig, DetectionConfig]:
        unknown = sorted(set(options) - set(Options.__annotations__))
        if unknown:
            raise ConfigError(
                f"unknown option {', '.join(unknown)}; there are "
                f"{', '.join(Options.__annotations__)}"
            )
        wanted = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in {**self._defaults, **options}.items()
            if name != "mask"  # of the images, not of the detection
        }
        pixels = ProcessorConfig(wanted.pop("max_side"))  # type: ignore[arg-type]
        given = {name: value for name, value in wanted.items() if value is not None}
        if given.get("spread"):
            given.setdefault("scales", (1.0,))
        return pixels, replace(self.checkpoint.detection, **given)  # type: ignore[arg-type]

    def _network(self, many: bool = False) -> engines.Runtime:
        """The engine, built on first use in each process: threads do not survive a fork.

        `many`: for several images at once, each on a part of the cores.
        """
        if self._pid != os.getpid():
            self._set_up()
        kind = many and self.engine == "openvino"  # torch takes batches instead
        with self._lock:
            if kind not in self._runtimes:
                self._runtimes[kind] = engines.build(
                    self.checkpoint, self.engine, self.device, self.precision, many=kind,
                    compiled=self.compiled, threads=self.threads,
                )  # fmt: skip
            return self._runtimes[kind]

    def _set_up(self) -> None:
        self._pid = os.getpid()
        self._lock, self._alone = threading.Lock(), threading.Lock()
        self._runtimes: dict[bool, engines.Runtime] = {}

    def __getstate__(self) -> dict[str, Any]:
        own = ("_runtimes", "_pid", "_lock", "_alone")
        return {k: v for k, v in self.__dict__.items() if k not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up()

    def __repr__(self) -> str:
        return (
            f"Detector({self.checkpoint.name!r}, engine={self.engine!r}, "
            f"device={self.device!r}, precision={self.precision!r})"
        )


def _check_choice(on_error: str, known: tuple[str, ...]) -> None:
    if on_error not in known:
        raise ConfigError(f"on_error is {on_error!r}, expected one of {', '.join(known)}")
