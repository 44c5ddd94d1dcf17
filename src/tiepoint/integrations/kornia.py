"""kornia: input for its `LightGlue`, and the matches in its output.

    output = lightglue(lightglue_input(a, b))
    matches = lightglue_matches(output)

Pixel centres are whole numbers in kornia's keypoints too. `kornia.feature.LightGlue` needs weights
that were trained for the descriptors of the checkpoint.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tiepoint.errors import ConfigError
from tiepoint.features import Features, Matches


def lightglue_input(a: Features, b: Features, device: str = "cpu") -> dict[str, dict[str, Any]]:
    """The dict that `kornia.feature.LightGlue` takes.

    Args:
        a, b: Features with descriptors.
        device: Device of the tensors.

    Returns:
        `image0` and `image1`, each with `keypoints` 1 N 2 float32 px, `descriptors` 1 N D float32
        and `image_size` 1 2 float32 (width, height) px.

    Raises:
        ConfigError: Features without descriptors, or of different lengths.
    """
    described = [features.descriptors for features in (a, b)]
    if described[0] is None or described[1] is None:
        raise ConfigError("features without descriptors: detect again with descriptors")
    lengths = [descriptors.shape[1] for descriptors in described if descriptors is not None]
    if lengths[0] != lengths[1]:
        raise ConfigError(f"descriptors of {lengths[0]} and {lengths[1]} values: detect both alike")
    return {"image0": _one(a, device), "image1": _one(b, device)}


def lightglue_matches(output: dict[str, Any]) -> Matches:
    """The matches in LightGlue's output of one pair, best score first.

    Raises:
        ConfigError: Not the output of one pair.
    """
    if len(output["matches"]) != 1:
        raise ConfigError(f"output of {len(output['matches'])} pairs, expected one")
    pairs = output["matches"][0].cpu().numpy().astype(np.int64).reshape(-1, 2)
    scores = output["scores"][0].detach().cpu().numpy().astype(np.float32)
    order = np.lexsort((pairs[:, 0], -scores))
    return Matches(pairs[order], scores[order])


def _one(features: Features, device: str) -> dict[str, Any]:
    import torch

    height, width = features.size_hw
    arrays = {
        "keypoints": np.array(features.xy),
        "descriptors": np.array(features.descriptors),
        "image_size": np.array([width, height], np.float32),
    }
    return {name: torch.from_numpy(array)[None].to(device) for name, array in arrays.items()}
