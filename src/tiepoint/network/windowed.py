"""Windows of the network's input, equal to those of an image that is read as a whole.

The range of values is that of the whole image, which is read once for it. Windows of images with
gaps are read with a margin, from which the gaps are filled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiepoint.config import ProcessorConfig
from tiepoint.errors import ConfigError
from tiepoint.geometry import SizeHW, with_longer_side
from tiepoint.images.gaps import GAP_REACH_PX, away_from_gaps, filled
from tiepoint.images.ranges import Range, check_nominal
from tiepoint.images.reading import SourceImage
from tiepoint.images.windows import Window, WindowSource
from tiepoint.network.areas import area_average, axis_weights
from tiepoint.network.inputs import own_range, size_of, to_grey
from tiepoint.network.windowed_range import measured_range, without_nan

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

GAP_MARGIN_PX = 64
"""Additional margin of windows of images with gaps, px: the nearest pixel with data that replaces
one within the network's receptive field is as far away."""


class WindowedInput:
    """The network's input of a large image, window by window.

    Args:
        source: The image.
        config: `max_side` has no effect.
        go_on: Whether windows that cannot be read are left out of the measured range.

    Attributes:
        stretch: Range of values that becomes 0..1; see `inputs.GreyImage`.

    Raises:
        ImageError: A window cannot be read, and `go_on` is False.
    """

    def __init__(
        self, source: WindowSource, config: ProcessorConfig, *, go_on: bool = False
    ) -> None:
        self.source, self._config = source, config
        self.stretch: Range | None
        self.stretch, self._clips = measured_range(source, config.contrast, go_on=go_on)

    @property
    def value_range(self) -> Range | None:
        """`stretch` in the image's own values; see `inputs.GreyImage`."""
        return None if self.stretch is None else own_range(self.stretch, self.source.dtype)

    def size_hw(self, scale: float) -> SizeHW:
        """(height, width) of the input at a scale, px."""
        if scale == 1:
            return self.source.size_hw
        if scale > 1:
            raise ConfigError(f"scales holds {scale}, expected at most 1 in tiles")
        return with_longer_side(
            self.source.size_hw, max(1, round(max(self.source.size_hw) * scale))
        )

    def read(self, window: Window, size_hw: SizeHW) -> tuple[Float32, Mask | None]:
        """A window of the input at one of its sizes.

        Returns:
            grey: H W float32 in 0..1.
            away: H W, where it has data and is not next to a gap; None = everywhere.
        """
        full_hw = self.source.size_hw
        margin = GAP_MARGIN_PX if self.source.has_gaps else 0
        if size_hw == full_hw:
            wide = window.grown(margin, full_hw)
            grey, valid = self._grey(wide)
            inside = window.within(wide)
            away = None if valid is None else away_from_gaps(valid, size_of(valid))[inside]
            return np.ascontiguousarray(grey[inside]), away
        reduced = window.grown(2 * GAP_REACH_PX if self.source.has_gaps else 0, size_hw)
        rows = axis_weights(full_hw[0], size_hw[0], reduced.top, reduced.height)
        columns = axis_weights(full_hw[1], size_hw[1], reduced.left, reduced.width)
        needed = Window(rows.start, columns.start, rows.stop - rows.start,
                        columns.stop - columns.start)  # fmt: skip
        wide = needed.grown(margin, full_hw)
        grey, valid = self._grey(wide)
        inside = window.within(reduced)
        part = grey[needed.within(wide)]
        averaged = np.ascontiguousarray(area_average(part, rows, columns)[inside])
        if valid is None:
            return averaged, None
        shares = area_average(valid[needed.within(wide)].astype(np.float32), rows, columns)
        known = np.asarray(shares > 1 - 1 / 512)  # as 8 bits round it
        return averaged, away_from_gaps(known, size_of(known))[inside]

    def _grey(self, window: Window) -> tuple[Float32, Mask | None]:
        """H W in 0..1 with gaps filled, and where the image has data."""
        image = self.source.read(window)
        valid = image.seen
        if self._config.contrast == "none":
            check_nominal(SourceImage(image.pixels, self.source.name, valid=valid))
        grey = to_grey(without_nan(image, clip=self._clips), self.stretch)
        return (grey, None) if valid is None else (filled(grey, valid), valid)
