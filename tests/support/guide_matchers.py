"""The guide's model for pairs, with random weights in its matcher."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import torch

from support.checkpoints import random_checkpoint
from support.guide_models import EXACT_RULES, Rules, mark
from support.learned_matchers import random_tensors
from tiepoint import LightGlueConfig, LightGlueForKeypointMatching, LightGlueImageProcessor
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.network.superpoint import SuperPoint
from tiepoint.weights.checkpoint import Checkpoint, load_checkpoint
from tiepoint.weights.folder import config_values

LENGTH = load_checkpoint("small").network.descriptor_decoder_dim
CONFIG = MatcherConfig(descriptor_length=LENGTH, width=24, heads=2, layers=3)
NEAREST = MatcherConfig(descriptor_length=LENGTH, width=LENGTH, heads=2, layers=2)


def detector_of(rules: Rules, config: MatcherConfig = CONFIG) -> Checkpoint:
    """A detector whose descriptors a matcher of these sizes reads, and that differ clearly.

    It is a bundled one if that has the descriptor length, otherwise a random one.
    """
    length = config.descriptor_length
    checkpoint = load_checkpoint("small") if length == LENGTH else _detector(length)
    return dataclasses.replace(checkpoint, rules=rules, sha256="0" * 64)


@cache
def _detector(length: int) -> Checkpoint:
    checkpoint = random_checkpoint(length=length)
    network = SuperPoint(checkpoint.network).load(checkpoint.tensors)
    centre_descriptors(network)
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return dataclasses.replace(checkpoint, tensors=tensors)


def centre_descriptors(detector: Any) -> None:
    """Change the last bias of random weights: otherwise all descriptors are nearly equal."""
    last = detector.descriptor_decoder.conv_descriptor_b
    rows = torch.arange(120.0)[:, None]
    pixels = torch.rand(1, 1, 120, 160, generator=torch.Generator().manual_seed(0))
    pixels = (pixels + torch.sin(rows / 9) + torch.cos(torch.arange(160.0) / 7)).clamp(0, 1)
    caught: list[torch.Tensor] = []
    handle = last.register_forward_hook(lambda *values: caught.append(values[-1]))
    with torch.no_grad():
        detector(pixels)
        last.bias -= caught[0].mean(dim=(0, 2, 3))
    handle.remove()


def make_config(rules: Rules, config: MatcherConfig = CONFIG, **settings: Any) -> LightGlueConfig:
    detector = detector_of(rules, config)
    nested = config_values(detector.network, detector.detection, rules=detector.rules)
    return LightGlueConfig(
        keypoint_detector_config=nested,
        descriptor_dim=config.width,
        num_attention_heads=config.heads,
        num_hidden_layers=config.layers,
        **{"filter_threshold": 0.01, **settings},
    )


def make_matcher(
    rules: Rules = EXACT_RULES,
    config: MatcherConfig = CONFIG,
    tensors: dict[str, np.ndarray] | None = None,
    **settings: Any,
) -> LightGlueForKeypointMatching:
    """A model in evaluation mode; settings as for the config."""
    model = LightGlueForKeypointMatching(make_config(rules, config, **settings))
    state = dict(mild_tensors(config) if tensors is None else tensors)
    state |= {
        f"keypoint_detector.{name}": array
        for name, array in detector_of(rules, config).tensors.items()
    }
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return model.eval()


def mild_tensors(config: MatcherConfig) -> dict[str, np.ndarray]:
    """Random weights whose layers change the descriptors a little, so that there are matches."""
    tensors = random_tensors(config, tied=False)
    for name in tensors:
        if ".fc2." in name or "matchability" in name:
            tensors[name] = tensors[name] * np.float32(0.05)
        elif name.endswith("final_projection.weight"):
            tensors[name] = _sharp(config.width, 60)
        elif name == "input_projection.weight":
            tensors[name] = np.linalg.svd(tensors[name], full_matrices=False)[2]
    return tensors


def _sharp(width: int, sharpness: float) -> np.ndarray:
    """A projection with which similarities are cosines times `sharpness`."""
    return np.eye(width, dtype=np.float32) * np.float32(np.sqrt(sharpness * np.sqrt(width)))


def nearest_tensors(config: MatcherConfig, sharpness: float = 60) -> dict[str, np.ndarray]:
    """Weights with which a matcher is a dual soft-max of cosine similarities.

    Its states stay the descriptors, so both have one length. `sharpness` divides by temperature.
    """
    assert config.width == config.descriptor_length
    tensors = {}
    for name, shape in config.tensor_shapes().items():
        tensors[name] = np.zeros(shape, np.float32)
        if name.endswith("final_projection.weight"):
            tensors[name] = _sharp(config.width, sharpness)
        elif name.endswith("matchability.bias"):
            tensors[name] += 9
    return tensors


def make_pair_processor(rules: Rules = EXACT_RULES, **settings: Any) -> LightGlueImageProcessor:
    settings = {"size": {"height": 120, "width": 160}, **settings}
    return LightGlueImageProcessor(tiepoint=mark(rules), **settings)


def match(
    model: LightGlueForKeypointMatching, processor: LightGlueImageProcessor, images: Any, **how: Any
) -> Any:
    with torch.no_grad():
        return model(**processor(images, return_tensors="pt", **how).to(model.device, model.dtype))


def views(image: np.ndarray, shift: tuple[int, int] = (8, 16)) -> list[np.ndarray]:
    """Two crops of one image, H W or H W 3, shifted by (y, x) px."""
    y, x = shift
    return [image[:-y, :-x], image[y:, x:]]
