"""Checkpoints: find by name, folder or Hub id; verify; read without executing anything.

A checkpoint is a folder in transformers' layout: `config.json`, `preprocessor_config.json` and
`model.safetensors` with SuperPoint's 24 tensors of any widths. This module needs no torch; tensors
are float32 NumPy arrays, whatever the file's precision.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import NetworkConfig
from tiepoint.checks import shown
from tiepoint.config import DescriptorSampling, DetectionConfig
from tiepoint.errors import CheckpointError
from tiepoint.files.paths import is_file, is_folder
from tiepoint.weights.activation_maxima import (
    ActivationMaxima,
    load_activation_maxima,
    quantised_layers,
)
from tiepoint.weights.folder import (
    CONFIG_FILE,
    MANIFEST_FILE,
    OPTIONAL_FILES,
    WEIGHTS_FILE,
    Rules,
    detection_config,
    network_config,
    read_bytes,
    read_json,
    rules_of,
)
from tiepoint.weights.hub import HubOptions, fetch, is_id, sha256_in_cache

BUNDLED = Path(__file__).parent / "bundled"
DEFAULT = "base"

Tensors = Mapping[str, NDArray[np.float32]]

MAX_HEADER_BYTES = 1_000_000
"""Most bytes of the list of tensors in a safetensors file; that of a checkpoint has 3,000."""
LISTED_NAMES = 12
"""Most names of tensors in an error."""
_STORED_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights and everything that belongs to them.

    Attributes:
        name: Bundled name, folder or Hub id that it was loaded from.
        sha256: SHA-256 of `model.safetensors`, hexadecimal.
        network: Widths.
        detection: Detection settings that the weights were made for.
        rules: "exact", or "transformers" for a checkpoint whose config names no rules.
        tensors: Name -> float32 array, exactly the ones that `network` names.
        note: One line for `tiepoint info`; empty unless a manifest has one.
        revision: Commit of a checkpoint from the Hub, if known.
        activation_maxima: Quantisation ranges for `precision="int8"`; None if not measured.
    """

    name: str
    sha256: str
    network: NetworkConfig
    detection: DetectionConfig
    rules: Rules
    tensors: Tensors
    note: str = ""
    revision: str | None = None
    activation_maxima: ActivationMaxima | None = None

    @property
    def sampling(self) -> DescriptorSampling:
        """The descriptor sampling that the weights were trained with."""
        return "exact" if self.rules == "exact" else "superpoint"


def bundled_checkpoints() -> list[str]:
    """Names of the checkpoints inside the package, the default first."""
    return list(_names_in(BUNDLED))


@lru_cache(maxsize=1)
def _names_in(bundled: Path) -> tuple[str, ...]:
    """Names of the checkpoints in the package's folder, which does not change while it runs."""
    names = (path.parent.name for path in bundled.glob(f"*/{CONFIG_FILE}"))
    return tuple(sorted(names, key=lambda name: (name != DEFAULT, name)))


def absolute_name(checkpoint: Checkpoint) -> str:
    """The name of a checkpoint; of a folder one that is valid in any working folder."""
    folder = Path(checkpoint.name)
    if checkpoint.name in bundled_checkpoints() or not is_folder(folder):
        return checkpoint.name
    return str(folder.resolve())


def load_checkpoint(
    checkpoint: str | PathLike[str] = "default", **hub: Unpack[HubOptions]
) -> Checkpoint:
    """Read a checkpoint.

    Args:
        checkpoint: "default", a bundled name, a folder with `config.json` and
            `model.safetensors`, or a Hub id `org/name`. An existing folder takes precedence over a
            Hub id of the same text.

    Raises:
        CheckpointError: Unknown name, a damaged file, or tensors that do not fit; for a Hub id
            also no permission or no connection.
    """
    name, folder, commit = _find(checkpoint, hub)
    path = folder / WEIGHTS_FILE
    config = read_json(folder / CONFIG_FILE)
    rules = rules_of(config, folder / CONFIG_FILE)
    network = network_config(config, folder / CONFIG_FILE)
    data = read_bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    check_cached(path, sha256)
    note = check_manifest(folder, sha256)
    tensors = decode_tensors(data, path)
    check_tensors(tensors, network, path)
    detection = detection_config(config, folder / CONFIG_FILE)
    maxima = load_activation_maxima(folder, sha256, quantised_layers(network))
    return Checkpoint(name, sha256, network, detection, rules, tensors, note, commit, maxima)


def bundled_with(sha256: str | None) -> Checkpoint | None:
    """The bundled checkpoint whose weights have this SHA-256; None if there is none."""
    for name in bundled_checkpoints() if sha256 is not None else ():
        checkpoint = load_checkpoint(name)
        if checkpoint.sha256 == sha256:
            return checkpoint
    return None


def locate(checkpoint: str | PathLike[str], **hub: Unpack[HubOptions]) -> Path:
    """The folder of a checkpoint, downloaded first if necessary; see `load_checkpoint`."""
    return _find(checkpoint, hub)[1]


def files_state(checkpoint: str | PathLike[str]) -> tuple[object, ...]:
    """What changes if the files of a checkpoint folder do: its path, their times and sizes.

    It is empty for a Hub id, because asking the Hub takes seconds.
    """
    name = DEFAULT if checkpoint == "default" else os.fspath(checkpoint)
    folder = BUNDLED / name if name in bundled_checkpoints() else Path(name)
    if not is_folder(folder):
        return ()
    state: list[object] = [os.path.realpath(folder)]
    for file in (CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE, *OPTIONAL_FILES):
        with suppress(OSError):
            status = (folder / file).stat()
            state.append((file, status.st_mtime_ns, status.st_size))
    return tuple(state)


def _find(checkpoint: str | PathLike[str], hub: HubOptions) -> tuple[str, Path, str | None]:
    """Name, folder and, for a checkpoint from the Hub, its commit."""
    name = DEFAULT if checkpoint == "default" else os.fspath(checkpoint)
    folder = BUNDLED / name if name in bundled_checkpoints() else Path(checkpoint)
    if is_folder(folder):
        revision = hub.get("revision")
        if revision not in (None, "main"):
            raise CheckpointError(
                f"checkpoint {name!r}: revision {revision!r} can be given for a Hub id only; "
                f"this is the folder {folder}"
            )
        return name, folder, None
    if isinstance(checkpoint, str) and is_id(checkpoint):
        return name, *fetch(checkpoint, **hub)
    raise CheckpointError(
        f"checkpoint {name!r}: neither a bundled name ({', '.join(bundled_checkpoints())}) nor a "
        f"folder nor a Hub id (org/name); give a folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}"
    )


def decode_tensors(data: bytes, path: Path) -> dict[str, NDArray[np.float32]]:
    """Read the tensors of a safetensors file as float32, bfloat16 included.

    Raises:
        CheckpointError: A damaged file, or a tensor of another type than floats.
    """
    from safetensors import SafetensorError, deserialize

    header_bytes = int.from_bytes(data[:8], "little")
    if header_bytes > MAX_HEADER_BYTES:  # parsed, it would take many times its own size
        raise CheckpointError(
            f"{path}: not a whole safetensors file (a header of {header_bytes} bytes, the limit is "
            f"{MAX_HEADER_BYTES}); fetch or copy it again"
        )
    try:
        entries: list[tuple[str, dict[str, Any]]] = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({error}); fetch or copy it again"
        ) from error
    return {name: _to_float32(name, entry, path) for name, entry in entries}


def check_tensors(tensors: Tensors, network: NetworkConfig, path: Path) -> None:
    """Raise CheckpointError unless the tensors are exactly those of the network, and finite."""
    expected: dict[str, tuple[int, ...]] = {}
    for layer in network.layers():
        side = layer.kernel_px
        expected[f"{layer.name}.weight"] = (layer.out_channels, layer.in_channels, side, side)
        expected[f"{layer.name}.bias"] = (layer.out_channels,)
    check_shapes(tensors, expected, path, "SuperPoint network")


def check_shapes(
    tensors: Tensors, expected: Mapping[str, tuple[int, ...]], path: Path, kind: str
) -> None:
    """Raise CheckpointError unless tensors have exactly the expected names and are finite.

    Args:
        expected: Name -> shape.
        path: File of the tensors, for the error.
        kind: What they are the tensors of, for the error.
    """
    missing, unexpected = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or unexpected:
        raise CheckpointError(
            f"{path}: not the tensors of a {kind}; missing: {_listed(missing)}; "
            f"unexpected: {_listed(unexpected)}"
        )
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tensors[name].shape}, expected {shape} by {CONFIG_FILE}"
            )
        if not np.isfinite(tensors[name]).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity")


def _listed(names: Sequence[str]) -> str:
    """Names for an error, the first few of many."""
    more = len(names) - LISTED_NAMES
    listed = ", ".join(shown(name)[1:-1] for name in names[:LISTED_NAMES]) or "none"
    return f"{listed} and {more} more" if more > 0 else listed


def _to_float32(name: str, entry: Mapping[str, Any], path: Path) -> NDArray[np.float32]:
    dtype, shape, data = entry["dtype"], entry["shape"], entry["data"]
    if dtype not in _STORED_TYPES:
        known = ", ".join(_STORED_TYPES)
        raise CheckpointError(f"{path}: {name} is {dtype}, expected one of {known}")
    stored = np.frombuffer(data, _STORED_TYPES[dtype]) if len(data) else np.zeros(0, np.float32)
    if dtype == "BF16":  # the upper half of a float32
        return (stored.astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return stored.astype(np.float32).reshape(shape)


def check_cached(path: Path, sha256: str) -> None:
    """Verify a file in the Hub's cache against the SHA-256 in its blob's name.

    Raises:
        CheckpointError: The file is damaged.
    """
    expected = sha256_in_cache(path)
    if expected not in (None, sha256):
        raise CheckpointError(
            f"{path}: SHA-256 is {sha256}, expected the Hub's {expected}: the file in the cache "
            f"is damaged; delete {path.resolve()} and load again"
        )


def check_manifest(folder: Path, sha256: str) -> str:
    """Verify weights against the folder's manifest, if there is one; returns its note.

    Raises:
        CheckpointError: Other weights than those of the manifest.
    """
    path = folder / MANIFEST_FILE
    if not is_file(path):
        return ""
    manifest = read_json(path)
    if manifest.get("sha256") not in (None, sha256):
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE}: SHA-256 is {sha256}, expected {manifest['sha256']} by "
            f"{MANIFEST_FILE}: the file is damaged or was replaced; install or copy it again"
        )
    return str(manifest.get("note", ""))
