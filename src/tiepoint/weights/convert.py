"""Weights of other projects -> a checkpoint folder. Nothing in a file is ever executed.

Taken: Magic Leap's file (`conv1a` ... `convDb`), and transformers' tensors outside of their
folder; as safetensors or as torch's `.pth`/`.bin`, which is read with `weights_only=True`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiepoint.architecture import NetworkConfig
from tiepoint.config import DetectionConfig
from tiepoint.errors import CheckpointError, FormatError, MissingExtraError
from tiepoint.files import write_bytes
from tiepoint.weights.checkpoint import (
    MANIFEST_FILE,
    check_tensors,
    decode_tensors,
    detection_config,
    network_config,
    read_json,
    rules_of,
)
from tiepoint.weights.hub import CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE

MAGIC_LEAP: Mapping[str, str] = MappingProxyType(
    {
        **{
            f"conv{block + 1}{part}": f"encoder.conv_blocks.{block}.conv_{part}"
            for block in range(4)
            for part in "ab"
        },
        "convPa": "keypoint_decoder.conv_score_a",
        "convPb": "keypoint_decoder.conv_score_b",
        "convDa": "descriptor_decoder.conv_descriptor_a",
        "convDb": "descriptor_decoder.conv_descriptor_b",
    }
)
"""Magic Leap's layer names -> transformers'."""

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
_PREFIXES = ("module.", "model.", "_orig_mod.", "superpoint.", "net.")
_LISTED = 8

Tensors = dict[str, NDArray[np.float32]]


def convert(source: str | Path, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a checkpoint folder in transformers' layout.

    The widths are read off the tensors. The config does not say that the weights follow
    tiepoint's rules, since they were trained with SuperPoint's own descriptor sampling. If a
    config.json lies beside a file that has transformers' names, its settings are kept.

    Args:
        source: A file of weights, safetensors or torch's.
        folder: Where `config.json`, `preprocessor_config.json` and `model.safetensors` go; made
            if need be, complete or not at all if it is new.
        overwrite: Replace a checkpoint that lies in the folder.

    Returns:
        The folder.

    Raises:
        CheckpointError: A file that is missing, damaged, would run code, or is of another
            network; or a checkpoint that is in the way.
        MissingExtraError: torch's files need the extra `torch`.
        FormatError: The folder cannot be written.
    """
    source, folder = Path(source), Path(folder)
    files = (PREPROCESSOR_FILE, WEIGHTS_FILE, CONFIG_FILE)
    present = [name for name in files if (folder / name).exists()]
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; name a folder for the checkpoint")
    if present and not overwrite:
        raise CheckpointError(
            f"{folder}: holds {', '.join(present)} already; name another folder, or pass "
            "--overwrite"
        )
    found = read_tensors(source)
    tensors, own_names = rename(found, source)
    beside = source.parent / CONFIG_FILE
    kept = read_json(beside) if own_names and beside.is_file() else None
    network = _widths(tensors, source) if kept is None else network_config(kept, beside)
    check_tensors(tensors, network, source)
    settings = _config(network) if kept is None else _checked(kept, beside)
    processor = source.parent / PREPROCESSOR_FILE
    pixels = read_json(processor) if kept and processor.is_file() else dict(_PREPROCESSOR)
    _write(folder, tensors, settings, pixels)
    return folder


def read_tensors(path: Path) -> Tensors:
    """Name -> float32 array of a file, wrappers and common prefixes taken off.

    Raises:
        CheckpointError: Missing, damaged, would run code, or not a dict of tensors.
        MissingExtraError: One of torch's files, and torch is not installed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise CheckpointError(f"{path}: cannot be read ({reason}); check the path") from error
    if path.suffix == ".safetensors" or data[8:9] == b"{":
        tensors = decode_tensors(data, path)
    else:
        tensors = _read_torch(path)
    return _without_prefix(tensors)


def rename(tensors: Tensors, path: Path) -> tuple[Tensors, bool]:
    """The tensors under transformers' names, and whether they had them before.

    Raises:
        CheckpointError: Names of neither kind; the message lists what is missing and unexpected.
    """
    if any(".bn." in name or name.endswith("running_mean") for name in tensors):
        raise CheckpointError(
            f"{path}: this network has batch norm after each ReLU, as rpautrat's SuperPoint does; "
            "a norm can be folded into the convolution before it only if no ReLU stands between, "
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
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its text is left out: torch's advice is to run the file's code
        raise CheckpointError(
            f"{path}: torch reads no tensors from it without running code from the file "
            f"({type(error).__name__}). It is damaged, or a pickle of a whole model: save its "
            "state_dict() where you trust it, or get the weights as safetensors"
        ) from error
    mapping = _unwrap(held)
    if mapping is None:
        raise CheckpointError(
            f"{path}: holds a {type(held).__name__} without tensors by name; expected a state dict"
        )
    found: Tensors = {}
    for name, value in mapping.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            if name.endswith("num_batches_tracked"):
                continue
            kind = str(getattr(value, "dtype", type(value).__name__))
            raise CheckpointError(f"{path}: {name} is {kind}, expected a tensor of floats")
        found[name] = value.detach().to(torch.float32).contiguous().numpy()
    return found


def _unwrap(held: Any) -> Mapping[str, Any] | None:
    """The mapping of names to tensors inside a training checkpoint, however deep."""
    while isinstance(held, Mapping):
        if any(hasattr(value, "shape") for value in held.values()):
            return {str(name): value for name, value in held.items()}
        held = next((held[name] for name in _WRAPPERS if name in held), None)
    return None


def _without_prefix(tensors: Tensors) -> Tensors:
    while prefix := next(
        (p for p in _PREFIXES if tensors and all(n.startswith(p) for n in tensors)), None
    ):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _widths(tensors: Tensors, path: Path) -> NetworkConfig:
    """The network that the tensors are of, if they are of one; `check_tensors` holds the rest."""

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


def _checked(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """A config that is kept, after what `load_checkpoint` would refuse was refused."""
    rules_of(config, path)
    detection_config(config, path)
    return config


def _config(network: NetworkConfig) -> dict[str, Any]:
    """config.json with transformers' defaults, which are the published checkpoint's too."""
    default = DetectionConfig()
    return {
        "architectures": ["SuperPointForKeypointDetection"],
        "model_type": "superpoint",
        **asdict(network),
        "keypoint_threshold": default.threshold,
        "max_keypoints": -1,
        "nms_radius": default.nms_radius,
        "border_removal_distance": default.border,
        "initializer_range": 0.02,
        "dtype": "float32",
    }


_PREPROCESSOR: Mapping[str, Any] = MappingProxyType(
    {
        "do_grayscale": True,  # what the network was trained on; else its red channel is taken
        "do_rescale": True,
        "do_resize": True,
        "image_processor_type": "SuperPointImageProcessor",
        "rescale_factor": 1 / 255,
        "size": {"height": 480, "width": 640},
    }
)


def _write(
    folder: Path, tensors: Tensors, config: Mapping[str, Any], processor: Mapping[str, Any]
) -> None:
    """Write the three files; a folder that is new appears with all of them in it."""
    from safetensors.numpy import save

    ready = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    contents = {
        PREPROCESSOR_FILE: _json(processor),
        WEIGHTS_FILE: save(ready, metadata={"format": "pt"}),
        CONFIG_FILE: _json(config),  # last: without it a folder is no checkpoint
    }
    new = not folder.exists()
    target = folder.with_name(f".{folder.name}.partial") if new else folder
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / MANIFEST_FILE).unlink(missing_ok=True)  # of what was replaced
        for name, data in contents.items():
            write_bytes(target / name, data)
        if new:
            target.rename(folder)
    except OSError as error:
        raise FormatError(
            f"{folder}: cannot be written ({error.strerror}); choose another place"
        ) from error
    finally:
        if new:  # gone if all went well
            shutil.rmtree(target, ignore_errors=True)


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(dict(values), indent=2, sort_keys=True) + "\n").encode()


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) + more) or "none"
