"""Arrays on a device: the values, and a host that may free its memory at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tiepoint.training.on_device.transfer import together_on


def test_arrays_keep_values_shapes_and_kinds() -> None:
    arrays = {
        "some": np.arange(6, dtype=np.int16).reshape(2, 3),
        "none": np.zeros((0, 4), np.float32),
        "others": np.array([[0.5], [np.nan]], np.float32),
    }
    tensors = together_on(arrays, torch.device("cpu"))
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name].numpy(), array)
        assert tensors[name].numpy().dtype == array.dtype


def test_the_host_waits_for_the_copy_of_memory_that_is_not_pinned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such memory is freed when its last tensor is, in the middle of a copy or not."""
    waited = []

    def to(host: torch.Tensor, place: torch.device, *, non_blocking: bool = False) -> torch.Tensor:
        waited.append((place.type, host.is_pinned() or not non_blocking))
        return host

    monkeypatch.setattr(torch.Tensor, "to", to)
    together_on({"ones": np.ones(3, np.float32)}, torch.device("mps"))
    assert waited == [("mps", True)]
