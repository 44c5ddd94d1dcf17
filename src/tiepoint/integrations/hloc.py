"""hloc (Hierarchical-Localization): tiepoint as one of its extractors, without a change in hloc.

    from tiepoint.integrations import hloc
    features = extract_features.main(hloc.configuration(), images, outputs)

hloc loads `hloc.extractors.<name>` by its name. `register` puts a module of that name where Python
looks for modules, with the class that hloc searches for: it inherits hloc's `BaseModel` and its
`__module__` is that name. Keypoints need no conversion, because pixel centres are whole numbers in
hloc too.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

from tiepoint.errors import ConfigError
from tiepoint.integrations.programs import as_bytes, load_module, make_detector, subclass

MODULE = "hloc.extractors.tiepoint"
_REMEDY = "clone github.com/cvg/Hierarchical-Localization and install it with pip"


def register() -> type:
    """Make the extractor "tiepoint" known to hloc; returns its class.

    A configuration may have `checkpoint`, `engine`, `device`, `precision` and `threads` of
    `Detector`, and further settings in `options`.

    Raises:
        MissingProgramError: hloc is not installed.
    """
    if MODULE in sys.modules:
        existing: type = sys.modules[MODULE].Tiepoint
        return existing
    base = load_module("hloc.utils.base_model", "hloc", _REMEDY).BaseModel
    members = {
        "__doc__": "Keypoints and descriptors of tiepoint.",
        "default_conf": {"name": "tiepoint", "checkpoint": "default", "options": {}},
        "required_inputs": ["image"],
        "detection_noise": 1.0,
        "_init": _init,
        "_forward": _forward,
    }
    module = ModuleType(MODULE, "tiepoint as an extractor of hloc.")
    made = subclass("Tiepoint", base, MODULE, members)
    module.Tiepoint = made  # type: ignore[attr-defined]
    sys.modules[MODULE] = module
    return made


def configuration(
    *, resize_max: int | None = 1024, checkpoint: str = "default", **options: Any
) -> dict[str, Any]:
    """Configuration for `hloc.extract_features.main`; also registers the extractor.

    Args:
        resize_max: Longer side to which hloc downscales images, px; None keeps their size.
        checkpoint: As for `Detector`.
        options: Settings of `ProcessorConfig` and `DetectionConfig`, such as `max_keypoints`.
    """
    register()
    return {
        "output": "feats-tiepoint",
        "model": {"name": "tiepoint", "checkpoint": checkpoint, "options": options},
        "preprocessing": {"grayscale": False, "resize_max": resize_max},
    }


def _init(self: Any, conf: dict[str, Any]) -> None:
    # hloc has downscaled the image already, and converts positions to its original size.
    options = {"max_side": None, **(conf.get("options") or {})}
    self.detector = make_detector({**conf, "options": options})


def _forward(self: Any, data: dict[str, Any]) -> dict[str, Any]:
    import torch

    if len(data["image"]) != 1:
        raise ConfigError(f"a batch of {len(data['image'])} images, expected one, as hloc has it")
    features = self.detector(as_bytes(data["image"][0]))
    return {
        "keypoints": torch.from_numpy(np.array(features.xy))[None],  # 1 N 2
        "scores": torch.from_numpy(np.array(features.scores))[None],  # 1 N
        "descriptors": torch.from_numpy(np.array(features.descriptors).T.copy())[None],  # 1 D N
    }
