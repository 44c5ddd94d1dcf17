"""Checkpoints: find by name, folder or Hub id; verify; read without executing anything.

A checkpoint is a folder in transformers' layout: `config.json`, `preprocessor_config.json` and
`model.safetensors` with SuperPoint's 24 tensors, whatever their widths. Everything here works
without torch; tensors are float32 NumPy arrays, whatever the file's precision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import NetworkConfig
from tiepoint.config import DescriptorSampling, DetectionConfig
from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.weights.hub import CONFIG_FILE, WEIGHTS_FILE, Token, fetch, is_id, stated_sha256
from tiepoint.weights.quantization import Ranges, load_ranges, rounded_layers

BUNDLED = Path(__file__).parent / "bundled"
DEFAULT = "base"
MANIFEST_FILE = "manifest.json"
RULES_VERSION = 1
COVARIANCE_KEY, SCALES_KEY = "covariance_scale", "scales"
"""In config.json, under "tiepoint"."""

Rules = Literal["exact", "transformers"]
Tensors = Mapping[str, NDArray[np.float32]]

_BYTES_PER_VALUE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights, and everything that belongs to them.

    Attributes:
        name: The bundled name, the folder or the Hub id it was loaded from.
        sha256: Of `model.safetensors`, hexadecimal.
        network: Widths.
        detection: The threshold, NMS radius and so on that the weights were made for.
        rules: "exact", or "transformers" for a checkpoint that does not say it follows ours.
        tensors: Name -> float32 array, exactly the ones that `network` names.
        note: One line for `tiepoint info`; empty for a user's own.
        revision: The commit of a checkpoint from the Hub, if known.
        ranges: For `precision="int8"`; see `quantization`. None where nobody measured them.
    """

    name: str
    sha256: str
    network: NetworkConfig
    detection: DetectionConfig
    rules: Rules
    tensors: Tensors
    note: str = ""
    revision: str | None = None
    ranges: Ranges | None = None

    @property
    def sampling(self) -> DescriptorSampling:
        """The descriptor sampling that the weights were trained with."""
        return "exact" if self.rules == "exact" else "superpoint"


def bundled_checkpoints() -> list[str]:
    """Names of the checkpoints inside the package, the default first."""
    names = sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG_FILE}"))
    return sorted(names, key=lambda name: (name != DEFAULT, name))


def absolute_name(checkpoint: Checkpoint) -> str:
    """The name of a checkpoint; of a folder one that is valid in any working folder."""
    folder = Path(checkpoint.name)
    is_folder = checkpoint.name not in bundled_checkpoints() and folder.is_dir()
    return str(folder.resolve()) if is_folder else checkpoint.name


def load_checkpoint(
    checkpoint: str | Path = "default",
    *,
    revision: str | None = None,
    token: Token = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Checkpoint:
    """Read a checkpoint.

    Args:
        checkpoint: "default", a bundled name, a folder with `config.json` and
            `model.safetensors`, or a Hub id `org/name`. A folder that exists wins over a Hub id
            of the same text.
        revision: Of a Hub id: branch, tag or commit; None takes `main`.
        token: Of a Hub id: for private and gated repositories.
        cache_dir: Of a Hub id: None takes huggingface_hub's own.
        local_files_only: Of a Hub id: ask the cache alone.

    Raises:
        CheckpointError: Nothing of that name, a damaged file, or tensors that do not fit; for a
            Hub id also no permission or no connection.
    """
    name = DEFAULT if checkpoint == "default" else str(checkpoint)
    folder, commit = _find(checkpoint, revision, token, cache_dir, local_files_only)
    config = read_json(folder / CONFIG_FILE)
    rules = rules_of(config, folder / CONFIG_FILE)
    network = network_config(config, folder / CONFIG_FILE)
    data = _read_bytes(folder / WEIGHTS_FILE)
    sha256 = hashlib.sha256(data).hexdigest()
    _check_cached(folder / WEIGHTS_FILE, sha256)
    note = _check_manifest(folder, sha256)
    tensors = decode_tensors(data, folder / WEIGHTS_FILE)
    check_tensors(tensors, network, folder / WEIGHTS_FILE)
    detection = detection_config(config, folder / CONFIG_FILE)
    ranges = load_ranges(folder, sha256, rounded_layers(network))
    return Checkpoint(name, sha256, network, detection, rules, tensors, note, commit, ranges)


def locate(
    checkpoint: str | Path,
    *,
    revision: str | None = None,
    token: Token = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a checkpoint, after it was downloaded if need be.

    Args:
        checkpoint: As for `load_checkpoint`, and so the others.

    Raises:
        CheckpointError: Nothing of that name; for a Hub id also no permission or no connection.
    """
    return _find(checkpoint, revision, token, cache_dir, local_files_only)[0]


def _find(
    checkpoint: str | Path,
    revision: str | None,
    token: Token,
    cache_dir: str | Path | None,
    local_files_only: bool,
) -> tuple[Path, str | None]:
    """The folder, and the commit of a checkpoint from the Hub."""
    name = DEFAULT if checkpoint == "default" else str(checkpoint)
    folder = BUNDLED / name if name in bundled_checkpoints() else Path(checkpoint)
    if folder.is_dir():
        if revision not in (None, "main"):
            raise CheckpointError(
                f"checkpoint {name!r}: revision {revision!r} can be given for a Hub id only; "
                f"this is the folder {folder}"
            )
        return folder, None
    if isinstance(checkpoint, str) and is_id(checkpoint):
        fetched = fetch(
            checkpoint,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        return fetched.folder, fetched.revision
    raise CheckpointError(
        f"checkpoint {name!r}: neither a bundled name ({', '.join(bundled_checkpoints())}) nor a "
        f"folder nor a Hub id (org/name); give a folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}"
    )


def network_config(config: Mapping[str, Any], path: Path) -> NetworkConfig:
    """The widths in a parsed config.json; absent ones are the paper's."""
    model_type = config.get("model_type", "superpoint")
    if model_type != "superpoint":
        raise CheckpointError(f"{path}: model_type is {model_type!r}, expected 'superpoint'")
    names = (
        "encoder_hidden_sizes",
        "decoder_hidden_size",
        "keypoint_decoder_dim",
        "descriptor_decoder_dim",
    )
    values = {name: config[name] for name in names if name in config}
    try:
        if "encoder_hidden_sizes" in values:
            values["encoder_hidden_sizes"] = tuple(values["encoder_hidden_sizes"])
        return NetworkConfig(**values)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def detection_config(config: Mapping[str, Any], path: Path) -> DetectionConfig:
    """The detection defaults in a parsed config.json, in transformers' names."""
    most, own = config.get("max_keypoints", -1), config.get("tiepoint") or {}
    try:
        return DetectionConfig(
            threshold=config.get("keypoint_threshold", DetectionConfig.threshold),
            max_keypoints=None if most in (-1, None) else most,
            nms_radius=config.get("nms_radius", DetectionConfig.nms_radius),
            border=config.get("border_removal_distance", DetectionConfig.border),
            covariance_scale=own.get(COVARIANCE_KEY),
            scales=own.get(SCALES_KEY, DetectionConfig.scales),
        )
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def rules_of(config: Mapping[str, Any], path: Path) -> Rules:
    """Whose rules a checkpoint follows: ours if the key "tiepoint" says so."""
    mark = config.get("tiepoint")
    if mark is None:
        return "transformers"
    if not isinstance(mark, Mapping) or mark.get("rules") != "exact":
        raise CheckpointError(f'{path}: "tiepoint" is {mark!r}, expected {{"rules": "exact", ...}}')
    if mark.get("version") != RULES_VERSION:
        raise CheckpointError(
            f"{path}: rules of version {mark.get('version')!r}, this tiepoint knows version "
            f"{RULES_VERSION}; upgrade tiepoint"
        )
    return "exact"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint."""
    try:
        value = json.loads(_read_bytes(path))
    except ValueError as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: holds a {type(value).__name__}, expected a JSON object")
    return value


def decode_tensors(data: bytes, path: Path) -> dict[str, NDArray[np.float32]]:
    """The tensors of a safetensors file as float32.

    bfloat16 is widened here, since NumPy does not know it and torch is not needed for it.
    """
    from safetensors import SafetensorError, deserialize

    try:
        entries: list[tuple[str, dict[str, Any]]] = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({error}); fetch or copy it again"
        ) from error
    return {name: _to_float32(name, entry, path) for name, entry in entries}


def check_tensors(tensors: Tensors, network: NetworkConfig, path: Path) -> None:
    """Raise unless the tensors are exactly those of the network, and finite."""
    expected: dict[str, tuple[int, ...]] = {}
    for layer in network.layers():
        side = layer.kernel_px
        expected[f"{layer.name}.weight"] = (layer.out_channels, layer.in_channels, side, side)
        expected[f"{layer.name}.bias"] = (layer.out_channels,)
    missing = sorted(set(expected) - set(tensors))
    unexpected = sorted(set(tensors) - set(expected))
    if missing or unexpected:
        raise CheckpointError(
            f"{path}: not the tensors of a SuperPoint network; missing: "
            f"{', '.join(missing) or 'none'}; unexpected: {', '.join(unexpected) or 'none'}"
        )
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tensors[name].shape}, {CONFIG_FILE} says {shape}"
            )
        if not np.isfinite(tensors[name]).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity")


def _to_float32(name: str, entry: Mapping[str, Any], path: Path) -> NDArray[np.float32]:
    dtype, shape, data = entry["dtype"], entry["shape"], entry["data"]
    if dtype not in _BYTES_PER_VALUE:
        raise CheckpointError(
            f"{path}: {name} is {dtype}, expected one of {', '.join(_BYTES_PER_VALUE)}"
        )
    if dtype == "BF16":  # the upper half of a float32
        wide = np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(shape)
    stored = np.frombuffer(data, dtype=f"<f{_BYTES_PER_VALUE[dtype]}")
    return stored.astype(np.float32).reshape(shape)


def _check_cached(path: Path, sha256: str) -> None:
    """Hold a file of the Hub's cache against the checksum that it is filed under."""
    stated = stated_sha256(path)
    if stated not in (None, sha256):
        raise CheckpointError(
            f"{path}: SHA-256 is {sha256}, the Hub says {stated}: the file in the cache is "
            f"damaged; delete {path.resolve()} and load again"
        )


def _check_manifest(folder: Path, sha256: str) -> str:
    """The note of a folder's manifest, after its checksum was held against the weights."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return ""
    manifest = read_json(path)
    if manifest.get("sha256") not in (None, sha256):
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE}: SHA-256 is {sha256}, {MANIFEST_FILE} says "
            f"{manifest['sha256']}: the file is damaged or was replaced; install or copy it again"
        )
    return str(manifest.get("note", ""))


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: missing; a checkpoint folder holds {CONFIG_FILE} and {WEIGHTS_FILE}"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
