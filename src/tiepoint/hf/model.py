"""The guide's names: a model that finds keypoints, its config and its output.

A checkpoint whose config.json carries the key "tiepoint" follows the exact rules; another follows
transformers 5.23.0, see `compat`. The state dict has transformers' 24 names either way.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from tiepoint.architecture import CELL_PX
from tiepoint.errors import ConfigError
from tiepoint.files import make_folder, write_bytes
from tiepoint.geometry import SizeHW, whole_cells
from tiepoint.hf import transformers_rules
from tiepoint.hf.config import SuperPointConfig
from tiepoint.hf.outputs import SuperPointKeypointDescriptionOutput
from tiepoint.hf.pretrained import Publishable, locate_checkpoint, write_json
from tiepoint.keypoints.on_torch import FlatKeypoints, describe, select
from tiepoint.network.superpoint import SuperPoint, cell_mask, cells_to_heatmap
from tiepoint.weights.checkpoint import load_checkpoint
from tiepoint.weights.hub import CONFIG_FILE, WEIGHTS_FILE, Token

__all__ = [
    "SuperPointConfig",
    "SuperPointForKeypointDetection",
    "SuperPointKeypointDescriptionOutput",
]

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_IN_FILE = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class SuperPointForKeypointDetection(SuperPoint, Publishable):
    """SuperPoint with everything after it: pixel values in, keypoints out.

    Built from a config its weights are random; `from_pretrained` loads a checkpoint.

    Attributes:
        config: Its `SuperPointConfig`.
    """

    main_input_name = "pixel_values"

    def __init__(self, config: SuperPointConfig) -> None:
        super().__init__(config.network())
        self.config = config
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=config.initializer_range)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(self.parameters()).dtype

    def forward(  # type: ignore[override] # the guide's names, in place of the bare network's
        self,
        pixel_values: Tensor,
        labels: object = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        pixel_mask: Tensor | None = None,
    ) -> SuperPointKeypointDescriptionOutput | tuple[Any, ...]:
        """Find keypoints.

        Coordinates, scores and descriptors are float32 whatever the model's type. Scores and
        descriptors carry gradients, coordinates do not.

        Args:
            pixel_values: B C H W in 0..1, of which channel 0 is taken, as the processor gives it.
            labels: Not taken; this class does not train.
            output_hidden_states: Also return the output of each encoder block; None takes the
                config's.
            return_dict: False returns the tuple of what is not None; None takes the config's.
            pixel_mask: B H W, 1 for the image, in the top-left corner, and 0 for padding; None
                where every image fills the batch. Exact rules only.

        Raises:
            ConfigError: Pixel values or mask of a wrong shape or type, or labels.
        """
        if labels is not None:
            raise ConfigError(
                "labels were given: SuperPointForKeypointDetection finds keypoints and has no "
                "loss; leave them out, or train a network with: tiepoint train"
            )
        if not isinstance(pixel_values, Tensor):
            raise ConfigError(
                f"pixel_values is of type {type(pixel_values).__name__}, expected a torch tensor: "
                'call the processor with return_tensors="pt"'
            )
        if pixel_values.ndim != 4 or 0 in pixel_values.shape:
            raise ConfigError(
                f"pixel_values has shape {tuple(pixel_values.shape)}, expected B C H W"
            )
        if not pixel_values.is_floating_point():
            raise ConfigError(
                f"pixel_values is {pixel_values.dtype}, expected floating point in 0..1, as the "
                "processor gives it"
            )
        config = self.config
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        hidden: list[Tensor] | None = [] if output_hidden_states else None
        detect = self._detect if config.rules == "exact" else self._detect_as_transformers
        output = detect(pixel_values, pixel_mask, hidden)
        if hidden is not None:
            output.hidden_states = tuple(hidden)
        as_dict = config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    def _detect(
        self, pixel_values: Tensor, pixel_mask: Tensor | None, hidden: list[Tensor] | None
    ) -> SuperPointKeypointDescriptionOutput:
        """Pixels -> dense maps -> keypoints -> padded batch, all images at once."""
        grey = pixel_values[:, :1].float()  # B 1 H W
        batch, _, height, width = grey.shape
        sizes_hw = [(height, width)] * batch
        if pixel_mask is not None:
            sizes_hw = _valid_sizes(pixel_mask, (batch, height, width))
        padded_hw = whole_cells((height, width))
        if padded_hw != (height, width):
            beyond = (0, padded_hw[1] - width, 0, padded_hw[0] - height)
            grey = functional.pad(grey, beyond, mode="replicate")  # B 1 H W, whole cells
        inside = cell_mask(sizes_hw, padded_hw)  # B 1 h w
        if inside is not None:
            inside = inside.to(grey.device, self.dtype)
        in_type = grey.to(self.dtype)
        logits, dense = self.dense(in_type, inside, hidden_states=hidden)  # B 65 h w, B D h w
        assert dense is not None
        found = self.config.detection()
        flat = select(cells_to_heatmap(logits), sizes_hw, found, inputs=grey[:, 0])
        cells_hw = torch.tensor([whole_cells(size) for size in sizes_hw], device=grey.device)
        cells_hw = cells_hw // CELL_PX  # B 2
        descriptors = describe(dense, flat.image, flat.xy, cells_hw)  # M D
        return _pad(flat, descriptors, torch.tensor(sizes_hw, device=grey.device))

    def _detect_as_transformers(
        self, pixel_values: Tensor, pixel_mask: Tensor | None, hidden: list[Tensor] | None
    ) -> SuperPointKeypointDescriptionOutput:
        if pixel_mask is not None:
            raise ConfigError(
                "a pixel_mask was given, which transformers' rules do not know: take model and "
                "processor from the same checkpoint"
            )
        config = self.config
        selection = transformers_rules.Selection(
            config.keypoint_threshold,
            config.max_keypoints,
            config.nms_radius,
            config.border_removal_distance,
        )
        found = transformers_rules.detect(self, pixel_values, selection, hidden)
        return SuperPointKeypointDescriptionOutput(
            keypoints=found.keypoints,
            scores=found.scores,
            descriptors=found.descriptors,
            mask=found.mask,
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | PathLike[str] | None = None,
        *,
        revision: str | None = None,
        token: Token = None,
        cache_dir: str | PathLike[str] | None = None,
        local_files_only: bool = False,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        **settings: Any,
    ) -> SuperPointForKeypointDetection:
        """A checkpoint's model, in evaluation mode.

        Args:
            name_or_path: A bundled name, a folder, or a Hub id; None for the bundled default.
            revision, token, cache_dir, local_files_only: For a Hub id.
            dtype: The weights' type, as `torch.float16` or "float16". None or "auto" takes what
                config.json says, or else that of the file.
            device: Where to put it; None is the CPU.
            settings: Replace those of config.json; named as in `SuperPointConfig`. `torch_dtype`
                is transformers' older name for `dtype`.

        Raises:
            CheckpointError: Nothing of that name, a damaged file, or tensors that do not fit.
            ConfigError: A setting out of range, or an unknown one.
        """
        former_name = settings.pop("torch_dtype", None)
        dtype = former_name if dtype is None else dtype
        folder = locate_checkpoint(
            name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        config = SuperPointConfig.read(folder, **settings)
        tensors = load_checkpoint(folder).tensors
        if dtype in (None, "auto"):
            dtype = config.dtype
        if dtype in (None, "auto"):
            dtype = _dtype_in(folder / WEIGHTS_FILE)
        chosen = _as_dtype(dtype)
        config.dtype = _name(chosen)
        model = cls(config)
        model.load(tensors)
        return model.to(device=device, dtype=chosen).eval()

    def save_pretrained(
        self, folder: str | PathLike[str], *, dtype: torch.dtype | str = torch.float32
    ) -> None:
        """Write config.json and model.safetensors into a folder, which is made if need be.

        Args:
            dtype: The type in the file. Whatever it is, config.json says float32, so that the
                weights are widened when they are loaded, by transformers too.

        Raises:
            FormatError: It cannot be written.
        """
        place, in_file = make_folder(folder), _as_dtype(dtype)
        tensors = {
            name: tensor.detach().to("cpu", in_file).contiguous()
            for name, tensor in self.state_dict().items()
        }
        write_bytes(place / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
        config = {
            **self.config.to_dict(),
            "architectures": [SuperPointForKeypointDetection.__name__],
            "dtype": "float32",
        }
        write_json(place / CONFIG_FILE, config)


def _valid_sizes(pixel_mask: Tensor, expected: tuple[int, int, int]) -> list[SizeHW]:
    """The (height, width) px of each image from B H W of 1 and 0."""
    if tuple(pixel_mask.shape) != expected:
        raise ConfigError(
            f"pixel_mask has shape {tuple(pixel_mask.shape)}, expected {expected} as pixel_values"
        )
    mask = pixel_mask.bool()
    heights, widths = mask.any(dim=2).sum(dim=1), mask.any(dim=1).sum(dim=1)  # B, B
    y = torch.arange(expected[1], device=mask.device)
    x = torch.arange(expected[2], device=mask.device)
    in_rows, in_columns = y < heights[:, None], x < widths[:, None]  # B H, B W
    if not bool((mask == in_rows[:, :, None] & in_columns[:, None]).all()) or not bool(
        heights.all()
    ):
        raise ConfigError(
            "pixel_mask must hold 1 in one rectangle of each image, from its top-left corner on, "
            "and 0 elsewhere"
        )
    return list(zip(heights.tolist(), widths.tolist(), strict=True))


def _pad(
    flat: FlatKeypoints, descriptors: Tensor, sizes_hw: Tensor
) -> SuperPointKeypointDescriptionOutput:
    """A flat list of M keypoints -> B N of them, zeros behind those of an image with fewer.

    Args:
        descriptors: M D.
        sizes_hw: B 2, px.
    """
    counts = torch.bincount(flat.image, minlength=len(sizes_hw))  # B
    most = torch.arange(int(counts.max()), device=counts.device)  # N
    starts = torch.cumsum(counts, 0) - counts  # B
    place = torch.arange(len(flat.image), device=counts.device) - starts[flat.image]  # M
    relative = (flat.xy.detach() + 0.5) / sizes_hw.flip(1)[flat.image]  # M 2

    def padded(values: Tensor) -> Tensor:
        shape = (len(counts), len(most), *values.shape[1:])
        return values.new_zeros(shape).index_put((flat.image, place), values)  # B N ...

    return SuperPointKeypointDescriptionOutput(
        keypoints=padded(relative),
        scores=padded(flat.scores),
        descriptors=padded(descriptors),
        mask=(most < counts[:, None]).int(),
    )


def _as_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    known = _DTYPES.get(str(dtype).removeprefix("torch."))
    if known is None:
        raise ConfigError(f"dtype is {dtype!r}, expected one of {', '.join(_DTYPES)}, or 'auto'")
    return known


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype_in(path: Path) -> str:
    """The type of the tensors in a file that was found to be whole."""
    with safe_open(path, framework="pt") as file:
        first = next(iter(file.keys()))
        return _IN_FILE[file.get_slice(first).get_dtype()]
