"""The files of a checkpoint folder: their names, the settings in config.json, and their writer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from tiepoint.architecture import NetworkConfig
from tiepoint.config import DetectionConfig
from tiepoint.errors import CheckpointError, ConfigError, FormatError, OutputError
from tiepoint.files.paths import exists
from tiepoint.files.reading import read_bounded
from tiepoint.files.reading import read_json as read_any_json
from tiepoint.files.writing import temporary_name, write_bytes

MAX_WEIGHTS_BYTES = 100_000_000
"""Most bytes of a file of weights: 25 million numbers, 19 times the network of the paper."""

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
PREPROCESSOR_FILE = "preprocessor_config.json"
QUANTIZATION_FILE = "quantization.json"
"""Activation maxima for `precision="int8"`; see `activation_maxima`."""
ROTATION_FILE = "rotation.safetensors"
"""The matrix that rotates descriptors; see `rotation`."""
MANIFEST_FILE = "manifest.json"
"""The training run and the SHA-256 of the weights."""
MATCHER_FOLDER = "matcher"
"""Folder of the learned matcher inside the folder of the checkpoint that it was trained for."""
OPTIONAL_FILES = (PREPROCESSOR_FILE, ROTATION_FILE, QUANTIZATION_FILE)
"""Files that a checkpoint may have beside its config and its weights."""

Rules = Literal["exact", "transformers"]
RULES_VERSION = 1
EXACT: Mapping[str, Any] = MappingProxyType({"version": RULES_VERSION, "rules": "exact"})
"""Value of the key "tiepoint" in the config files of a checkpoint that follows the exact rules."""
COVARIANCE_KEY, SCALES_KEY, NOISE_FLOOR_KEY = "covariance_scale", "scales", "noise_floor"
PHASES_KEY = "phases"
"""Further settings under the key "tiepoint" of config.json."""

MODEL_CLASS, PROCESSOR_CLASS = "SuperPointForKeypointDetection", "SuperPointImageProcessor"
Contents = bytes | Mapping[str, Any]
"""Contents of a file; a mapping becomes a JSON object."""

INITIALIZER_RANGE = 0.02
"""transformers' default standard deviation of random weights."""
PROCESSOR_SIZE: Mapping[str, int] = MappingProxyType({"height": 480, "width": 640})
"""px; transformers' default."""


def read_bytes(path: Path) -> bytes:
    """Read a file of a checkpoint; CheckpointError if it is missing or unreadable."""
    try:
        return read_bounded(path, MAX_WEIGHTS_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    if isinstance(error, FileNotFoundError):
        return CheckpointError(
            f"{path}: missing; a checkpoint folder holds {CONFIG_FILE} and {WEIGHTS_FILE}"
        )
    return CheckpointError(f"{path}: cannot be read ({error.strerror})")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a checkpoint; CheckpointError if it holds none."""
    try:
        value = read_any_json(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds a {type(value).__name__}, expected a JSON object")
    return value


def write_file(folder: Path, name: str, content: Contents, *, sort_keys: bool = False) -> Path:
    """Write one file of a checkpoint into an existing folder; returns its path.

    Raises:
        FormatError: A value has no form in JSON.
        OutputError: It cannot be written.
    """
    path = folder / name
    if not isinstance(content, bytes):
        try:
            text = json.dumps(dict(content), indent=2, sort_keys=sort_keys)
        except (TypeError, ValueError) as error:
            raise FormatError(f"{path}: a setting cannot be written as JSON ({error})") from error
        content = f"{text}\n".encode()
    write_bytes(path, content, follow=False)  # a link into the Hub's cache, shared by others
    return path


def write_files(
    folder: str | PathLike[str], files: Mapping[str, Contents], *, sort_keys: bool = False
) -> None:
    """Write several files of a checkpoint into a new or an existing folder.

    A new folder appears with all its files or not at all. In an existing folder config.json is
    written last, because a folder without it is no checkpoint. New weights without a manifest
    remove the manifest of the old ones. Raises like `write_file`.
    """
    folder = Path(folder)
    is_new = not exists(folder)
    target = folder.with_name(temporary_name()) if is_new else folder
    try:
        target.mkdir(parents=True, exist_ok=True)
        if WEIGHTS_FILE in files and MANIFEST_FILE not in files:
            (target / MANIFEST_FILE).unlink(missing_ok=True)
        for name in sorted(files, key=CONFIG_FILE.__eq__):
            write_file(target, name, files[name], sort_keys=sort_keys)
        if is_new:
            target.rename(folder)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror}); choose another place"
        ) from error
    finally:
        if is_new:  # already renamed unless something failed
            shutil.rmtree(target, ignore_errors=True)


def config_values(
    network: NetworkConfig, detection: DetectionConfig, *, rules: Rules
) -> dict[str, Any]:
    """The contents of config.json in transformers' names; see `network_config` for the reverse.

    The exact rules add the key "tiepoint" with the scales, the covariance scale and the noise
    floor; the latter two only if they were measured.
    """
    own: dict[str, Any] = {**EXACT, SCALES_KEY: list(detection.scales)}
    if detection.covariance_scale is not None:
        own[COVARIANCE_KEY] = detection.covariance_scale
    if detection.noise_floor:
        own[NOISE_FLOOR_KEY] = detection.noise_floor
    if detection.phases != 1:
        own[PHASES_KEY] = detection.phases
    return {
        "architectures": [MODEL_CLASS],
        "model_type": "superpoint",
        "dtype": "float32",  # otherwise transformers would compute in the file's float16
        **asdict(network),
        "keypoint_threshold": detection.threshold,
        "max_keypoints": -1 if detection.max_keypoints is None else detection.max_keypoints,
        "nms_radius": detection.nms_radius,
        "border_removal_distance": detection.border,
        "initializer_range": INITIALIZER_RANGE,
        **({"tiepoint": own} if rules == "exact" else {}),
    }


def preprocessor_values(rules: Rules) -> dict[str, Any]:
    """The contents of preprocessor_config.json, with transformers' defaults."""
    return {
        "do_grayscale": True,  # as in training; otherwise the red channel alone is used
        "do_rescale": True,
        "do_resize": True,
        "image_processor_type": PROCESSOR_CLASS,
        "rescale_factor": 1 / 255,
        "size": dict(PROCESSOR_SIZE),
        **({"tiepoint": dict(EXACT)} if rules == "exact" else {}),
    }


def network_config(config: Mapping[str, Any], path: Path) -> NetworkConfig:
    """The widths in a parsed config.json; missing ones are the paper's.

    Raises:
        CheckpointError: Another kind of model, or widths that make no network.
    """
    model_type = config.get("model_type", "superpoint")
    if model_type != "superpoint":
        raise CheckpointError(f"{path}: model_type is {model_type!r}, expected 'superpoint'")
    names = NetworkConfig.__dataclass_fields__
    widths = {name: config[name] for name in names if name in config}
    try:
        if "encoder_hidden_sizes" in widths:
            widths["encoder_hidden_sizes"] = tuple(widths["encoder_hidden_sizes"])
        return NetworkConfig(**widths)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def detection_config(config: Mapping[str, Any], path: Path) -> DetectionConfig:
    """The detection defaults in a parsed config.json; CheckpointError if one is out of range."""
    limit, own = config.get("max_keypoints", -1), config.get("tiepoint") or {}
    try:
        return DetectionConfig(
            threshold=config.get("keypoint_threshold", DetectionConfig.threshold),
            max_keypoints=None if limit in (-1, None) else limit,
            nms_radius=config.get("nms_radius", DetectionConfig.nms_radius),
            border=config.get("border_removal_distance", DetectionConfig.border),
            covariance_scale=own.get(COVARIANCE_KEY),
            scales=own.get(SCALES_KEY, DetectionConfig.scales),
            noise_floor=own.get(NOISE_FLOOR_KEY, DetectionConfig.noise_floor),
            phases=own.get(PHASES_KEY, DetectionConfig.phases),
        )
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def rules_of(config: Mapping[str, Any], path: Path) -> Rules:
    """The rules that a parsed config file names: the exact ones if it has the key "tiepoint".

    Raises:
        CheckpointError: Unknown rules, or a version newer than this tiepoint.
    """
    mark = config.get("tiepoint")
    if mark is None:
        return "transformers"
    if not isinstance(mark, Mapping) or mark.get("rules") != "exact":
        raise CheckpointError(f'{path}: "tiepoint" is {mark!r}, expected {{"rules": "exact", ...}}')
    if mark.get("version") != RULES_VERSION:
        raise CheckpointError(
            f"{path}: rules of version {mark.get('version')!r}, expected version "
            f"{RULES_VERSION}; upgrade tiepoint"
        )
    return "exact"
