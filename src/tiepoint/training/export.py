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
from tiepoint.weights import folder as folders


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
        folder: Created if missing; a checkpoint in it is replaced.
        state: State dict of a `TrainableSuperPoint`.
        manifest: Record of the run; the weights' checksum is added.
        detection: Settings for these weights; None takes the defaults.
        half: Whether to store float16; transformers and `Detector` compute in float32 anyway.

    Raises:
        OutputError: The folder is not writable.
    """
    from safetensors.torch import save

    tensors = fold(state, network)
    if half:
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    weights = save(tensors, metadata={"format": "pt"})
    files: dict[str, folders.Contents] = {
        folders.WEIGHTS_FILE: weights,
        folders.MANIFEST_FILE: {**manifest, "sha256": hashlib.sha256(weights).hexdigest()},
        folders.PREPROCESSOR_FILE: folders.preprocessor_values("exact"),
        folders.CONFIG_FILE: folders.config_values(
            network, detection or DetectionConfig(), rules="exact"
        ),
    }
    folders.write_files(folder, files)
    return folder


def machine() -> dict[str, str]:
    """Hardware and versions of a run, for the manifest."""
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
    """The commit of this package's checkout, with `-dirty` if files differ; None without one."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            command, cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()
