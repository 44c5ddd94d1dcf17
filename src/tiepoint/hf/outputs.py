"""Return types of the guides' processors and models, with access by attribute and by key."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tiepoint.errors import ConfigError


@dataclass(eq=False)
class ModelOutput(Mapping[str, Any]):
    """Access to the fields of a model's output in the ways of transformers."""

    # Comparing tensors elementwise has no single result, so outputs compare by identity.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __iter__(self) -> Iterator[str]:
        return (f.name for f in fields(self) if getattr(self, f.name) is not None)

    def __len__(self) -> int:
        return len(self.to_tuple())

    def __getitem__(self, key: str | int | slice) -> Any:
        """A field by name, or an item or slice of the tuple."""
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in tuple(self):
            raise KeyError(key)
        return getattr(self, key)

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in their order."""
        return tuple(getattr(self, name) for name in self)


@dataclass(eq=False)
class SuperPointKeypointDescriptionOutput(ModelOutput):
    """Keypoints of a batch, padded to the largest count N.

    A field is an attribute, a key and, unless it is None, an item of the tuple: `out.scores`,
    `out["scores"]`, `out[1]`, `out.to_tuple()`. Iterating yields the names, as with a dict.

    Attributes:
        loss: Always None.
        keypoints: B N 2 float32, (x, y) relative to the image. Under the exact rules (x + 0.5) / W
            and (y + 0.5) / H of the image without padding, best score first. Under transformers'
            rules x / W and y / H of the input; without a limit in reading order.
        scores: B N float32, probabilities; 0 for padding.
        descriptors: B N D float32 of unit length; 0 for padding.
        mask: B N int32, 1 for a keypoint and 0 for padding.
        hidden_states: Outputs of the encoder blocks, if requested.
    """

    loss: Tensor | None = None
    keypoints: Tensor | None = None
    scores: Tensor | None = None
    descriptors: Tensor | None = None
    mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass(eq=False)
class LightGlueKeypointMatchingOutput(ModelOutput):
    """Matches of B pairs of images, padded to the largest count of keypoints N.

    Access as in `SuperPointKeypointDescriptionOutput`. Padding has match -1 and score 0.

    Attributes:
        loss: Always None.
        matches: B 2 N int64; for each keypoint the index of its match in the other image, or -1.
        matching_scores: B 2 N float32; the probability of the match in 0..1, and 0 if there is
            none. A match below the config's threshold has a score too, and -1 in `matches`.
        keypoints: B 2 N 2 float32, (x, y) relative to the image, as the detector returns them.
        prune: B 2 N int64, the number of layers that saw the keypoint; 1 for padding. Keypoints
            are never pruned.
        mask: B 2 N int32, 1 for a keypoint and 0 for padding.
        hidden_states, attentions: Always None.
    """

    loss: Tensor | None = None
    matches: Tensor | None = None
    matching_scores: Tensor | None = None
    keypoints: Tensor | None = None
    prune: Tensor | None = None
    mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class BatchFeature(UserDict[str, Any]):
    """Inputs of the model: a dict whose keys are also attributes, movable to a device."""

    def __getattr__(self, name: str) -> Any:
        # UserDict keeps its items in `data`, which pickle and copy request before it exists.
        if name != "data" and name in self.data:
            return self.data[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Move and cast in place, like `torch.Tensor.to`; only floating-point tensors are cast."""
        for name, value in self.data.items():
            if isinstance(value, Tensor):
                # Moving an empty float reveals the target device without parsing the arguments.
                target = torch.empty(0, device=value.device).to(*args, **kwargs).device
                is_float = value.is_floating_point()
                self.data[name] = value.to(*args, **kwargs) if is_float else value.to(target)
        return self


def stack(arrays: Sequence[NDArray[Any]] | NDArray[Any], return_tensors: str | None) -> Any:
    """Stack arrays of one shape to one tensor ("pt") or one array ("np"); None returns a list.

    Raises:
        ConfigError: Another value of `return_tensors`.
    """
    if return_tensors is None:
        return list(arrays)
    if return_tensors not in ("pt", "np"):
        raise ConfigError(f"return_tensors is {return_tensors!r}, expected 'pt', 'np' or None")
    # np.stack may keep channels last, and convolutions round differently in that layout.
    batch = np.array(arrays)
    return torch.from_numpy(batch) if return_tensors == "pt" else batch
