"""The guide's model and processor with random weights that find points, under either rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from support.checkpoints import random_checkpoint
from tiepoint import SuperPointConfig, SuperPointForKeypointDetection, SuperPointImageProcessor
from tiepoint.weights.folder import EXACT

Rules = str
EXACT_RULES, TRANSFORMERS_RULES = "exact", "transformers"
BOTH = pytest.mark.parametrize("rules", [EXACT_RULES, TRANSFORMERS_RULES])

PINNED = "5.23.0"
"""The transformers whose rules `transformers_rules` follows."""

COLOUR = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
PALETTE = Image.fromarray(COLOUR).convert("P")


def mark(rules: Rules) -> dict[str, Any] | None:
    return dict(EXACT) if rules == EXACT_RULES else None


def make_model(
    rules: Rules,
    widths: tuple[int, int, int, int] = (8, 8, 16, 16),
    hidden: int = 24,
    length: int = 16,
    **settings: Any,
) -> SuperPointForKeypointDetection:
    checkpoint = random_checkpoint(0, widths, hidden, length)
    config = SuperPointConfig(
        encoder_hidden_sizes=widths,
        decoder_hidden_size=hidden,
        descriptor_decoder_dim=length,
        tiepoint=mark(rules),
        **{"keypoint_threshold": 0.02, **settings},
    )
    model = SuperPointForKeypointDetection(config)
    model.load(checkpoint.tensors)
    return model.eval()


def make_processor(rules: Rules, **settings: Any) -> SuperPointImageProcessor:
    settings = {"size": {"height": 120, "width": 160}, **settings}
    return SuperPointImageProcessor(tiepoint=mark(rules), **settings)


def detect(
    model: SuperPointForKeypointDetection,
    processor: SuperPointImageProcessor,
    images: Any,
    **how: Any,
) -> Any:
    with torch.no_grad():
        return model(**processor(images, return_tensors="pt", **how).to(model.device, model.dtype))
