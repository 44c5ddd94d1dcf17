"""A trained network -> a checkpoint folder in transformers' layout."""

from __future__ import annotations

import hashlib
import json
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
from tiepoint.files import write_bytes
from tiepoint.training.detector.network import fold
from tiepoint.weights.checkpoint import COVARIANCE_KEY, MANIFEST_FILE, RULES_VERSION, SCALES_KEY
from tiepoint.weights.hub import CONFIG_FILE, WEIGHTS_FILE

PROCESSOR_FILE = "preprocessor_config.json"
MARK = {"version": RULES_VERSION, "rules": "exact"}


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

    folder.mkdir(parents=True, exist_ok=True)
    tensors = fold(state, network)
    if half:
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    weights = save(tensors, metadata={"format": "pt"})
    stated = {**manifest, "sha256": hashlib.sha256(weights).hexdigest()}
    # A reader between two of these writes sees a checksum that does not fit, and says so.
    write_bytes(folder / WEIGHTS_FILE, weights)
    _write_json(folder / MANIFEST_FILE, stated)
    _write_json(folder / CONFIG_FILE, _config(network, detection or DetectionConfig()))
    _write_json(folder / PROCESSOR_FILE, _processor())
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
    """The commit of the checkout this package lies in, marked when files differ from it."""
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


def _config(network: NetworkConfig, detection: DetectionConfig) -> dict[str, Any]:
    scale = detection.covariance_scale
    covariance = {} if scale is None else {COVARIANCE_KEY: scale}
    return {
        "architectures": ["SuperPointForKeypointDetection"],
        "model_type": "superpoint",
        "dtype": "float32",  # or transformers would compute in the file's float16
        "encoder_hidden_sizes": list(network.encoder_hidden_sizes),
        "decoder_hidden_size": network.decoder_hidden_size,
        "keypoint_decoder_dim": network.keypoint_decoder_dim,
        "descriptor_decoder_dim": network.descriptor_decoder_dim,
        "keypoint_threshold": detection.threshold,
        "max_keypoints": -1 if detection.max_keypoints is None else detection.max_keypoints,
        "nms_radius": detection.nms_radius,
        "border_removal_distance": detection.border,
        "initializer_range": 0.02,
        "tiepoint": {**MARK, SCALES_KEY: list(detection.scales), **covariance},
    }


def _processor() -> dict[str, Any]:
    return {
        "do_grayscale": True,
        "do_rescale": True,
        "do_resize": True,
        "image_processor_type": "SuperPointImageProcessor",
        "rescale_factor": 1 / 255,
        "size": {"height": 480, "width": 640},
        "tiepoint": MARK,
    }


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    write_bytes(path, (json.dumps(values, indent=2) + "\n").encode())
