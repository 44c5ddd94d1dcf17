import numpy as np
import pytest
import torch

from tiepoint.config import NetworkConfig
from tiepoint.network import SuperPoint
from tiepoint.training.network import TrainableSuperPoint, fold

SMALL = NetworkConfig((8, 8, 16, 16), 24, descriptor_decoder_dim=16)


def trained_like(config: NetworkConfig = SMALL, seed: int = 0) -> TrainableSuperPoint:
    """Statistics, gains and shifts as after training: none of them at its start."""
    torch.manual_seed(seed)
    network = TrainableSuperPoint(config)
    for norm in network.norms.values():
        torch.nn.init.uniform_(norm.weight, -1.5, 2.0)  # negative gains too
        torch.nn.init.normal_(norm.bias, 0, 0.3)
        torch.nn.init.normal_(norm.running_mean, 0, 0.5)
        torch.nn.init.uniform_(norm.running_var, 0.05, 4.0)
    return network.eval()


def test_folding_keeps_the_outputs() -> None:
    network = trained_like()
    plain = SuperPoint(SMALL)
    plain.load_state_dict(fold(network.state_dict(), SMALL))
    pixels = torch.rand(2, 1, 48, 64)
    with torch.no_grad():
        for ours, theirs in zip(network(pixels), plain.eval()(pixels), strict=True):
            assert (ours - theirs).abs().max() < 1e-4


def test_folding_gives_the_plain_networks_24_tensors() -> None:
    folded = fold(trained_like().state_dict(), SMALL)
    expected = SuperPoint(SMALL).state_dict()
    assert folded.keys() == expected.keys()
    assert len(folded) == 24
    assert all(folded[name].shape == tensor.shape for name, tensor in expected.items())


def test_without_norms_folding_changes_nothing() -> None:
    network = TrainableSuperPoint(SMALL, batch_norm=False)
    for name, tensor in fold(network.state_dict(), SMALL).items():
        assert torch.equal(tensor, network.state_dict()[name])


def test_without_norms_a_plain_checkpoint_loads_and_answers_the_same() -> None:
    plain = SuperPoint(SMALL).eval()
    network = TrainableSuperPoint(SMALL, batch_norm=False).eval()
    network.load_state_dict(plain.state_dict())
    pixels = torch.rand(1, 1, 40, 40)
    with torch.no_grad():
        for ours, theirs in zip(network(pixels), plain(pixels), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_training_moves_the_running_statistics_and_evaluation_does_not() -> None:
    network = TrainableSuperPoint(SMALL)
    [first, *_] = network.norms.values()
    before = first.running_mean.clone()
    network.eval()(torch.rand(2, 1, 16, 16))
    assert torch.equal(first.running_mean, before)
    network.train()(torch.rand(2, 1, 16, 16))
    assert not torch.equal(first.running_mean, before)


def test_statistics_stay_float32_when_convolutions_are_bfloat16() -> None:
    network = TrainableSuperPoint(SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = network(torch.rand(2, 1, 16, 16))
    assert logits.dtype == torch.bfloat16
    assert {b.dtype for b in network.buffers() if b.is_floating_point()} == {torch.float32}


def test_an_untrained_network_expects_a_keypoint_in_few_cells() -> None:
    torch.manual_seed(3)
    network = TrainableSuperPoint(SMALL).eval()
    logits, _ = network(torch.rand(1, 1, 64, 64))
    empty = torch.softmax(logits.detach(), dim=1)[0, -1]
    assert 0.85 < float(empty.mean()) < 0.99


@pytest.mark.parametrize("widths", [(4, 8, 12, 16), (16, 32, 64, 64)])
def test_any_widths_fold(widths: tuple[int, int, int, int]) -> None:
    config = NetworkConfig(widths, 20, descriptor_decoder_dim=12)
    folded = fold(trained_like(config).state_dict(), config)
    assert all(np.isfinite(tensor.numpy()).all() for tensor in folded.values())
