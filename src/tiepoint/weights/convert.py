"""Convert weights of other projects to a checkpoint folder. No code in a file is ever executed.

Input is Magic Leap's file (`conv1a` ... `convDb`) or transformers' tensors, as safetensors or as
torch's `.pth`/`.bin`, which is read with `weights_only=True`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import NetworkConfig
from tiepoint.config import DetectionConfig
from tiepoint.errors import CheckpointError, MissingExtraError
from tiepoint.files.paths import exists, is_file, is_folder
from tiepoint.files.reading import open_regular
from tiepoint.weights import torch_files
from tiepoint.weights.checkpoint import check_tensors, decode_tensors
from tiepoint.weights.folder import (
    CONFIG_FILE,
    PREPROCESSOR_FILE,
    WEIGHTS_FILE,
    Contents,
    config_values,
    detection_config,
    network_config,
    preprocessor_values,
    read_bytes,
    read_json,
    rules_of,
    write_files,
)

MAGIC_LEAP: Mapping[str, str] = MappingProxyType(
    {
        **{f"conv{i + 1}{c}": f"encoder.conv_blocks.{i}.conv_{c}" for i in range(4) for c in "ab"},
        "convPa": "keypoint_decoder.conv_score_a",
        "convPb": "keypoint_decoder.conv_score_b",
        "convDa": "descriptor_decoder.conv_descriptor_a",
        "convDb": "descriptor_decoder.conv_descriptor_b",
    }
)
"""Magic Leap's layer names -> transformers'."""

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
_PREFIXES = ("module.", "model.", "_orig_mod.", "superpoint.", "net.")
_MOST_WRAPPERS = 16
_LISTED = 8

Tensors = dict[str, NDArray[np.float32]]
Settings = dict[str, Any]


def convert(source: str | Path, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a checkpoint folder in transformers' layout.

    The widths are those of the tensors. The config does not name tiepoint's rules, because the
    weights were trained with SuperPoint's own descriptor sampling. A config.json next to a file
    with transformers' names is kept.

    Args:
        source: File of weights, safetensors or torch's.
        folder: Receives `config.json`, `preprocessor_config.json` and `model.safetensors`. It is
            created if missing, and then complete or not at all. It is returned.
        overwrite: Replace a checkpoint in the folder.

    Raises:
        CheckpointError: A file that is missing, damaged, would run code, or is of another
            network; or the folder holds a checkpoint already.
        MissingExtraError: torch's files need the extra `torch`.
        OutputError: The folder cannot be written.
    """
    from safetensors.numpy import save

    source, folder = Path(source), Path(folder)
    files = (PREPROCESSOR_FILE, WEIGHTS_FILE, CONFIG_FILE)
    present = [name for name in files if exists(folder / name)]
    if exists(folder) and not is_folder(folder):
        raise CheckpointError(f"{folder}: is a file; name a folder for the checkpoint")
    if present and not overwrite:
        raise CheckpointError(
            f"{folder}: holds {', '.join(present)} already; name another folder, or pass "
            "--overwrite"
        )
    tensors, has_config_names = rename(read_tensors(source), source)
    config, preprocessor = _settings(tensors, source, keep=has_config_names)
    check_tensors(tensors, network_config(config, source.parent / CONFIG_FILE), source)
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    weights = save(contiguous, metadata={"format": "pt"})
    contents: tuple[Contents, ...] = (preprocessor, weights, config)
    write_files(folder, dict(zip(files, contents, strict=True)), sort_keys=True)
    return folder


def read_tensors(path: Path) -> Tensors:
    """Read a file as name -> float32 array, without wrappers and common prefixes.

    Raises:
        CheckpointError: Missing, damaged, would run code, or not a dict of tensors.
        MissingExtraError: One of torch's files, and torch is not installed.
    """
    try:
        with open_regular(path) as file:
            start = file.read(9)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise CheckpointError(f"{path}: cannot be read ({reason}); check the path") from error
    is_safetensors = path.suffix == ".safetensors" or start[8:9] == b"{"
    return _without_prefix(
        decode_tensors(read_bytes(path), path) if is_safetensors else _read_torch(path)
    )


def rename(tensors: Tensors, path: Path) -> tuple[Tensors, bool]:
    """Rename tensors to transformers' names; also return whether they had them already.

    Raises:
        CheckpointError: Names of neither kind.
    """
    if any(".bn." in name or name.endswith("running_mean") for name in tensors):
        raise CheckpointError(
            f"{path}: this network has batch norm after each ReLU, as rpautrat's SuperPoint does; "
            "a norm can be folded into the convolution before it only if no ReLU is between them, "
            "so it has no equal in this layout. Train or fetch weights of the plain network"
        )
    ending = (".weight", ".bias")
    plain = {f"{layer}{end}" for layer in MAGIC_LEAP for end in ending}
    theirs = {f"{layer}{end}" for layer in MAGIC_LEAP.values() for end in ending}
    names = set(tensors)
    expected = plain if len(names & plain) >= len(names & theirs) else theirs
    missing, unexpected = sorted(expected - names), sorted(names - expected)
    if missing or unexpected:
        raise CheckpointError(
            f"{path}: not the weights of a SuperPoint network; missing: {_listed(missing)}; "
            f"unexpected: {_listed(unexpected)}"
        )
    if expected is theirs:
        return tensors, True
    layers = {name: name.rpartition(".") for name in tensors}
    return {f"{MAGIC_LEAP[a]}.{b}": tensors[name] for name, (a, _, b) in layers.items()}, False


def _read_torch(path: Path) -> Tensors:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(f"reading {path.name}, a file of torch's,", "torch") from error
    try:
        content = torch_files.load(path)
    except Exception as error:  # its text is left out: torch's advice is to run the file's code
        raise CheckpointError(
            f"{path}: torch reads no tensors from it without running code from the file "
            f"({_reason_of(error)}). It is damaged, or a pickle of a whole model: save its "
            "state_dict() where you trust it, or get the weights as safetensors"
        ) from error
    mapping = _unwrap(content)
    if mapping is None:
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__} without tensors by name, "
            "expected a state dict"
        )
    tensors: Tensors = {}
    for name, value in mapping.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            if name.endswith("num_batches_tracked"):
                continue
            kind = str(getattr(value, "dtype", type(value).__name__))
            raise CheckpointError(f"{path}: {name} is {kind}, expected a tensor of floats")
        tensors[name] = value.detach().to(torch.float32).contiguous().numpy()
    return tensors


def _reason_of(error: Exception) -> str:
    """The text of our own errors; of torch's only the type, because its advice is unsafe."""
    return str(error) if isinstance(error, torch_files.UnsafeFileError) else type(error).__name__


def _unwrap(content: Any) -> Mapping[str, Any] | None:
    """The innermost mapping of names to tensors in a training checkpoint."""
    for _ in range(_MOST_WRAPPERS):  # a mapping may hold itself
        if not isinstance(content, Mapping):
            return None
        if any(hasattr(value, "shape") for value in content.values()):
            return {str(name): value for name, value in content.items()}
        content = next((content[name] for name in _WRAPPERS if name in content), None)
    return None


def _without_prefix(tensors: Tensors) -> Tensors:
    while prefix := next(
        (p for p in _PREFIXES if tensors and all(n.startswith(p) for n in tensors)), None
    ):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _network_of(tensors: Tensors, path: Path) -> NetworkConfig:
    """The network that has these biases; `check_tensors` verifies the other shapes."""

    def outputs(layer: str) -> int:
        return int(tensors[f"{MAGIC_LEAP[layer]}.bias"].size)

    logits = outputs("convPb")
    if logits != NetworkConfig.keypoint_decoder_dim:
        raise CheckpointError(
            f"{path}: the keypoint head gives {logits} values per cell, expected "
            f"{NetworkConfig.keypoint_decoder_dim}"
        )
    return NetworkConfig(
        encoder_hidden_sizes=tuple(outputs(f"conv{block}b") for block in range(1, 5)),
        decoder_hidden_size=outputs("convPa"),
        descriptor_decoder_dim=outputs("convDb"),
    )


def _settings(tensors: Tensors, source: Path, *, keep: bool) -> tuple[Settings, Settings]:
    """Both config files: those next to the weights if `keep`, or else transformers' defaults."""
    path, preprocessor_path = source.parent / CONFIG_FILE, source.parent / PREPROCESSOR_FILE
    preprocessor = preprocessor_values("transformers")
    if not (keep and is_file(path)):
        network = _network_of(tensors, source)
        return config_values(network, DetectionConfig(), rules="transformers"), preprocessor
    config = read_json(path)
    rules_of(config, path)  # refuses what `load_checkpoint` would refuse
    detection_config(config, path)
    return config, read_json(preprocessor_path) if is_file(preprocessor_path) else preprocessor


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) + more) or "none"
