"""Detector: the whole way from image to features. `Detector._level` is the way on one screen."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence, Sized
from copy import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, get_args, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from tiepoint._version import __version__
from tiepoint.checks import check_choice
from tiepoint.config import (
    DetectionConfig,
    DetectionOptions,
    DeviceName,
    EngineName,
    Precision,
    ProcessorConfig,
    resolve_detection,
)
from tiepoint.errors import EngineError
from tiepoint.features import Features, Provenance
from tiepoint.geometry import Placement, fit_inside
from tiepoint.images.arrays import ChannelOrder
from tiepoint.images.masks import MaskSource, check_masks, in_input, mask_of, read_masked
from tiepoint.images.reading import SourceImage
from tiepoint.keypoints.extraction import extract
from tiepoint.keypoints.request import Request, failure_message
from tiepoint.keypoints.result import Keypoints, in_image, merge_scales, tighten_threshold
from tiepoint.keypoints.selection import Area, Pixels
from tiepoint.network.cores import usable_cores
from tiepoint.network.dense_maps import as_numpy
from tiepoint.network.engine import Engine, Workload
from tiepoint.network.engines import MAX_STREAMS, EnginePool
from tiepoint.network.inputs import as_grey, pad_to, pyramid, size_of
from tiepoint.streaming import (
    Detection,
    Reader,
    check_stream,
    concurrently,
    in_batches,
    in_buckets,
    require_all,
)
from tiepoint.weights.checkpoint import Checkpoint, absolute_name, load_checkpoint
from tiepoint.weights.rotation import rotation_crc32

if TYPE_CHECKING:
    from tiepoint.keypoints.image_batches import ImageBatches

Float32 = NDArray[np.float32]

LARGE_PX = 2**21
"""Inputs above this are processed one at a time on all cores; each takes half a gigabyte."""

logger = logging.getLogger(__name__)


class Detector:
    """Finds keypoints in images. Thread-safe and picklable.

    A child process may be forked before the first image, or spawned at any time. After a fork of a
    process in which OpenVINO has run, calls raise an `EngineError` with this advice.

    Args:
        checkpoint: "default", a bundled name, a folder with a checkpoint, a Hub id `org/name`, or
            a loaded Checkpoint.
        engine: "auto" takes the fastest one here; "openvino"; "torch" (extra `torch`); or an
            object of the form of `network.engine.Engine`.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto" computes in bfloat16 if the processor or GPU does, else in float32; or
            "f32", "bf16", "f16"; or "int8" on a CPU, with weights that `tiepoint quantize` was run
            on. Coordinates and scores are float32 in every precision.
        compiled: For many images of few sizes. OpenVINO compiles for each size (a few tenths of a
            second), then takes up to a sixth less time. torch.compile takes a minute at first.
        threads: Maximum number of cores of the network, for engine "openvino"; None takes all.
        options: Settings of `ProcessorConfig` and `DetectionConfig`, such as `max_side`,
            `max_keypoints` and `scales`. A setting left out is the checkpoint's own.

    Raises:
        CheckpointError: No such checkpoint, or a damaged one.
        ConfigError: A setting that is unknown or out of range.
        MissingExtraError: The engine needs an extra that is not installed.
    """

    def __init__(
        self,
        checkpoint: str | Path | Checkpoint = "default",
        *,
        engine: EngineName | Engine = "auto",
        device: DeviceName = "auto",
        precision: Precision = "auto",
        compiled: bool = False,
        threads: int | None = None,
        **options: Unpack[DetectionOptions],
    ) -> None:
        given = isinstance(checkpoint, Checkpoint)
        self.checkpoint: Checkpoint = checkpoint if given else load_checkpoint(checkpoint)  # type: ignore[assignment, arg-type]
        # Now, because a relative folder is another one after a change of the working folder.
        self._checkpoint_name = absolute_name(self.checkpoint)
        self._rotation_crc32 = rotation_crc32(self.checkpoint)
        self._engines = EnginePool(
            self.checkpoint, engine, device, precision, compiled=compiled, threads=threads
        )
        self.engine, self.device, self.precision = self._engines.choice
        self._options = options
        self.request({})  # refuses nonsense at birth
        logger.info("%r", self)

    @overload
    def __call__(
        self,
        source: list[Any] | tuple[Any, ...],
        *,
        mask: MaskSource = ...,
        channel_order: ChannelOrder = ...,
        **options: Unpack[DetectionOptions],
    ) -> list[Features]: ...
    @overload
    def __call__(
        self,
        source: Any,
        *,
        mask: MaskSource = ...,
        channel_order: ChannelOrder = ...,
        **options: Unpack[DetectionOptions],
    ) -> Features: ...
    def __call__(
        self,
        source: Any,
        *,
        mask: MaskSource = None,
        channel_order: ChannelOrder = "rgb",
        **options: Unpack[DetectionOptions],
    ) -> Any:
        """Detect keypoints in one image or in a list of images.

        Args:
            source: A path, URL, bytes, file object, PIL image, NumPy array (`H W`, `H W 1/3/4`),
                torch tensor (`C H W`) or image from `images.read`; or a list or tuple of these,
                sizes may differ.
            mask: Where keypoints are allowed (0 or black: not there): an array or file for all
                images, a list with one for each, or a function of the source.
            channel_order: "rgb", or "bgr" for arrays from OpenCV.
            options: Settings for this call only, as for `Detector`.

        Returns:
            Features, or a list of them in the order of the sources.

        Raises:
            ImageError: An image cannot be read; of a list, its index is named. `stream` goes past
                bad images.
            ConfigError: A setting that is unknown or out of range.
            EngineError: The engine failed on an image, or does not survive a fork.
        """
        if isinstance(source, list | tuple):
            stream = self.stream(source, mask=mask, channel_order=channel_order, **options)
            return require_all(stream, len(source))
        request = self.request(options, mask, channel_order)
        check_masks(mask, 1)
        engine = self._engines.get("single")  # after a fork it may refuse, before threads
        nominal = request.processor.contrast == "none"
        own_mask = mask_of(mask, source, 0)
        image = read_masked(source, own_mask, channel_order, nominal=nominal)
        batches = self._batches(engine, request)
        if batches is None:
            return self._detect([image], request, "single")[0]
        return batches.finish(batches.start([batches.prepare(image)]))[0]

    def stream(
        self,
        sources: Iterable[Any],
        *,
        mask: MaskSource = None,
        channel_order: ChannelOrder = "rgb",
        **options: Unpack[DetectionOptions],
    ) -> Iterator[Detection]:
        """Detect in any number of images, a few in memory at a time, in order.

        The next images are decoded while the network runs, and a CPU processes several at once.
        Files, bytes and arrays are read by several threads; PIL images, open files and mask
        functions are used by one thread at a time.

        Args:
            sources: Anything that a call takes; may be endless.
            mask, channel_order, options: As for a call.

        Yields:
            A Detection for each source: the features, or the error of an image that failed.
        """
        check_stream(sources, mask)
        request = self.request(options, mask, channel_order)  # refuses nonsense before any image
        return self._stream(sources, request)

    def dense_maps(self, image: SourceImage) -> list[tuple[Float32, list[Float32], Placement]]:
        """The heat map H W, D h w of each phase, and the placement, at each scale of an image."""
        request, engine, levels = self.request({}), self._engines.get("single"), []
        grey = as_grey(image.pixels, request.processor, image.valid)
        for inputs, (placement,) in pyramid([grey], request.detection.scales):
            phases = request.detection.phases
            maps = engine.run(inputs, [placement], descriptors=True, phases=phases)
            heat, dense = maps.of_image(0, placement)
            levels.append((as_numpy([heat])[0], as_numpy(dense), placement))
        return levels

    def in_window(
        self,
        grey: Float32,
        detection: DetectionConfig,
        mask: NDArray[np.bool_] | None = None,
        area: Area | None = None,
        chosen: Pixels | None = None,
    ) -> Keypoints[Float32]:
        """Keypoints of a part of an image at one scale, in px of the part.

        Args:
            grey: H W in 0..1, the network's input; sides are padded to multiples of 8.
            detection: What becomes a keypoint.
            mask: H W, where keypoints are allowed; None = everywhere.
            area: Rows and columns of the keypoints' pixels; None = all.
            chosen: Pixels that are chosen already, which become the keypoints; None chooses them.
        """
        heatmap, fields = self._window_maps(grey, detection, descriptors=detection.descriptors)
        sampling = self.checkpoint.sampling
        return extract(heatmap, fields, grey, detection, sampling, mask, area=area, chosen=chosen)

    def heat_in_window(self, grey: Float32, detection: DetectionConfig) -> Float32:
        """The heat map H W of a part of an image at one scale; arguments as for `in_window`."""
        return self._window_maps(grey, detection, descriptors=False)[0]

    def _window_maps(
        self, grey: Float32, detection: DetectionConfig, *, descriptors: bool
    ) -> tuple[Float32, list[Float32] | None]:
        """H W, and D h w of each phase."""
        placement = Placement(size_of(grey), size_of(grey))
        inputs = pad_to(grey, placement.padded_hw)[None, None]
        maps = self._engines.get("stream").run(
            inputs, [placement], descriptors=descriptors, phases=detection.phases
        )
        heatmap, dense = maps.of_image(0, placement)
        (heatmap,), fields = as_numpy([heatmap]), None if dense is None else as_numpy(dense)
        return heatmap, fields

    @property
    def in_flight(self) -> int:
        """Number of images that a stream processes at once."""
        return self._engines.get("stream").in_flight

    def with_threads(self, threads: int) -> Detector:
        """A detector whose network takes at most this number of cores; for engine "openvino"."""
        other = copy(self)
        other._engines = self._engines.with_threads(threads)
        return other

    def provenance(self, **options: Unpack[DetectionOptions]) -> Provenance:
        """The provenance of features made with these options."""
        return self.request(options).provenance

    def request(
        self,
        options: DetectionOptions,
        masks: MaskSource = None,
        channel_order: ChannelOrder = "rgb",
    ) -> Request:
        """Resolve the settings of one call; arguments and errors as for a call."""
        check_choice("channel_order", channel_order, get_args(ChannelOrder))
        given: DetectionOptions = {**self._options, **options}
        processor, detection = resolve_detection(self.checkpoint.detection, given)
        provenance = self._provenance(processor, detection)
        return Request(processor, detection, masks, channel_order, provenance)

    def _provenance(self, processor: ProcessorConfig, detection: DetectionConfig) -> Provenance:
        scales = list(detection.scales)  # as files hold them
        return Provenance(
            checkpoint=self._checkpoint_name,
            weights_sha256=self.checkpoint.sha256,
            rules=self.checkpoint.rules,
            settings={**vars(processor), **vars(detection), "scales": scales},
            engine=self.engine,
            device=self.device,
            precision=self.precision,
            tiepoint_version=__version__,
            revision=self.checkpoint.revision,
            rotation_crc32=self._rotation_crc32,
        )

    def _stream(self, sources: Iterable[Any], request: Request) -> Iterator[Detection]:
        few = isinstance(sources, Sized) and len(sources) <= MAX_STREAMS
        workload: Workload = "single" if few else "stream"
        engine = self._engines.get(workload)
        nominal = request.processor.contrast == "none"
        read = Reader(request.masks, request.channel_order, nominal=nominal)
        batches = self._batches(engine, request)
        if batches is not None:
            return in_buckets(sources, read, batches, usable_cores())
        if engine.in_flight == 1:
            detect = partial(self._detect, request=request, workload=workload)
            return in_batches(sources, read, detect, engine.batch_size)
        return concurrently(
            sources, read, lambda image: self._detect_one(image, request), engine.in_flight
        )

    def _batches(self, engine: Engine, request: Request) -> ImageBatches | None:
        """The way of an engine whose batches stay on a GPU; None for others."""
        if not getattr(engine, "batched", False) or request.detection.spread:
            return None
        from tiepoint.keypoints.image_batches import ImageBatches

        return ImageBatches(engine, request, self.checkpoint.sampling)

    def _detect_one(self, image: SourceImage, request: Request) -> Features:
        """Detect in one image of a stream; alone if it is large, or failed beside others."""
        input_px = math.prod(fit_inside(image.size_hw, request.processor.max_side))
        if input_px * max(request.detection.scales) ** 2 <= LARGE_PX:
            try:
                return self._detect([image], request, "stream")[0]
            except EngineError as error:
                logger.warning("%s; trying again with no other image in flight", error)
        with self._engines.exclusive:
            return self._detect([image], request, "single")[0]

    def _detect(
        self, images: Sequence[SourceImage], request: Request, workload: Workload
    ) -> list[Features]:
        """Images -> inputs at each scale -> keypoints -> features."""
        detection, scales = request.detection, []
        try:
            greys = [as_grey(i.pixels, request.processor, i.valid) for i in images]
            for inputs, placements in pyramid(greys, detection.scales):
                scales.append(self._level(images, inputs, placements, detection, workload))
                detection = tighten_threshold(detection, scales[-1])
        except (MemoryError, RuntimeError, cv2.error) as error:  # engines raise RuntimeError
            message = failure_message(images, request.processor.max_side, error)
            raise EngineError(message) from error
        merged = [merge_scales(one, detection.max_keypoints) for one in zip(*scales, strict=True)]
        each = zip(images, (grey.value_range for grey in greys), merged, strict=True)
        return [request.features(*one) for one in each]

    def _level(
        self,
        images: Sequence[SourceImage],
        inputs: Float32,
        placements: Sequence[Placement],
        detection: DetectionConfig,
        workload: Workload,
    ) -> list[Keypoints[Float32]]:
        """Inputs -> dense maps -> keypoints of each image at one scale, in px of the image."""
        engine = self._engines.get(workload)
        maps = engine.run(
            inputs, placements, descriptors=detection.descriptors, phases=detection.phases
        )
        masks = [in_input(i, p) for i, p in zip(images, placements, strict=True)]
        sampling = self.checkpoint.sampling
        if not isinstance(maps.heatmap, np.ndarray):  # on a GPU: the same steps on the whole batch
            from tiepoint.keypoints import on_torch

            batch = on_torch.extract(maps, inputs, placements, detection, sampling, masks)
            return [in_image(one, p) for one, p in zip(batch, placements, strict=True)]
        keypoints, executor = [], self._engines.helper if workload == "single" else None
        for index, placement in enumerate(placements):
            height, width = placement.resized_hw
            heatmap, dense = maps.of_image(index, placement)
            image = inputs[index, 0, :height, :width]
            one = extract(heatmap, dense, image, detection, sampling, masks[index], executor)
            keypoints.append(in_image(one, placement))
        return keypoints

    def __repr__(self) -> str:
        return (
            f"Detector({self.checkpoint.name!r}, engine={self.engine!r}, "
            f"device={self.device!r}, precision={self.precision!r})"
        )
