"""glue-factory: tiepoint as an extractor, by the name of this module in its configuration.

    extractor:
      name: tiepoint.integrations.glue_factory
      max_num_keypoints: 1024

glue-factory takes a class of the named module that inherits its `BaseModel`, or else the module's
`__main_model__`. The class is made on first use, so that importing this module needs no
glue-factory. Pixel centres are at +0.5 in glue-factory, so 0.5 is added to x and y.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tiepoint.errors import ConfigError
from tiepoint.features import Features
from tiepoint.integrations.programs import as_bytes, load_module, make_detector, subclass

HALF_PX = 0.5
"""Position of the centre of the top-left pixel in glue-factory, px."""

_REMEDY = "clone github.com/cvg/glue-factory and install it with pip"


def __getattr__(name: str) -> Any:
    if name == "__main_model__":
        return extractor()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def extractor() -> type:
    """The class that `gluefactory.models.get_model` returns for this module.

    Settings: `max_num_keypoints`; `force_num_keypoints`, which pads with keypoints of score 0 to
    that number; `checkpoint`, `engine`, `device` and `precision` of `Detector`; and `options`, its
    further settings.

    Raises:
        MissingProgramError: glue-factory is not installed.
    """
    base = load_module("gluefactory.models.base_model", "glue-factory", _REMEDY).BaseModel
    members = {
        "__doc__": "Keypoints and descriptors of tiepoint.",
        "default_conf": {
            "checkpoint": "default",
            "engine": "auto",
            "device": "auto",
            "precision": "auto",
            "max_num_keypoints": None,
            "force_num_keypoints": False,
            "options": {},
        },
        "required_data_keys": ["image"],
        "_init": _init,
        "_forward": _forward,
        "loss": _loss,
    }
    return subclass("Tiepoint", base, __name__, members)


def _init(self: Any, conf: Any) -> None:
    options = {"max_side": None, **dict(conf.options)}
    if conf.max_num_keypoints is not None:
        options["max_keypoints"] = conf.max_num_keypoints
    elif conf.force_num_keypoints:
        raise ConfigError("force_num_keypoints needs max_num_keypoints: give the number to pad to")
    names = ("checkpoint", "engine", "device", "precision")
    self.detector = make_detector({**{n: conf[n] for n in names}, "options": options})
    self.set_initialized()


def _forward(self: Any, data: dict[str, Any]) -> dict[str, Any]:
    import torch

    images = data["image"]  # B C H W
    sizes = data.get("image_size")  # B 2, width and height of each image without padding
    found = []
    for index, image in enumerate(images):
        height, width = image.shape[-2:]
        if sizes is not None:
            width, height = (int(side) for side in sizes[index])
        found.append(self.detector(as_bytes(image[:, :height, :width])))
    pad_to = self.conf.max_num_keypoints if self.conf.force_num_keypoints else None
    counts = {len(features) for features in found}
    if pad_to is None and len(counts) > 1:
        raise ConfigError(
            f"images of a batch have {sorted(counts)} keypoints: set force_num_keypoints and "
            "max_num_keypoints, or use batches of one image"
        )
    batches = [_padded(features, pad_to) for features in found]
    names = ("keypoints", "keypoint_scores", "descriptors")  # B N 2, B N, B N D
    return {
        name: torch.from_numpy(np.stack(arrays)).to(images.device)
        for name, arrays in zip(names, zip(*batches, strict=True), strict=True)
    }


def _padded(features: Features, count: int | None) -> tuple[Any, Any, Any]:
    """Positions N 2, scores N and descriptors N D of one image, with zeros up to `count`."""
    assert features.descriptors is not None
    missing = 0 if count is None else count - len(features)
    arrays = (features.xy + np.float32(HALF_PX), features.scores, features.descriptors)
    return tuple(np.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1)) for a in arrays)  # type: ignore[return-value]


def _loss(self: Any, pred: Any, data: Any) -> Any:
    """glue-factory skips the loss of a model that raises this."""
    raise NotImplementedError
