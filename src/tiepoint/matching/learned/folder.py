"""A matcher's folder: config.json and model.safetensors in transformers' LightGlue layout.

The key "tiepoint" of config.json has the SHA-256 of the detector's weights whose descriptors the
matcher was trained on. Nothing in a folder is executed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import NetworkConfig
from tiepoint.checks import check_within, shown
from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.weights.checkpoint import (
    Checkpoint,
    Tensors,
    check_cached,
    check_manifest,
    check_shapes,
    check_tensors,
    decode_tensors,
)
from tiepoint.weights.folder import (
    CONFIG_FILE,
    INITIALIZER_RANGE,
    MANIFEST_FILE,
    PREPROCESSOR_FILE,
    WEIGHTS_FILE,
    Contents,
    config_values,
    network_config,
    preprocessor_values,
    read_bytes,
    read_json,
    write_files,
)

MODEL_CLASS, MODEL_TYPE = "LightGlueForKeypointMatching", "lightglue"
PAIR_PROCESSOR_CLASS = "LightGlueImageProcessor"
MATCHER_VERSION = 1
"""Version of the values under the key "tiepoint"."""
DETECTOR_PREFIX = "keypoint_detector."
"""Prefix of the detector's tensors, which a folder may have for transformers."""
DEFAULT_THRESHOLD = 0.1
"""Least probability of a match; transformers' default."""
TRANSFORMERS_DEFAULTS: Mapping[str, int] = {
    "descriptor_dim": 256, "num_attention_heads": 4, "num_hidden_layers": 9,
}  # fmt: skip
"""Sizes that a config.json may leave out."""
NEVER = 1.0
"""Confidence with which transformers never stops early and never prunes keypoints. Its own value
for that, -1, makes it return matches of a shape that its post-processing refuses (5.23.0)."""


@dataclass(frozen=True, eq=False)
class MatcherCheckpoint:
    """Weights of a learned matcher and everything that belongs to them.

    Attributes:
        name: Folder that it was loaded from.
        sha256: SHA-256 of `model.safetensors`, hexadecimal.
        config: Sizes.
        threshold: Least probability of a match.
        detector_sha256: SHA-256 of the detector's weights whose descriptors it was trained on; None
            if config.json has none, as transformers writes it.
        tensors: Name -> float32 array, exactly the ones that `config` names.
        note: One line; empty unless a manifest has one.
        detector_tensors: Name -> float32 array of the detector; empty if the folder has none.
    """

    name: str
    sha256: str
    config: MatcherConfig
    threshold: float
    detector_sha256: str | None
    tensors: Tensors
    note: str = ""
    detector_tensors: Tensors = field(default_factory=dict)


def save_matcher(
    folder: str | PathLike[str],
    config: MatcherConfig,
    tensors: Tensors,
    detector: Checkpoint,
    *,
    threshold: float = DEFAULT_THRESHOLD,
    detector_tensors: bool = True,
    half: bool = False,
    manifest: Mapping[str, Any] | None = None,
) -> None:
    """Write a matcher's config.json and model.safetensors, and the files that belong to them.

    Args:
        folder: New or existing folder.
        config: Sizes.
        tensors: Name -> float32 array, as `config.tensor_shapes` lists them.
        detector: Checkpoint whose descriptors the matcher was trained on.
        threshold: Least probability of a match, 0..1.
        detector_tensors: Also store the weights of the detector and preprocessor_config.json, as
            transformers expects them. tiepoint itself does not need them.
        half: Store float16, half the size; tiepoint computes in float32 anyway.
        manifest: Record of the training, for manifest.json; the weights' SHA-256 is added.

    Raises:
        ConfigError: A detector of another descriptor length, or a threshold out of range.
        CheckpointError: Tensors that do not fit the sizes, or that are not finite.
        OutputError: The folder is not writable.
    """
    from safetensors.numpy import save

    check_within("threshold", threshold, 0, 1, "a probability")
    check_shapes(tensors, config.tensor_shapes(), Path(folder), "learned matcher")
    stored: dict[str, NDArray[np.float32]] = {
        name: np.ascontiguousarray(tensors[name], np.float32) for name in config.tensor_shapes()
    }
    if detector_tensors:
        stored |= {f"{DETECTOR_PREFIX}{name}": array for name, array in detector.tensors.items()}
    kind = np.float16 if half else np.float32
    weights = save({n: array.astype(kind) for n, array in stored.items()}, {"format": "pt"})
    files: dict[str, Contents] = {WEIGHTS_FILE: weights}
    if manifest is not None:
        files[MANIFEST_FILE] = {**manifest, "sha256": hashlib.sha256(weights).hexdigest()}
    files[CONFIG_FILE] = matcher_values(config, detector, threshold)
    if detector_tensors:
        files[PREPROCESSOR_FILE] = {
            **preprocessor_values(detector.rules), "image_processor_type": PAIR_PROCESSOR_CLASS,
        }  # fmt: skip
    write_files(folder, files)


def matcher_values(
    config: MatcherConfig, detector: Checkpoint, threshold: float = DEFAULT_THRESHOLD
) -> dict[str, Any]:
    """The contents of config.json in transformers' names, early stopping and pruning off.

    Raises:
        ConfigError: A detector of another descriptor length.
    """
    length = detector.network.descriptor_decoder_dim
    if length != config.descriptor_length:
        raise ConfigError(
            f"detector {detector.name!r} has descriptors of length {length}, expected "
            f"{config.descriptor_length} as the matcher: use the checkpoint it was trained on"
        )
    return {
        "architectures": [MODEL_CLASS],
        "model_type": MODEL_TYPE,
        "dtype": "float32",
        "descriptor_dim": config.width,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads,
        "num_hidden_layers": config.layers,
        "hidden_act": "gelu",
        "attention_bias": True,
        "attention_dropout": 0.0,
        "depth_confidence": NEVER,
        "width_confidence": NEVER,
        "filter_threshold": float(threshold),
        "initializer_range": INITIALIZER_RANGE,
        "keypoint_detector_config": config_values(
            detector.network, detector.detection, rules=detector.rules
        ),
        "tiepoint": {"version": MATCHER_VERSION, "detector_sha256": detector.sha256},
    }


def load_matcher(folder: str | PathLike[str]) -> MatcherCheckpoint:
    """Read a matcher's folder, written by tiepoint or by transformers.

    transformers' early stopping and pruning of keypoints are ignored: every layer runs.

    Raises:
        CheckpointError: A file is missing or damaged, or holds another model, or tensors that do
            not fit.
    """
    place = Path(folder)
    path = place / WEIGHTS_FILE
    values = read_json(place / CONFIG_FILE)
    config, detector = matcher_config(values, place / CONFIG_FILE)
    threshold = _threshold(values, place / CONFIG_FILE)
    detector_sha256 = named_detector(values, place / CONFIG_FILE)
    data = read_bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    check_cached(path, sha256)
    note = check_manifest(place, sha256)
    tensors, of_detector = {}, {}
    for name, array in decode_tensors(data, path).items():
        if name.startswith(DETECTOR_PREFIX):
            of_detector[name.removeprefix(DETECTOR_PREFIX)] = array
        else:
            tensors[name] = array
    check_shapes(tensors, config.tensor_shapes(), path, "learned matcher")
    if of_detector:
        check_tensors(of_detector, detector, path)
    name = os.fspath(folder)
    return MatcherCheckpoint(
        name, sha256, config, threshold, detector_sha256, tensors, note, of_detector
    )


def matcher_config(values: Mapping[str, Any], path: Path) -> tuple[MatcherConfig, NetworkConfig]:
    """The sizes of the matcher and of its detector in a parsed config.json.

    Raises:
        CheckpointError: Another kind of model, a variant that tiepoint does not have, or sizes
            that make no network.
    """
    if values.get("model_type") != MODEL_TYPE:
        raise CheckpointError(
            f"{path}: model_type is {shown(values.get('model_type'))}, expected {MODEL_TYPE!r}"
        )
    sizes = {name: values.get(name, least) for name, least in TRANSFORMERS_DEFAULTS.items()}
    heads = sizes["num_attention_heads"]
    key_heads = values.get("num_key_value_heads")
    variant = (
        values.get("hidden_act", "gelu"), values.get("attention_bias", True),
        heads if key_heads is None else key_heads,
    )  # fmt: skip
    if variant != ("gelu", True, heads):
        raise CheckpointError(
            f"{path}: hidden_act, attention_bias, num_key_value_heads are {shown(variant)}, "
            f"expected ('gelu', True, {shown(heads)})"
        )
    nested = values.get("keypoint_detector_config")
    if not isinstance(nested, Mapping):
        raise CheckpointError(
            f"{path}: keypoint_detector_config is {shown(nested)}, expected a JSON object with the "
            "detector's sizes"
        )
    detector = network_config(nested, path)
    try:
        config = MatcherConfig(
            descriptor_length=detector.descriptor_decoder_dim,
            width=sizes["descriptor_dim"], heads=heads, layers=sizes["num_hidden_layers"],
        )  # fmt: skip
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return config, detector


def _threshold(values: Mapping[str, Any], path: Path) -> float:
    threshold = values.get("filter_threshold", DEFAULT_THRESHOLD)
    try:
        check_within("filter_threshold", threshold, 0, 1, "a probability")
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return float(threshold)


def named_detector(values: Mapping[str, Any], path: Path) -> str | None:
    """The SHA-256 of the detector's weights that a parsed config.json names; None if it does not.

    Raises:
        CheckpointError: The key "tiepoint" is malformed, or of a later version.
    """
    mark = values.get("tiepoint")
    if mark is None:
        return None
    sha256 = mark.get("detector_sha256") if isinstance(mark, Mapping) else None
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise CheckpointError(
            f'{path}: "tiepoint" is {shown(mark)}, expected {{"version": {MATCHER_VERSION}, '
            '"detector_sha256": 64 hexadecimal digits}'
        )
    if mark.get("version") != MATCHER_VERSION:
        raise CheckpointError(
            f"{path}: a matcher of version {shown(mark.get('version'))}, expected version "
            f"{MATCHER_VERSION}; upgrade tiepoint"
        )
    return sha256
