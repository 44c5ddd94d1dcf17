"""The rules of transformers 5.23.0 for SuperPoint, defects included.

Only the guide's processor and model use them, for a checkpoint whose config lacks the key
"tiepoint". The aim is results equal to those of transformers. `docs/compat.md` lists the defects
and the exact rules' behaviour.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from tiepoint.architecture import CELL_PX
from tiepoint.errors import ConfigError, ImageError
from tiepoint.files.paths import is_file
from tiepoint.geometry import SizeHW
from tiepoint.hf.config import SuperPointConfig
from tiepoint.hf.outputs import SuperPointKeypointDescriptionOutput, stack
from tiepoint.images.download import fetch
from tiepoint.network.superpoint import SuperPoint

Array = NDArray[Any]

GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)
"""Weights of R, G, B; they differ slightly from ITU-R BT.601, which Pillow and OpenCV use."""

MAX_RESIZED_PX = 25_000_000
"""Pixels to which an image may be enlarged."""

LATER_ROUNDS = 2
"""NMS rounds after the first; each adds the maxima among pixels that are not suppressed yet."""


class Preparation(NamedTuple):
    """Settings of the processor, in transformers' names."""

    do_resize: bool
    size: Mapping[str, int]
    resample: int
    do_rescale: bool
    rescale_factor: float
    do_grayscale: bool


# ---- images -> pixels -------------------------------------------------------------------------


def prepare(images: Any, settings: Preparation, return_tensors: str | None) -> Any:
    """Images -> B C H W float32, or a list of C H W; C is 3 for colour, 1 for grey, 4 for RGBA.

    Args:
        images: A PIL image, an array or tensor `C H W` or `H W C`, a path or URL as text, a list
            of these, a list of lists, or one array with four axes.
        return_tensors: "pt", "np" or None.

    Raises:
        ImageError: An image that transformers refuses, too.
    """
    pixels = [_preprocess(_channels_first(image), settings) for image in flat_list(images)]
    if return_tensors == "np" and len({len(one) for one in pixels}) > 1:
        return np.asarray(pixels, dtype=object)  # grey and colour: an array of arrays
    return stack_equal(pixels, return_tensors)


def stack_equal(pixels: list[Array], return_tensors: str | None) -> Any:
    """Arrays C H W -> see `outputs.stack`; ImageError if their shapes differ."""
    if return_tensors is None or len({one.shape for one in pixels}) == 1:
        return stack(pixels, return_tensors)
    shapes = ", ".join(str(one.shape) for one in pixels)
    raise ImageError(
        f"images of shapes {shapes} fit into no batch under transformers' rules: "
        "convert them all to RGB and keep do_resize, or use a checkpoint with exact rules"
    )


def flat_list(images: Any) -> list[Any]:
    """One image, a list, a list of lists or a batch -> a list of PIL images and arrays."""
    loaded = _load(images)
    if isinstance(loaded, list):
        if loaded and all(isinstance(item, list) for item in loaded):
            return [image for group in loaded for image in group]
        first = loaded[0] if loaded else None
        if first is None or any(isinstance(item, list) for item in loaded):
            raise ImageError("no images, or images and lists of images in one list")
        if isinstance(first, Image.Image) or first.ndim == 3:
            return loaded
        if first.ndim == 4:
            return [image for batch in loaded for image in batch]
    elif isinstance(loaded, Image.Image) or loaded.ndim == 3:
        return [loaded]
    else:
        first = loaded
        if first.ndim == 4:
            return list(first)
    raise ImageError(
        f"an array of shape {tuple(first.shape)}: transformers' rules take C H W or H W C; "
        "give a grey image one channel, array[None]"
    )


def _load(images: Any) -> Any:
    if isinstance(images, list | tuple):
        return [_load(image) for image in images]
    if isinstance(images, str):
        return _open(images)
    if isinstance(images, Image.Image | np.ndarray | Tensor):
        return images
    raise ImageError(
        f"an object of type {type(images).__name__}: transformers' rules take PIL images, NumPy "
        "arrays, torch tensors, and paths and URLs as text"
    )


def _open(source: str) -> Image.Image:
    """A path, a URL or base64 text -> an upright RGB image."""
    try:
        if source.startswith(("http://", "https://")):
            image = Image.open(io.BytesIO(fetch(source)))
        elif _is_file(source):
            image = Image.open(source)
        else:
            text = source.split(",")[1] if source.startswith("data:image/") else source
            image = Image.open(io.BytesIO(base64.decodebytes(text.encode())))
        return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, IndexError, Image.DecompressionBombError) as error:
        name = source if len(source) <= 200 else f"{source[:200]}..."
        raise ImageError(f"{name}: not a path, URL or base64 text of an image ({error})") from error


def _is_file(text: str) -> bool:
    try:
        return is_file(text)
    except (OSError, ValueError):  # too long for a path, or a null character in it
        return False


def _channels_first(image: Any) -> Array:
    """Any one image -> C H W. Fewer than three axes are H W."""
    pixels = image.numpy() if isinstance(image, Tensor) else np.asarray(image)
    if pixels.ndim == 2:
        return pixels[None]
    if isinstance(image, Image.Image):
        return np.moveaxis(pixels, -1, 0)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4):
        return pixels
    if pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4):
        return np.moveaxis(pixels, -1, 0)
    raise ImageError(f"an array of shape {pixels.shape} has no axis of 1, 3 or 4 channels")


def _preprocess(pixels: Array, settings: Preparation) -> Array:
    """C H W -> C H' W'."""
    if settings.do_resize:
        new_hw = target_size((pixels.shape[1], pixels.shape[2]), settings.size)
        if new_hw[0] * new_hw[1] > max(MAX_RESIZED_PX, pixels.shape[1] * pixels.shape[2]):
            raise ConfigError(
                f"size is {dict(settings.size)}, which enlarges an image to "
                f"{new_hw[1]}x{new_hw[0]} px; expected at most {MAX_RESIZED_PX:,} px"
            )
        pixels = _resize(pixels, new_hw, settings.resample)
    if settings.do_rescale:
        pixels = (pixels.astype(np.float64) * settings.rescale_factor).astype(np.float32)
    return _grey(pixels) if settings.do_grayscale else pixels


def target_size(image_hw: SizeHW, size: Mapping[str, int]) -> SizeHW:
    """The size that an image is resized to, for each of transformers' forms of `size`."""
    height, width = image_hw
    if size.get("shortest_edge"):
        return _by_shortest_edge(image_hw, size["shortest_edge"], size.get("longest_edge"))
    if size.get("max_height") and size.get("max_width"):
        scale = min(size["max_height"] / height, size["max_width"] / width)
        return int(height * scale), int(width * scale)
    if size.get("height") and size.get("width"):
        return size["height"], size["width"]
    raise ConfigError(
        f"size is {dict(size)}, expected the keys height and width, max_height and max_width, "
        "shortest_edge, or shortest_edge and longest_edge"
    )


def _by_shortest_edge(image_hw: SizeHW, shortest: int, longest: int | None) -> SizeHW:
    short, long = sorted(image_hw)
    wanted: float = shortest
    if longest and long / short * shortest > longest:
        wanted = longest * short / long  # otherwise the long side would not fit
        shortest = round(wanted)
    # The order of operations is that of transformers' two helpers, because it decides rounding.
    new_long = int(wanted * long / short)
    if longest and short == shortest:
        new_long = long
    return (shortest, new_long) if image_hw[0] <= image_hw[1] else (new_long, shortest)


def _resize(pixels: Array, new_hw: SizeHW, resample: int) -> Array:
    """C H W -> C H' W' through an 8-bit PIL image."""
    unit_range = _is_unit_range(pixels)
    if unit_range:
        pixels = (pixels.astype(np.float64) * 255).astype(np.float32)
    channels_last = np.moveaxis(pixels, 0, -1).astype(np.uint8)  # H W C
    if channels_last.shape[-1] == 1:
        channels_last = channels_last[..., 0]  # H W
    image = Image.fromarray(channels_last).resize((new_hw[1], new_hw[0]), resample)
    resized = np.moveaxis(np.atleast_3d(np.array(image)), -1, 0)  # C H' W'
    if unit_range:
        resized = (resized.astype(np.float64) * (1 / 255)).astype(np.float32)
    return resized


def _is_unit_range(pixels: Array) -> bool:
    """Whether values are in 0..1 and must be scaled to 0..255 for an 8-bit image."""
    if pixels.dtype == np.uint8:
        return False
    low, high = pixels.min(), pixels.max()
    with np.errstate(invalid="ignore"):  # NaN is refused below
        whole = np.allclose(pixels, pixels.astype(int))
    white = 255 if whole else 1
    if not (low >= 0 and high <= white):  # refuses NaN, too
        raise ImageError(
            f"values from {low} to {high}: transformers' rules resize whole numbers in 0..255 and "
            "other values in 0..1; convert a 16-bit image to 8 bits"
        )
    return not whole


def _grey(pixels: Array) -> Array:
    """C H W -> three equal channels; an image that is grey already is not changed."""
    if len(pixels) == 1:
        return pixels
    if len(pixels) == 2:
        raise ImageError("a grey image with alpha: transformers' rules cannot convert it to grey")
    red, green, blue = pixels[:3]
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return pixels
    grey = red * GREY_WEIGHTS[0] + green * GREY_WEIGHTS[1] + blue * GREY_WEIGHTS[2]
    return np.stack([grey] * 3)


# ---- pixels -> keypoints ----------------------------------------------------------------------


def detect(
    network: SuperPoint,
    pixel_values: Tensor,
    config: SuperPointConfig,
    hidden_states: list[Tensor] | None,
) -> SuperPointKeypointDescriptionOutput:
    """Pixel values -> keypoints; only the encoder works on the whole batch.

    Args:
        pixel_values: B C H W in the network's type, values in 0..1; channel 0 is used.
        config: A negative `max_keypoints` keeps all keypoints.
        hidden_states: List that receives the output of each encoder block.

    Raises:
        ImageError: Smaller than 8x8 px.
    """
    height, width = pixel_values.shape[-2:]
    if min(height, width) < CELL_PX:
        raise ImageError(
            f"pixel_values of {height}x{width} px: transformers' rules need at least 8x8; "
            "enlarge the image, or use a checkpoint with exact rules"
        )
    encoded = network.encode(pixel_values[:, :1], hidden_states=hidden_states)  # B C h w
    keypoints, scores, descriptors = [], [], []
    for image in torch.split(encoded, 1):  # 1 C h w
        xy, one_scores = _keypoints(network, image, config)
        keypoints.append(xy)
        scores.append(one_scores)
        descriptors.append(_descriptors(network, image, xy))
    counts = torch.tensor([len(xy) for xy in keypoints], device=encoded.device)
    rank = torch.arange(int(counts.max()), device=encoded.device)  # N
    size_wh = torch.tensor([width, height], device=encoded.device)
    return SuperPointKeypointDescriptionOutput(
        keypoints=pad_sequence(keypoints, batch_first=True).float() / size_wh,  # B N 2
        scores=pad_sequence(scores, batch_first=True).float(),  # B N
        descriptors=pad_sequence(descriptors, batch_first=True).float(),  # B N D
        mask=(rank < counts[:, None]).int(),  # B N
    )


def _keypoints(
    network: SuperPoint, encoded: Tensor, config: SuperPointConfig
) -> tuple[Tensor, Tensor]:
    """1 C h w -> N 2 px and N, both in the network's type."""
    logits = network.head(encoded, network.network_config.keypoint_layers())  # 1 65 h w
    probabilities = torch.softmax(logits, dim=1)[:, :-1]  # 1 64 h w
    heatmap = _suppress(functional.pixel_shuffle(probabilities, CELL_PX)[0, 0], config.nms_radius)
    rows, columns = torch.nonzero(heatmap > config.keypoint_threshold, as_tuple=True)
    scores = heatmap[rows, columns]  # N
    # The limits are those of a map eight times as large, so right and bottom borders are kept.
    height, width = (side * CELL_PX for side in heatmap.shape)
    edge = config.border_removal_distance
    inside = (rows >= edge) & (rows < height - edge) & (columns >= edge) & (columns < width - edge)
    rows, columns, scores = rows[inside], columns[inside], scores[inside]
    if 0 <= config.max_keypoints < len(scores):
        scores, best = torch.topk(scores, config.max_keypoints)
        rows, columns = rows[best], columns[best]
    return torch.stack([columns, rows], dim=1).to(scores.dtype), scores


def _suppress(heatmap: Tensor, radius: int) -> Tensor:
    """NMS of H W: all but maxima become 0; every pixel of a plateau is a maximum."""
    if radius < 0:
        raise ConfigError(f"nms_radius is {radius}, expected at least 0 px")
    kept = heatmap == _largest_within(heatmap, radius)
    for _ in range(LATER_ROUNDS):
        covered = _largest_within(kept.float(), radius) > 0
        rest = heatmap.masked_fill(covered, 0)
        kept = kept | ((rest == _largest_within(rest, radius)) & ~covered)
    return heatmap.masked_fill(~kept, 0)


def _largest_within(values: Tensor, radius: int) -> Tensor:
    return functional.max_pool2d(values[None], 2 * radius + 1, stride=1, padding=radius)[0]


def _descriptors(network: SuperPoint, encoded: Tensor, xy: Tensor) -> Tensor:
    """1 C h w and N 2 px -> N D in the network's type."""
    dense = network.head(encoded, network.network_config.descriptor_layers())  # 1 D h w
    dense = functional.normalize(dense, dim=1)
    h, w = dense.shape[-2:]
    half_cell = CELL_PX / 2
    # x - 3.5 ranges from 0 to 8 (w - 1) between the outer cell centres, but is divided by
    # 8 w - 4.5, the last centre's coordinate. The error grows to the right and to the bottom.
    span = [w * CELL_PX - half_cell - 0.5, h * CELL_PX - half_cell - 0.5]
    grid = (xy - half_cell + 0.5) / torch.tensor(span, dtype=xy.dtype, device=xy.device) * 2 - 1
    sampled = functional.grid_sample(dense, grid[None, None], align_corners=True)  # 1 D 1 N
    return functional.normalize(sampled[0, :, 0], dim=0).T  # N D


# ---- keypoints -> px of the original ----------------------------------------------------------


def absolute_xy(keypoints: Tensor, target_sizes: Any) -> Tensor:
    """B N 2: relative keypoints -> whole px of the original images, truncated towards 0.

    Args:
        target_sizes: A list of (height, width), or a B 2 tensor on the same device; another kind
            or count raises ConfigError.
    """
    if isinstance(target_sizes, list):
        sizes = torch.tensor(target_sizes, device=keypoints.device)
    elif isinstance(target_sizes, Tensor):
        sizes = target_sizes
    else:
        raise ConfigError(
            f"target_sizes is of type {type(target_sizes).__name__}: transformers' rules take a "
            "list of (height, width) or a B 2 tensor"
        )
    if sizes.shape != (len(keypoints), 2):
        raise ConfigError(
            f"target_sizes has shape {tuple(sizes.shape)}, expected one (height, width) for each "
            f"of {len(keypoints)} images"
        )
    return (keypoints * sizes.flip(1)[:, None]).to(torch.int32)  # B N 2
