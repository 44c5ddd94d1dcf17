"""A learned matcher: features of two images -> matches, by any engine."""

from __future__ import annotations

import os
import threading
from os import PathLike
from typing import Any

import numpy as np

from tiepoint.checks import check_choice, check_whole, check_within
from tiepoint.errors import ConfigError, MissingExtraError, is_installed
from tiepoint.features import Features
from tiepoint.matching.descriptors import descriptors_of
from tiepoint.matching.learned.assignment import Assignment, assign, unmatched
from tiepoint.matching.learned.folder import MatcherCheckpoint, load_matcher
from tiepoint.matching.learned.inputs import MatcherEngine, MatcherInput, normalised
from tiepoint.network.cores import cpu_quota, usable_cores

ENGINES = ("openvino", "torch")


class LearnedMatcher:
    """A matcher that is loaded once and called for many pairs. Thread-safe and picklable.

    A child process may be forked before the matcher is made, or spawned at any time. After a fork
    of a process in which OpenVINO has run, calls raise an `EngineError` with this advice.

    Args:
        checkpoint: Folder, or what `load_matcher` returns.
        layers: Number of layers to run: fewer are faster and less accurate. None runs all.
        engine: "openvino" on a CPU, or "torch" on `device`.
        device: Any that torch knows, for the engine "torch".
        precision: "f32", or for "openvino" "bf16" where the processor has it.
        threads: Maximum number of cores of the engine "openvino"; None takes all.

    Raises:
        CheckpointError: The folder is damaged or holds another model.
        ConfigError: A setting out of range, or a precision that the engine does not have.
        EngineError: torch does not find the device.
        MissingExtraError: The engine's library is not installed.
    """

    def __init__(
        self,
        checkpoint: str | PathLike[str] | MatcherCheckpoint,
        *,
        layers: int | None = None,
        engine: str = "openvino",
        device: str = "cpu",
        precision: str = "f32",
        threads: int | None = None,
    ) -> None:
        if not isinstance(checkpoint, MatcherCheckpoint):
            checkpoint = load_matcher(checkpoint)
        self.checkpoint = checkpoint
        self.layers = checkpoint.config.layers if layers is None else layers
        check_whole(
            "layers", self.layers, minimum=1, maximum=checkpoint.config.layers, unit="layers"
        )
        check_choice("engine", engine, ENGINES)
        if threads is not None:
            check_whole("threads", threads, minimum=1, unit="threads, or None for all cores")
        if engine == "openvino" and device != "cpu":
            raise ConfigError(f"device is {device!r}, expected 'cpu' for engine 'openvino'")
        if engine == "torch" and precision != "f32":
            raise ConfigError(f"precision is {precision!r}, expected 'f32' for engine 'torch'")
        self.device = device
        self._settings = (engine, device, precision, threads)
        self._set_up()
        self._running()  # refuses nonsense at birth

    def __call__(self, a: Features, b: Features, *, threshold: float | None = None) -> Assignment:
        """Match two images.

        Args:
            a, b: Features with descriptors of the weights that the matcher was trained on.
            threshold: Least probability of a match, 0..1; None takes the checkpoint's.

        Returns:
            Matches and matchability; no matches if either image has no keypoints.

        Raises:
            ConfigError: Features of other weights, of another descriptor length, without
                descriptors or with values that are not finite; a threshold out of range.
        """
        limit = self.checkpoint.threshold if threshold is None else threshold
        check_within("threshold", limit, 0, 1, "a probability")
        inputs = [self._input(a, "A"), self._input(b, "B")]
        if len(a) == 0 or len(b) == 0:
            return unmatched(len(a), len(b))
        return assign(*self._running().run(*inputs), limit)

    def _running(self) -> MatcherEngine:
        """The engine of this process, because its threads do not survive a fork."""
        if self._pid != os.getpid():
            self._set_up()
        with self._lock:
            if not self._built:
                self._built.append(_engine(self.checkpoint, self.layers, *self._settings))
            return self._built[0]

    def _set_up(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._built = list[MatcherEngine]()

    def __getstate__(self) -> dict[str, Any]:
        own = ("_pid", "_lock", "_built")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up()

    def _input(self, features: Features, name: str) -> MatcherInput:
        descriptors = descriptors_of(features, name)
        check_detector(self.checkpoint, features, name)
        length = self.checkpoint.config.descriptor_length
        if len(features) and descriptors.shape[1] != length:
            raise ConfigError(
                f"features {name} have descriptors of length {descriptors.shape[1]}, expected "
                f"{length} by matcher {self.checkpoint.name!r}: detect with the checkpoint that it "
                "was trained on"
            )
        if not np.isfinite(features.xy).all():
            raise ConfigError(
                f"features {name} have positions with NaN or infinite values: detect again"
            )
        return MatcherInput(normalised(features.xy, features.size_hw), descriptors)


def check_detector(checkpoint: MatcherCheckpoint, features: Features, name: str) -> None:
    """Refuse features of other weights than those that a matcher was trained on.

    Features without a provenance pass, and so does every one if the matcher names no weights.

    Raises:
        ConfigError: Other weights.
    """
    made, expected = features.provenance, checkpoint.detector_sha256
    if made is None or expected is None or made.weights_sha256 == expected:
        return
    raise ConfigError(
        f"features {name} have weights_sha256 {made.weights_sha256} (checkpoint "
        f"{made.checkpoint!r}), expected {expected} by matcher {checkpoint.name!r}: detect with "
        "the checkpoint that the matcher was trained on, or use the matcher of this one"
    )


def _engine(
    checkpoint: MatcherCheckpoint,
    layers: int,
    engine: str,
    device: str,
    precision: str,
    threads: int | None,
) -> MatcherEngine:
    config, tensors = checkpoint.config, checkpoint.tensors
    if engine == "torch":
        if not is_installed("torch"):
            raise MissingExtraError("the engine 'torch'", "torch")
        from tiepoint.matching.learned.torch_engine import TorchMatcher

        return TorchMatcher(config, tensors, layers=layers, device=device)
    from tiepoint.matching.learned.openvino_engine import OpenVinoMatcher

    if threads is None and cpu_quota() is not None:  # which OpenVINO does not know
        threads = usable_cores()
    return OpenVinoMatcher(config, tensors, layers=layers, precision=precision, threads=threads)
