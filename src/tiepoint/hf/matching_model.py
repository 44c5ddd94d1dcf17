"""The guide's model for pairs: pixel values in, keypoints of both images and their matches out.

The detector inside follows the exact rules or transformers' rules, and so do the positions that
the matcher sees. Its layers are those of `matching.learned`, in transformers' tensor names.
"""

from __future__ import annotations

import warnings
from os import PathLike
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from tiepoint.errors import CheckpointError, ConfigError
from tiepoint.hf.config import setting_names
from tiepoint.hf.matching_config import LightGlueConfig, MatchingConfigOptions
from tiepoint.hf.model import SuperPointForKeypointDetection, valid_sizes
from tiepoint.hf.outputs import (
    LightGlueKeypointMatchingOutput,
    SuperPointKeypointDescriptionOutput,
)
from tiepoint.hf.pretrained import PretrainedModel, load_device, load_dtype, locate_checkpoint
from tiepoint.matching.learned.folder import (
    DETECTOR_PREFIX,
    MODEL_CLASS,
    NEVER,
    MatcherCheckpoint,
    load_matcher,
)
from tiepoint.matching.learned.network_torch import (
    Head,
    MatcherNetwork,
    Points,
    log_assignment,
)
from tiepoint.weights.checkpoint import (
    Checkpoint,
    bundled_checkpoints,
    bundled_with,
    load_checkpoint,
)
from tiepoint.weights.folder import CONFIG_FILE, read_json

__all__ = [
    "LightGlueConfig",
    "LightGlueForKeypointMatching",
    "LightGlueKeypointMatchingOutput",
]


class LightGlueForKeypointMatching(MatcherNetwork, PretrainedModel):
    """SuperPoint and a learned matcher in LightGlue's layout, in one model.

    Built from a config, its weights are random; `from_pretrained` loads a checkpoint. Every layer
    runs on every keypoint. A config that asks for early stopping or pruning gives a warning.
    """

    base_model_prefix = "lightglue"
    config_class = LightGlueConfig

    def __init__(self, config: LightGlueConfig) -> None:
        super().__init__(config.matcher(), tied=False)
        self.config = config
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=config.initializer_range)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.keypoint_detector = SuperPointForKeypointDetection(config.detector)
        if min(config.depth_confidence, config.width_confidence) < NEVER:
            warnings.warn(
                f"depth_confidence {config.depth_confidence} and width_confidence "
                f"{config.width_confidence} have no effect in tiepoint: every layer runs on every "
                "keypoint, as in transformers with 1.0 for both",
                stacklevel=2,
            )

    def forward(  # type: ignore[override] # the guide's names, in place of the bare network's
        self,
        pixel_values: Tensor,
        labels: object = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        pixel_mask: Tensor | None = None,
    ) -> LightGlueKeypointMatchingOutput | tuple[Any, ...]:
        """Detect keypoints in both images of each pair, and match them.

        Positions and scores are float32 whatever the model's type. Scores have gradients to the
        matcher's weights, and none to the detector's.

        Args:
            pixel_values: B 2 C H W in 0..1, as from the processor; channel 0 is used.
            labels: Refused, because this class does not train.
            output_attentions, output_hidden_states: Refused if True, also in the config.
            return_dict: False returns a tuple of the fields that are not None; None is the
                config's setting.
            pixel_mask: B 2 H W, 1 for the image in the top-left corner and 0 for padding; None
                if no image is padded. Exact rules only.

        Raises:
            ConfigError: Pixel values or mask of a wrong shape or type, labels, or a request for
                attentions or hidden states.
        """
        self._refuse(labels, output_attentions, output_hidden_states)
        _check_pixels(pixel_values, pixel_mask)
        batch, _, _, height, width = pixel_values.shape
        mask = None if pixel_mask is None else pixel_mask.flatten(0, 1)  # 2B H W
        detected = self.keypoint_detector(
            pixel_values.flatten(0, 1), output_hidden_states=False, return_dict=True,
            pixel_mask=mask,
        )  # fmt: skip
        sizes_hw = [(height, width)] * (2 * batch)
        if mask is not None:
            sizes_hw = valid_sizes(mask, (2 * batch, height, width))
        output = self._match(detected, torch.tensor(sizes_hw, device=pixel_values.device))
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    def _refuse(self, labels: object, attentions: bool | None, hidden_states: bool | None) -> None:
        if labels is not None:
            raise ConfigError(
                "labels were given: LightGlueForKeypointMatching finds matches and has no loss; "
                "leave them out"
            )
        config = self.config
        asked = {
            "output_attentions": config.output_attentions if attentions is None else attentions,
            "output_hidden_states": (
                config.output_hidden_states if hidden_states is None else hidden_states
            ),
        }
        for name, is_asked in asked.items():
            if is_asked:
                raise ConfigError(
                    f"{name} is True, expected False: tiepoint's matcher keeps no attentions and "
                    "hidden states; transformers loads the same folder and returns them"
                )

    def _match(
        self, detected: SuperPointKeypointDescriptionOutput, sizes_hw: Tensor
    ) -> LightGlueKeypointMatchingOutput:
        """Keypoints of 2B images and their sizes, 2B 2 px -> matches of B pairs."""
        keypoints, descriptors, mask = detected.keypoints, detected.descriptors, detected.mask
        assert keypoints is not None and descriptors is not None and mask is not None
        xy = _in_pairs(self._positions(keypoints, sizes_hw.flip(1)))  # B 2 N 2
        states = _in_pairs(descriptors.detach().to(self.dtype))  # B 2 N D
        mask = _in_pairs(mask)  # B 2 N
        valid = mask.bool()
        a, b = (Points(xy[:, i], states[:, i], valid[:, i]) for i in (0, 1))
        if mask.shape[-1]:
            matches, scores = _assign(self.last_head(a, b), self.config.filter_threshold)
        else:
            matches, scores = mask.long(), mask.float()  # B 2 0
        layers = self.config.num_hidden_layers
        return LightGlueKeypointMatchingOutput(
            matches=matches,
            matching_scores=scores,
            keypoints=_in_pairs(keypoints),
            prune=torch.where(valid, layers, 1),
            mask=mask,
        )

    def _positions(self, keypoints: Tensor, sizes_wh: Tensor) -> Tensor:
        """2B N 2: relative keypoints -> normalised as by `matching.learned.inputs`."""
        sizes = sizes_wh.float()[:, None]  # 2B 1 2
        xy = keypoints * sizes  # px
        if self.config.rules == "exact":
            xy = xy - 0.5
        return (xy - sizes / 2) / (sizes.amax(dim=-1, keepdim=True) / 2)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | PathLike[str] | None = None,
        *,
        detector: str | PathLike[str] | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        device_map: torch.device | str | None = None,
        config: LightGlueConfig | None = None,
        **options: Unpack[MatchingConfigOptions],
    ) -> LightGlueForKeypointMatching:
        """Load a matcher with its detector, in evaluation mode.

        Args:
            name_or_path: A folder, a Hub id, or a checkpoint with a folder `matcher`, such as a
                bundled name; None is the bundled default.
            detector: Checkpoint of the detector: a bundled name, a folder or a Hub id. None is
                the one in the matcher's file or, if it has none, the bundled one whose SHA-256
                its config names.
            dtype, torch_dtype, device, device_map: See `SuperPointForKeypointDetection`.
            config: Settings in place of those of config.json.
            options: Arguments of the Hub, see `HubOptions`, and settings that replace those of
                config.json, see `LightGlueConfig`.

        Raises:
            CheckpointError: Nothing of that name, a damaged file, tensors that do not fit, or no
                detector.
            ConfigError: A setting out of range, or an unknown one.
        """
        folder, settings = locate_checkpoint(name_or_path, options, setting_names(LightGlueConfig))
        folder = LightGlueConfig.place(folder)
        stored = read_json(folder / CONFIG_FILE) if config is None else config.to_dict()
        try:
            config = LightGlueConfig.from_dict({**stored, **settings})
        except ConfigError as error:
            raise ConfigError(f"{folder / CONFIG_FILE}: {error}") from error
        checkpoint = load_matcher(folder)
        if config.matcher() != checkpoint.config:
            raise ConfigError(
                f"{config.matcher()} does not fit the weights of {folder}, which have "
                f"{checkpoint.config}; leave the sizes out, or build a model from the config"
            )
        tensors = _detector_tensors(checkpoint, config, detector)
        config.dtype = load_dtype(folder, torch_dtype if dtype is None else dtype, config.dtype)
        model = cls(config)
        model.keypoint_detector.load(tensors)
        own = {name: torch.from_numpy(a.copy()) for name, a in checkpoint.tensors.items()}
        of_detector = model.keypoint_detector.state_dict(prefix=DETECTOR_PREFIX)
        model.load_state_dict({**own, **of_detector})
        return model.to(device=load_device(device, device_map), dtype=config.dtype).eval()

    def save_pretrained(
        self, folder: str | PathLike[str], *, dtype: torch.dtype | str = torch.float32
    ) -> None:
        """Write config.json and model.safetensors, with the detector's weights, into a folder.

        Args:
            dtype: Type in the file; see `SuperPointForKeypointDetection.save_pretrained`.

        Raises:
            OutputError: It cannot be written.
        """
        vars(self.config)["architectures"] = [MODEL_CLASS]
        self.config.dtype = self.dtype
        self._write(folder, self.config.to_dict(), dtype)


def _check_pixels(pixel_values: Tensor, pixel_mask: Tensor | None) -> None:
    if not isinstance(pixel_values, Tensor):
        raise ConfigError(
            f"pixel_values is of type {type(pixel_values).__name__}, expected a torch tensor: "
            'call the processor with return_tensors="pt"'
        )
    shape = tuple(pixel_values.shape)
    if len(shape) != 5 or shape[1] != 2 or 0 in shape:
        raise ConfigError(
            f"pixel_values has shape {shape}, expected B 2 C H W: pairs of images, as from "
            "LightGlueImageProcessor"
        )
    if not pixel_values.is_floating_point() or not bool(torch.isfinite(pixel_values).all()):
        raise ConfigError(
            f"pixel_values is {pixel_values.dtype} with NaN, infinity or whole numbers, expected "
            "floating point in 0..1, as from the processor"
        )
    expected = (*shape[:2], *shape[3:])
    if pixel_mask is not None and tuple(pixel_mask.shape) != expected:
        raise ConfigError(
            f"pixel_mask has shape {tuple(pixel_mask.shape)}, expected {expected} as pixel_values"
        )


def _in_pairs(values: Tensor) -> Tensor:
    """2B ... -> B 2 ..."""
    return values.reshape(len(values) // 2, 2, *values.shape[1:])


def _assign(head: Head, threshold: float) -> tuple[Tensor, Tensor]:
    """Mutual maxima of the assignment: matches B 2 N, -1 for none, and their scores B 2 N."""
    assert head.valid_a is not None and head.valid_b is not None
    is_pair = head.valid_a[:, :, None] & head.valid_b[:, None]  # B N N
    log_p = log_assignment(head).matched.masked_fill(~is_pair, -torch.inf)  # B N N
    highest, of_a = log_p.max(dim=2)  # B N
    of_b = log_p.argmax(dim=1)  # B N
    own = torch.arange(log_p.shape[1], device=log_p.device)
    scores_a = torch.where(of_b.gather(1, of_a) == own, highest.exp(), 0.0)  # B N
    scores_b = torch.where(of_a.gather(1, of_b) == own, scores_a.gather(1, of_b), 0.0)
    scores = torch.stack([scores_a, scores_b], dim=1)  # B 2 N
    return torch.where(scores > threshold, torch.stack([of_a, of_b], dim=1), -1), scores


def _detector_tensors(
    matcher: MatcherCheckpoint, config: LightGlueConfig, given: str | PathLike[str] | None
) -> Any:
    """The weights of the detector: those of a given checkpoint, of the file, or bundled ones."""
    if given is None and matcher.detector_tensors:
        return matcher.detector_tensors
    found = load_checkpoint(given) if given is not None else _bundled(matcher)
    if matcher.detector_sha256 not in (None, found.sha256):
        raise CheckpointError(
            f"detector {found.name!r} has weights of SHA-256 {found.sha256}, expected "
            f"{matcher.detector_sha256} by matcher {matcher.name!r}: give the checkpoint that it "
            "was trained with"
        )
    if found.network != config.detector.network():
        raise CheckpointError(
            f"detector {found.name!r} has {found.network}, expected {config.detector.network()} "
            f"by matcher {matcher.name!r}: give the checkpoint that it was trained with"
        )
    return found.tensors


def _bundled(matcher: MatcherCheckpoint) -> Checkpoint:
    """The bundled checkpoint whose SHA-256 a matcher names."""
    checkpoint = bundled_with(matcher.detector_sha256)
    if checkpoint is not None:
        return checkpoint
    named = matcher.detector_sha256 or "none"
    raise CheckpointError(
        f"matcher {matcher.name!r} has no weights of a detector, and no bundled checkpoint "
        f"({', '.join(bundled_checkpoints())}) has the SHA-256 that it names ({named}): give the "
        "checkpoint it was trained with, as in from_pretrained(..., detector=FOLDER)"
    )
