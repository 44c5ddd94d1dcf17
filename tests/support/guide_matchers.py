"""The guide's model for pairs with random weights that find points and match them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from support.checkpoints import random_checkpoint
from support.guide_models import EXACT_RULES, Rules, mark
from support.learned_matchers import random_tensors
from tiepoint import LightGlueConfig, LightGlueForKeypointMatching, LightGlueImageProcessor
from tiepoint.matching.learned.architecture import MatcherConfig
from tiepoint.weights.checkpoint import Checkpoint
from tiepoint.weights.folder import config_values

CONFIG = MatcherConfig(descriptor_length=16, width=24, heads=2, layers=3)
NEAREST = MatcherConfig(descriptor_length=16, width=16, heads=2, layers=2)


def detector_of(rules: Rules, config: MatcherConfig = CONFIG, seed: int = 0) -> Checkpoint:
    """A detector whose descriptors a matcher of these sizes reads."""
    checkpoint = random_checkpoint(seed, length=config.descriptor_length)
    return dataclasses.replace(checkpoint, rules=rules)


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
    state = dict(random_tensors(config, tied=False) if tensors is None else tensors)
    state |= {
        f"keypoint_detector.{name}": array
        for name, array in detector_of(rules, config).tensors.items()
    }
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return model.eval()


def nearest_tensors(config: MatcherConfig, sharpness: float = 60) -> dict[str, np.ndarray]:
    """Weights with which a matcher is a dual soft-max of cosine similarities.

    Its states stay the descriptors, so both have one length. `sharpness` divides by temperature.
    """
    assert config.width == config.descriptor_length
    tensors = {}
    for name, shape in config.tensor_shapes().items():
        tensors[name] = np.zeros(shape, np.float32)
        if name.endswith("final_projection.weight"):
            scale = np.sqrt(sharpness * np.sqrt(config.width))
            tensors[name] = (np.eye(config.width) * scale).astype(np.float32)
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
