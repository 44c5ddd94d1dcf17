"""Features of many images -> the pairs of images to match."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import PairConfig
from tiepoint.errors import ConfigError, TiepointError
from tiepoint.features import Features
from tiepoint.files.paths import is_file
from tiepoint.matching import pairing

ALL, SEQUENTIAL, SIMILAR = "all", "sequential", "similar"
"""Values of `PairConfig.pairs`, which is a path otherwise."""


def choose_pairs(
    features: Mapping[str, Features],
    config: PairConfig,
    on_skip: Callable[[TiepointError], None] = lambda _: None,
) -> list[tuple[str, str]]:
    """Choose the pairs of images to match.

    Args:
        features: Features by image name, such as `tiepoint.formats.read_h5` returns.
        config: Rule and its settings.
        on_skip: Called with the error of each image that "similar" leaves out, because its
            features cannot be read or have no descriptors.

    Returns:
        Names of two images each.

    Raises:
        ConfigError: An unknown rule, or descriptors of several lengths.
        FormatError: The list of pairs cannot be read or names another image.
    """
    names = list(features)
    if config.pairs == ALL:
        pairs = pairing.all_pairs(len(names))
    elif config.pairs == SEQUENTIAL:
        pairs = pairing.sequential_pairs(len(names), config.window, quadratic=config.quadratic)
    elif config.pairs == SIMILAR:
        pairs = _similar_pairs(features, config.k, on_skip)
    elif is_file(config.pairs):
        pairs = pairing.listed_pairs(config.pairs, names)
    else:
        raise ConfigError(
            f"pairs is {config.pairs!r}, expected '{ALL}', '{SEQUENTIAL}', '{SIMILAR}', or a text "
            "file with two names per line; there is no such file"
        )
    return [(names[i], names[j]) for i, j in pairs.tolist()]


def _similar_pairs(
    features: Mapping[str, Features], k: int, on_skip: Callable[[TiepointError], None]
) -> NDArray[np.int64]:
    descriptors: dict[int, NDArray[np.float32]] = {}
    for index, name in enumerate(features):
        try:
            descriptors[index] = pairing.global_descriptor(features[name])
        except TiepointError as error:
            on_skip(error)
    lengths = {len(descriptor) for descriptor in descriptors.values()}
    if not lengths:
        return np.empty((0, 2), np.int64)
    if len(lengths) > 1:
        raise ConfigError("the images have descriptors of different lengths: detect again")
    table = np.zeros((len(features), *lengths), np.float32)  # n G; zeros are similar to nothing
    for index, descriptor in descriptors.items():
        table[index] = descriptor
    return pairing.similar_pairs(table, k)
