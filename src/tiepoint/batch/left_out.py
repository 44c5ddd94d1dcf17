"""Images that a choice of pairs leaves out, counted by reason."""

from __future__ import annotations

from collections.abc import Iterator

from tiepoint.errors import FormatError, TiepointError

_MOST_REASONS = 20


class LeftOut:
    """The images without pairs of one rule.

    Args:
        rule: Its name, for messages.
    """

    def __init__(self, rule: str) -> None:
        self._rule = rule
        self._reasons: dict[str, tuple[int, str]] = {}  # -> count, first image

    def add(self, name: str, reason: str) -> None:
        """Count an image."""
        count, first = self._reasons.get(reason, (0, name))
        self._reasons[reason] = (count + 1, first)

    def errors(self) -> Iterator[TiepointError]:
        """An error for each reason, with the number of images; those of many reasons as one."""
        found = list(self._reasons.items())
        for reason, (count, first) in found[:_MOST_REASONS]:
            which = first if count == 1 else f"{count} images, the first {first}"
            yield FormatError(f"{self._rule}: {which}: {reason}")
        if more := sum(count for _, (count, _) in found[_MOST_REASONS:]):
            yield FormatError(f"{self._rule}: {more} more images for other reasons")
