"""Features of many images -> the pairs of images to match."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from tiepoint.batch.image_places import image_places
from tiepoint.batch.image_vectors import image_vectors
from tiepoint.batch.left_out import LeftOut
from tiepoint.config import PairConfig
from tiepoint.errors import ConfigError, TiepointError
from tiepoint.features import Features
from tiepoint.files.paths import is_file
from tiepoint.matching import pairing
from tiepoint.matching.places import near_pairs
from tiepoint.matching.similar import similar_pairs

ALL, SEQUENTIAL, SIMILAR, GPS = "all", "sequential", "similar", "gps"
RULES = (ALL, SEQUENTIAL, SIMILAR, GPS)
"""Parts of `PairConfig.pairs`; any other is a path."""


class ChosenPairs(Sequence[tuple[str, str]]):
    """Names of two images each, made when they are asked for: millions of them take 16 bytes each.

    Attributes:
        names: Names of all images.
        indices: P 2 int64, the pairs as indices into the names.
    """

    def __init__(self, names: Sequence[str], indices: pairing.Pairs) -> None:
        self.names, self.indices = names, indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, index: slice) -> ChosenPairs: ...
    def __getitem__(self, index: int | slice) -> tuple[str, str] | ChosenPairs:
        if isinstance(index, slice):
            return ChosenPairs(self.names, self.indices[index])
        i, j = self.indices[index].tolist()
        return self.names[i], self.names[j]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} pairs of {len(self.names)} images)"


@dataclass(frozen=True)
class Means:
    """What the rules need besides the features.

    Attributes:
        images: Folder of the images, for "gps"; None takes the paths that the features state.
        threads: Number of threads for "similar"; None takes one per core.
        on_image: Called for each image that "similar" or "gps" has read.
    """

    images: Path | None = None
    threads: int | None = None
    on_image: Callable[[], None] = lambda: None


def choose_pairs(
    features: Mapping[str, Features],
    config: PairConfig,
    on_skip: Callable[[TiepointError], None] = lambda _: None,
    means: Means | None = None,
) -> ChosenPairs:
    """Choose the pairs of images to match.

    Args:
        features: Features by image name, such as `tiepoint.formats.many_images.read_features`
            returns.
        config: Rules and their settings. Several rules give the pairs of each.
        on_skip: Called with an error for each reason why "similar" or "gps" leaves images out.
        means: What the rules need besides; None takes the defaults.

    Returns:
        Names of two images each. The pairs of several rules are sorted.

    Raises:
        ConfigError: An unknown rule, descriptors of several lengths, or too many pairs.
        FormatError: The list of pairs cannot be read or names another image.
        OutputError: The vectors of "similar" cannot be stored, or another run is writing them.
    """
    names, means = list(features), means or Means()
    rules = rules_of(config.pairs)
    parts = [_pairs(rule, features, names, config, means, on_skip) for rule in rules]
    return ChosenPairs(names, pairing.united_pairs(parts))


def rules_of(text: str) -> list[str]:
    """The rules and paths between the commas of `PairConfig.pairs`, each once.

    Raises:
        ConfigError: One is neither a rule nor a file.
    """
    parts = [text] if is_file(text) else [part.strip() for part in text.split(",")]
    for part in parts:
        if part not in RULES and not is_file(part):
            known = ", ".join(f"'{rule}'" for rule in RULES)
            raise ConfigError(
                f"pairs is {part!r}, expected {known}, or a text file with two names per line; "
                "there is no such file"
            )
    return list(dict.fromkeys(parts))


def images_read(text: str, count: int) -> int:
    """Number of images that the rules of `PairConfig.pairs` read, for a progress bar."""
    return count * len({SIMILAR, GPS}.intersection(rules_of(text)))


def _pairs(
    rule: str,
    features: Mapping[str, Features],
    names: Sequence[str],
    config: PairConfig,
    means: Means,
    on_skip: Callable[[TiepointError], None],
) -> pairing.Pairs:
    """The pairs of one rule."""
    left_out = LeftOut(rule)
    if rule == ALL:
        return pairing.all_pairs(len(names))
    if rule == SEQUENTIAL:
        return _sequential(names, config)
    if rule == SIMILAR:
        vectors = image_vectors(features, left_out, threads=means.threads, on_image=means.on_image)
        pairs = similar_pairs(vectors, config.k, threads=means.threads)
    elif rule == GPS:
        places = image_places(features, left_out, images=means.images, on_image=means.on_image)
        pairs = near_pairs(places, config.gps_k, config.gps_metres)
    else:
        return pairing.listed_pairs(rule, names)
    for error in left_out.errors():
        on_skip(error)
    return pairs


def _sequential(names: Sequence[str], config: PairConfig) -> pairing.Pairs:
    parts = [np.empty((0, 2), np.int64)]
    for members in pairing.in_sequence(names):
        steps = pairing.sequential_pairs(len(members), config.window, quadratic=config.quadratic)
        parts.append(np.array(members, np.int64)[steps])
    return np.concatenate(parts)
