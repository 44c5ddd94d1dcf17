"""Choosing pairs in a command: progress, and messages about images that are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tiepoint.cli import exit_codes
from tiepoint.cli.progress import with_progress
from tiepoint.cli.report import complain, stop
from tiepoint.config import PairConfig
from tiepoint.errors import OutputError

if TYPE_CHECKING:
    from tiepoint.batch.pair_choice import ChosenPairs
    from tiepoint.features import Features


def checked_choice(choice: PairConfig) -> PairConfig:
    """The choice itself, whose rules are known; raises ConfigError for others."""
    from tiepoint.batch.pair_choice import rules_of

    rules_of(choice.pairs)
    return choice


def choose(
    features: Mapping[str, Features], choice: PairConfig, images: Path | None, threads: int | None
) -> ChosenPairs:
    """The chosen pairs, with a progress bar on a terminal.

    It exits if vectors cannot be stored, or on Ctrl-C.
    """
    from tiepoint.batch.pair_choice import Means, choose_pairs, images_read

    def work(on_image: Callable[[], None]) -> ChosenPairs:
        means = Means(images, threads, on_image)
        return choose_pairs(features, choice, lambda error: complain(f"left out: {error}"), means)

    try:
        return with_progress("choosing pairs", images_read(choice.pairs, len(features)), work)
    except OutputError as error:
        stop(str(error), exit_codes.FAILED)
    except KeyboardInterrupt:
        stop("interrupted; repeat the same command to resume", exit_codes.INTERRUPTED)
