"""The guide's model: pixel values in, keypoints out.

A checkpoint whose config.json has the key "tiepoint" follows the exact rules. Others follow
transformers 5.23.0; see `transformers_rules`. The state dict has transformers' 24 names either way.
"""

from __future__ import annotations

from os import PathLike
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from tiepoint.architecture import CELL_PX
from tiepoint.errors import ConfigError
from tiepoint.geometry import SizeHW, whole_cells
from tiepoint.hf import transformers_rules
from tiepoint.hf.config import ConfigOptions, SuperPointConfig, setting_names
from tiepoint.hf.outputs import SuperPointKeypointDescriptionOutput
from tiepoint.hf.pretrained import (
    PretrainedModel,
    load_device,
    load_dtype,
    locate_checkpoint,
)
from tiepoint.keypoints.on_torch import FlatKeypoints, describe, select
from tiepoint.network.superpoint import SuperPoint, cell_mask, cells_to_heatmap
from tiepoint.weights.checkpoint import load_checkpoint
from tiepoint.weights.folder import CONFIG_FILE, MODEL_CLASS, read_json

__all__ = [
    "SuperPointConfig",
    "SuperPointForKeypointDetection",
    "SuperPointKeypointDescriptionOutput",
]


class SuperPointForKeypointDetection(SuperPoint, PretrainedModel):
    """SuperPoint network with keypoint detection and description.

    Built from a config, its weights are random; `from_pretrained` loads a checkpoint.
    """

    base_model_prefix = "superpoint"
    config_class = SuperPointConfig

    def __init__(self, config: SuperPointConfig) -> None:
        super().__init__(config.network())
        self.config = config
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=config.initializer_range)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(  # type: ignore[override] # the guide's names, in place of the bare network's
        self,
        pixel_values: Tensor,
        labels: object = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        pixel_mask: Tensor | None = None,
    ) -> SuperPointKeypointDescriptionOutput | tuple[Any, ...]:
        """Detect and describe keypoints.

        Coordinates, scores and descriptors are float32 whatever the model's type. Scores and
        descriptors have gradients, coordinates have none.

        Args:
            pixel_values: B C H W in 0..1, as from the processor; channel 0 is used.
            labels: Refused, because this class does not train.
            output_hidden_states: Also return the output of each encoder block; None is the
                config's setting.
            return_dict: False returns a tuple of the fields that are not None; None is the
                config's setting.
            pixel_mask: B H W, 1 for the image in the top-left corner and 0 for padding; None
                if no image is padded. Exact rules only.

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
        shape = tuple(pixel_values.shape)
        if len(shape) != 4 or 0 in shape:
            raise ConfigError(f"pixel_values has shape {shape}, expected B C H W")
        if not pixel_values.is_floating_point():
            raise ConfigError(
                f"pixel_values is {pixel_values.dtype}, expected floating point in 0..1, as from "
                "the processor"
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
            sizes_hw = valid_sizes(pixel_mask, (batch, height, width))
        padded_hw = whole_cells((height, width))
        if padded_hw != (height, width):
            beyond = (0, padded_hw[1] - width, 0, padded_hw[0] - height)
            grey = functional.pad(grey, beyond, mode="replicate")  # B 1 H W, whole cells
        inside = cell_mask(sizes_hw, padded_hw)  # B 1 h w
        if inside is not None:
            inside = inside.to(grey.device, self.dtype)
        network_input = grey.to(self.dtype)
        # B 65 h w, B D h w
        logits, dense = self.dense(network_input, inside, hidden_states=hidden)
        assert dense is not None
        settings = self.config.detection()
        flat = select(cells_to_heatmap(logits), sizes_hw, settings, inputs=grey[:, 0])
        cells_hw = torch.tensor([whole_cells(size) for size in sizes_hw], device=grey.device)
        cells_hw = cells_hw // CELL_PX  # B 2
        descriptors = describe([dense], flat.image, flat.xy, cells_hw)  # M D
        return _pad(flat, descriptors, torch.tensor(sizes_hw, device=grey.device))

    def _detect_as_transformers(
        self, pixel_values: Tensor, pixel_mask: Tensor | None, hidden: list[Tensor] | None
    ) -> SuperPointKeypointDescriptionOutput:
        if pixel_mask is not None:
            raise ConfigError(
                "a pixel_mask was given, which transformers' rules do not have: load model and "
                "processor from the same checkpoint"
            )
        return transformers_rules.detect(self, pixel_values, self.config, hidden)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | PathLike[str] | None = None,
        *,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        device_map: torch.device | str | None = None,
        config: SuperPointConfig | None = None,
        **options: Unpack[ConfigOptions],
    ) -> SuperPointForKeypointDetection:
        """Load a checkpoint's model, in evaluation mode.

        Args:
            name_or_path: A bundled name, a folder, or a Hub id; None is the bundled default.
            dtype: Type of the weights, such as `torch.float16` or "float16". None or "auto" is
                the one of config.json or, if it has none, of the file.
            torch_dtype: transformers' older name for `dtype`.
            device: Device of the weights; None is the CPU.
            device_map: transformers' name for `device`; "auto" is the GPU if torch sees one.
            config: Settings in place of those of config.json.
            options: Arguments of the Hub, see `HubOptions`, and settings that replace those of
                config.json, see `SuperPointConfig`.

        Raises:
            CheckpointError: Nothing of that name, a damaged file, or tensors that do not fit.
            ConfigError: A setting out of range, or an unknown one.
        """
        folder, settings = locate_checkpoint(name_or_path, options, setting_names(SuperPointConfig))
        stored = read_json(folder / CONFIG_FILE) if config is None else config.to_dict()
        config = SuperPointConfig.from_dict({**stored, **settings})
        checkpoint = load_checkpoint(folder)
        if config.network() != checkpoint.network:
            raise ConfigError(
                f"{config.network()} does not fit the weights of {folder}, which have "
                f"{checkpoint.network}; leave the widths out, or build a model from the config"
            )
        config.dtype = load_dtype(folder, torch_dtype if dtype is None else dtype, config.dtype)
        model = cls(config)
        model.load(checkpoint.tensors)
        return model.to(device=load_device(device, device_map), dtype=config.dtype).eval()

    def save_pretrained(
        self, folder: str | PathLike[str], *, dtype: torch.dtype | str = torch.float32
    ) -> None:
        """Write config.json and model.safetensors into a folder, which is created if missing.

        Args:
            dtype: Type in the file. config.json states float32 in any case, so that
                transformers, too, widens the weights when it loads them.

        Raises:
            OutputError: It cannot be written.
        """
        vars(self.config)["architectures"] = [MODEL_CLASS]
        self.config.dtype = self.dtype
        self._write(folder, self.config.to_dict(), dtype)


def valid_sizes(pixel_mask: Tensor, expected: tuple[int, int, int]) -> list[SizeHW]:
    """The (height, width) px of each image in a B H W mask of 1 and 0."""
    if tuple(pixel_mask.shape) != expected:
        raise ConfigError(
            f"pixel_mask has shape {tuple(pixel_mask.shape)}, expected {expected} as pixel_values"
        )
    mask = pixel_mask.bool()
    heights, widths = mask.any(dim=2).sum(dim=1), mask.any(dim=1).sum(dim=1)  # B, B
    y = torch.arange(expected[1], device=mask.device)
    x = torch.arange(expected[2], device=mask.device)
    in_rows, in_columns = y < heights[:, None], x < widths[:, None]  # B H, B W
    is_rectangle = (mask == in_rows[:, :, None] & in_columns[:, None]).all()
    if not bool(is_rectangle & heights.all()):
        raise ConfigError(
            "pixel_mask has other values than 1 in one rectangle from the top-left corner and 0 "
            "elsewhere; pass the processor's"
        )
    return list(zip(heights.tolist(), widths.tolist(), strict=True))


def _pad(
    flat: FlatKeypoints, descriptors: Tensor, sizes_hw: Tensor
) -> SuperPointKeypointDescriptionOutput:
    """Split M keypoints and descriptors (M D) of B images into B N, padded with zeros."""
    counts = torch.bincount(flat.image, minlength=len(sizes_hw))  # B
    rank = torch.arange(int(counts.max()), device=counts.device)  # N
    starts = torch.cumsum(counts, 0) - counts  # B
    index = torch.arange(len(flat.image), device=counts.device) - starts[flat.image]  # M
    relative = (flat.xy.detach() + 0.5) / sizes_hw.flip(1)[flat.image]  # M 2

    def padded(values: Tensor) -> Tensor:
        shape = (len(counts), len(rank), *values.shape[1:])
        return values.new_zeros(shape).index_put((flat.image, index), values)  # B N ...

    return SuperPointKeypointDescriptionOutput(
        keypoints=padded(relative),
        scores=padded(flat.scores),
        descriptors=padded(descriptors),
        mask=(rank < counts[:, None]).int(),
    )
