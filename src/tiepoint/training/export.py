"""A trained network -> a checkpoint folder in transformers' layout."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor

from tiepoint._version import __version__
from tiepoint.architecture import NetworkConfig
from tiepoint.config import DetectionConfig
from tiepoint.training.detector.network import fold
from tiepoint.weights.folder import (
    CONFIG_FILE,
    MANIFEST_FILE,
    PREPROCESSOR_FILE,
    WEIGHTS_FILE,
    Contents,
    config_values,
    preprocessor_values,
    write_files,
)


def export_checkpoint(
    folder: Path,
    state: Mapping[str, Tensor],
    network: NetworkConfig,
    manifest: Mapping[str, Any],
    *,
    detection: DetectionConfig | None = None,
    half: bool = True,
) -> Path:
    """Fold the norms and write `config.json`, `preprocessor_config.json`, weights and manifest.

    Args:
        folder: Made if need be; a checkpoint that is there is replaced.
        state: State dict of a `TrainableSuperPoint`: the averaged weights.
        manifest: What the run was; the weights' checksum is added.
        detection: Threshold and NMS radius that the weights are meant for; None takes the
            defaults.
        half: Weights as float16, which transformers and `Detector` still compute in float32.

    Raises:
        FormatError: The folder cannot be written to.
    """
    from safetensors.torch import save

    tensors = fold(state, network)
    if half:
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    weights = save(tensors, metadata={"format": "pt"})
    files: dict[str, Contents] = {
        WEIGHTS_FILE: weights,
        MANIFEST_FILE: {**manifest, "sha256": hashlib.sha256(weights).hexdigest()},
        PREPROCESSOR_FILE: preprocessor_values("exact"),
        CONFIG_FILE: config_values(network, detection or DetectionConfig(), rules="exact"),
    }
    write_files(folder, files)
    return folder


def machine() -> dict[str, str]:
    """What the run ran on, for the manifest."""
    return {
        "system": platform.platform(),
        "processor": _processor_name(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a subclass of str, which a state must not hold
        "opencv": cv2.__version__,
        "tiepoint": __version__,
    }


def commit() -> str | None:
    """The commit of this package's checkout, marked if files differ from it."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40",
             "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None  # not a checkout, or no git
    return done.stdout.strip() or None


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()
