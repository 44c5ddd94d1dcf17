"""The whole way from image to keypoints as a torch module that `torch.export` can trace.

The network and the keypoint steps are those of `network.superpoint` and `keypoints.on_torch`. Only
what depends on the number of keypoints is different: a file has a fixed number of places, and
sizes are symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tiepoint.architecture import CELL_PX
from tiepoint.config import DetectionConfig
from tiepoint.export.model import max_places
from tiepoint.export.pixels import MIN_SHARE, ratio_of
from tiepoint.keypoints.on_torch import describe, suppress
from tiepoint.keypoints.positions_torch import (
    FlatPixels,
    centroids,
    heat_mass,
    mean_shift,
    response_of,
)
from tiepoint.network.inputs import LUMA
from tiepoint.network.superpoint import SuperPoint, mean_heatmap
from tiepoint.weights.checkpoint import Checkpoint


class Level(NamedTuple):
    """Keypoints of a batch at one scale, best score first.

    Attributes:
        xy: B K 2, px.
        scores: B K, 0 where there is no keypoint.
        descriptors: B K D of unit length.
    """

    xy: Tensor
    scores: Tensor
    descriptors: Tensor


class KeypointModel(nn.Module):
    """Any batch of colour or grey images -> K places each, and the number that are in use.

    Names and conventions are those of the ONNX profile "generic".
    """

    luma: Tensor

    def __init__(self, checkpoint: Checkpoint, detection: DetectionConfig) -> None:
        super().__init__()
        self.network = SuperPoint(checkpoint.network).load(checkpoint.tensors)
        self.register_buffer("luma", torch.from_numpy(LUMA), persistent=False)  # 1 3
        self.detection, self.sampling = detection, checkpoint.sampling
        self.places = max_places(detection)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Find keypoints.

        Args:
            image: B C H W float32 in 0..1, C = 1 or 3 (RGB).

        Returns:
            keypoints: B K 2 (x, y), px of the image, 0 in empty places.
            scores: B K, best first, 0 in empty places.
            descriptors: B K D, 0 in empty places.
            count: B int64, number of places in use.
        """
        grey = self._to_grey(image)
        levels = [self._at_scale(grey, scale) for scale in self.detection.scales]
        xy, scores, descriptors = levels[0] if len(levels) == 1 else self._merged(levels)
        used = scores > 0  # B K
        return {
            "keypoints": xy.where(used[..., None], 0),
            "scores": scores,
            "descriptors": descriptors.where(used[..., None], 0),
            "count": used.sum(dim=1),
        }

    def _to_grey(self, image: Tensor) -> Tensor:
        """B C H W -> B H W; see `pixels.to_grey`."""
        luma = self.luma[0, : image.shape[1]]  # C
        luma = luma / luma.sum()  # of a grey image 1
        return (image * luma[:, None, None]).sum(dim=1).clamp(0, 1)

    def _at_scale(self, grey: Tensor, scale: float) -> Level:
        """B H W -> the keypoints of one scale, in px of `grey`."""
        if scale == 1:
            return self._level(grey)
        pixels = resize(grey, scale)  # B H' W'
        found = self._level(pixels)
        ratio = _pair(grey) / _pair(pixels)  # 2 (x, y)
        return found._replace(xy=(found.xy + 0.5) * ratio - 0.5)

    def _level(self, pixels: Tensor) -> Level:
        """The keypoints of B H W in its px; see `Detector._level`."""
        config = self.detection
        B, H, W = pixels.shape
        maps = self.network(to_cells(pixels)[:, None], phases=config.phases)
        heatmap = _of_size(mean_heatmap([logits for logits, _ in maps]), H, W)  # B H W
        allowed = inside_border(heatmap, config.border)  # H W
        kept = suppress(heatmap, config.nms_radius) & allowed & (heatmap > config.min_score)
        scores, index = self._best(heatmap.where(kept, 0).reshape(B, H * W))  # B K
        image = torch.arange(B, device=pixels.device)[:, None].expand_as(index)
        chosen = FlatPixels(*(one.reshape(-1) for one in (image, index // W, index % W)))
        xy = torch.stack([chosen.columns, chosen.rows], dim=1).float()  # B*K 2
        if config.subpixel:
            xy = xy + centroids(heat_mass(heatmap, chosen))
            xy = mean_shift(response_of(pixels) * allowed, chosen, xy, config.nms_radius)
        dense = [one for _, one in maps]
        cells_hw = torch.stack(
            [torch.full_like(image[:, 0], (n + CELL_PX - 1) // CELL_PX) for n in (H, W)], 1
        )
        descriptors = describe(dense, chosen.image, xy, cells_hw, self.sampling)  # B*K D
        return Level(xy.reshape(B, self.places, 2), scores, descriptors.reshape(B, self.places, -1))

    def _best(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The highest of B N and their indices, B K; ties stay in order, 0 in empty places."""
        padded = functional.pad(scores, (0, self.places))
        best, index = padded.sort(dim=1, descending=True, stable=True)
        best, index = best[:, : self.places], index[:, : self.places]
        return best, index.where(best > 0, 0)

    def _merged(self, levels: Sequence[Level]) -> Level:
        """The best keypoints of several scales."""
        xy, scores, descriptors = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        best, index = self._best(scores)
        return Level(_rows_of(xy, index), best, _rows_of(descriptors, index))


def _rows_of(values: Tensor, index: Tensor) -> Tensor:
    """B N C and an index B K -> B K C, a choice of rows of each image."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))


def inside_border(heatmap: Tensor, border_px: int) -> Tensor:
    """H W bool: the pixels of B H W that are not on the border."""
    sides = []
    for length in heatmap.shape[1:]:
        place = torch.arange(length, device=heatmap.device)
        sides.append((place >= border_px) & (place < length - border_px))
    return sides[0][:, None] & sides[1]


def to_cells(pixels: Tensor) -> Tensor:
    """B H W -> B H' W', multiples of 8: the bottom row and the right column are repeated."""
    H, W = ((length + CELL_PX - 1) // CELL_PX * CELL_PX for length in pixels.shape[1:])
    return _of_size(pixels, H, W)


def _of_size(values: Tensor, height: int, width: int) -> Tensor:
    """B H W -> B height width: cropped, or the bottom row and the right column are repeated.

    By indices, because the lengths are symbols, which a slice would compare.
    """
    for axis, length in ((1, height), (2, width)):
        place = torch.arange(length, device=values.device)
        values = values.index_select(axis, place.clamp(max=values.shape[axis] - 1))
    return values


def resize(pixels: Tensor, scale: float) -> Tensor:
    """B H W -> B H' W' at a scale below 1, as `cv2.INTER_AREA` does.

    H' and W' are read from tensors, as numbers without a formula: those of a trace grow with every
    layer otherwise, and it takes minutes.
    """
    B, H, W = pixels.shape
    share = ratio_of(scale)
    sides = torch.stack([torch.full((), side, dtype=torch.int64) for side in (H, W)])  # 2
    longer = sides.amax()
    target = _rounded_ratio(longer * share.numerator, torch.full_like(longer, share.denominator))
    height, width = (side.item() for side in _rounded_ratio(sides * target, longer).unbind())
    down, along = _area_weights(H, height, pixels), _area_weights(W, width, pixels)
    narrow = torch.bmm(pixels, along.T.expand(B, -1, -1))  # B H W'
    return torch.bmm(down.expand(B, -1, -1), narrow)


def _rounded_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The ratio of whole numbers, rounded half to even as in Python, at least 1."""
    doubled, divisor = 2 * numerator + denominator, 2 * denominator
    nearest = doubled // divisor
    is_odd_tie = (doubled % divisor == 0) & (nearest % 2 == 1)
    return (nearest - is_odd_tie.long()).clamp(min=1)


def _area_weights(old: int, new: Any, like: Tensor) -> Tensor:
    """Share of each old pixel in each new one, new x old; see `pixels._area_weights`.

    Args:
        new: Whole number, in a trace a symbol.
        like: Has the type and device of the result.
    """
    for bound in (new >= 1, new <= old):  # a trace knows no more of sizes that it reads
        torch._check(bound)  # type: ignore[no-untyped-call]
    start = torch.arange(old, device=like.device) * new  # old
    first = torch.arange(new, device=like.device)[:, None] * old  # new 1
    common = torch.minimum(start + new, first + old) - torch.maximum(start, first)  # new old
    counted = common * MIN_SHARE > new
    return common.where(counted, 0).to(like.dtype) / old


def _pair(pixels: Tensor) -> Tensor:
    """Width and height of B H W, 2 float32."""
    H, W = pixels.shape[1:]
    return torch.stack([pixels.new_full((), W), pixels.new_full((), H)])
