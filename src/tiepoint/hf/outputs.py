"""What the guide's processor and model return: by attribute, by key, and as a tuple."""

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
class SuperPointKeypointDescriptionOutput(Mapping[str, Any]):
    """Keypoints of a batch. N is the largest count of the batch; `mask` says what is real.

    A field is an attribute, a key and, where it is not None, an item of the tuple: `out.scores`,
    `out["scores"]`, `out[1]`, `out.to_tuple()`. Iterating gives the names, as a dict does.

    Attributes:
        loss: Always None here.
        keypoints: B N 2 float32, (x, y) relative to the image, best score first. Under the exact
            rules (x + 0.5) / W and (y + 0.5) / H of the image without its padding; under
            transformers' rules x / W and y / H of the input, and first found first.
        scores: B N float32, probabilities; 0 where there is no keypoint.
        descriptors: B N D float32 of unit length; 0 where there is no keypoint.
        mask: B N int32, 1 for a keypoint and 0 for padding.
        hidden_states: The output of each encoder block, if they were asked for.
    """

    loss: Tensor | None = None
    keypoints: Tensor | None = None
    scores: Tensor | None = None
    descriptors: Tensor | None = None
    mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None

    # Comparing tensors has no single answer, so two outputs are equal when they are the same one.
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


class BatchFeature(UserDict[str, Any]):
    """Inputs for the model: a dict whose keys are attributes too, movable to a device."""

    def __getattr__(self, name: str) -> Any:
        # UserDict keeps its items in `data`, which pickle and copy ask for before it is there.
        if name != "data" and name in self.data:
            return self.data[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Move and cast in place, as `torch.Tensor.to`; only floating-point tensors are cast.

        Args:
            args, kwargs: A device, a dtype or both, as for `torch.Tensor.to`.

        Returns:
            This object.
        """
        for name, value in self.data.items():
            if isinstance(value, Tensor):
                self.data[name] = _move(value, args, kwargs)
        return self


def stack(arrays: Sequence[NDArray[Any]] | NDArray[Any], return_tensors: str | None) -> Any:
    """Arrays of one shape as one tensor ("pt"), one array ("np"), or as they are (None).

    Raises:
        ConfigError: Another value of `return_tensors`.
    """
    if return_tensors is None:
        return list(arrays)
    if return_tensors not in ("pt", "np"):
        raise ConfigError(f"return_tensors is {return_tensors!r}, expected 'pt', 'np' or None")
    # Not np.stack, which may keep channels last: a convolution rounds otherwise in another layout.
    batch = np.array(arrays)
    return torch.from_numpy(batch) if return_tensors == "pt" else batch


def _move(tensor: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    if tensor.is_floating_point():
        moved: Tensor = tensor.to(*args, **kwargs)
        return moved
    # An empty float on the same device tells where `to` would go, without parsing its arguments.
    target = torch.empty(0, device=tensor.device).to(*args, **kwargs).device
    return tensor.to(target)
