"""The trainable network: batch norms that fold exactly, wider copies, frozen blocks."""

import numpy as np
import pytest
import torch

from tiepoint.architecture import NetworkConfig
from tiepoint.errors import ConfigError
from tiepoint.network.superpoint import SuperPoint
from tiepoint.training.detector.network import TrainableSuperPoint, fold, widen

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
        for ours, theirs in zip(network.dense(pixels), plain.eval().dense(pixels), strict=True):
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
        for ours, theirs in zip(network.dense(pixels), plain.dense(pixels), strict=True):
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
        logits, _ = network.dense(torch.rand(2, 1, 16, 16))
    assert logits.dtype == torch.bfloat16
    assert {b.dtype for b in network.buffers() if b.is_floating_point()} == {torch.float32}


def test_an_untrained_network_expects_a_keypoint_in_few_cells() -> None:
    torch.manual_seed(3)
    network = TrainableSuperPoint(SMALL).eval()
    logits, _ = network.dense(torch.rand(1, 1, 64, 64))
    empty = torch.softmax(logits.detach(), dim=1)[0, -1]
    assert 0.85 < float(empty.mean()) < 0.99


@pytest.mark.parametrize("widths", [(4, 8, 12, 16), (16, 32, 64, 64)])
def test_any_widths_fold(widths: tuple[int, int, int, int]) -> None:
    config = NetworkConfig(widths, 20, descriptor_decoder_dim=12)
    folded = fold(trained_like(config).state_dict(), config)
    assert all(np.isfinite(tensor.numpy()).all() for tensor in folded.values())


def test_a_wider_network_answers_what_the_narrower_one_did() -> None:
    narrow = trained_like()
    wider = NetworkConfig((8, 12, 16, 24), 40, descriptor_decoder_dim=16)
    wide = TrainableSuperPoint(wider).eval()
    wide.load_state_dict(widen(narrow.state_dict(), SMALL, wide))
    pixels = torch.rand(2, 1, 48, 64)
    with torch.no_grad():
        for before, after in zip(narrow.dense(pixels), wide.dense(pixels), strict=True):
            assert (before - after).abs().max() < 1e-5
    loss = sum(answer.square().mean() for answer in wide.dense(pixels))
    torch.autograd.backward(loss)
    new = wide.get_submodule("descriptor_decoder.conv_descriptor_b").weight.grad[:, 24:]
    assert new.abs().max() > 0, "new channels must be able to learn"


@pytest.mark.parametrize("widths", [((8, 8, 16, 8), 24, 16), ((8, 8, 16, 16), 24, 32)])
def test_a_network_fits_into_no_narrower_one_and_none_of_other_descriptors(
    widths: tuple[tuple[int, ...], int, int],
) -> None:
    encoder, head, length = widths
    other = TrainableSuperPoint(NetworkConfig(encoder, head, descriptor_decoder_dim=length))
    with pytest.raises(ConfigError, match="does not fit"):
        widen(trained_like().state_dict(), SMALL, other)


def test_frozen_blocks_keep_weights_and_statistics_while_the_others_learn() -> None:
    torch.manual_seed(0)
    network = TrainableSuperPoint(SMALL, frozen_blocks=2).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-2)
    answers = network.dense(torch.rand(2, 1, 48, 64))
    torch.autograd.backward(sum(answer.square().mean() for answer in answers))
    optimiser.step()
    moved = {name for name, value in network.state_dict().items() if (value != before[name]).any()}
    frozen = ("encoder.conv_blocks.0", "encoder.conv_blocks.1",
              "norms.encoder_conv_blocks_0", "norms.encoder_conv_blocks_1")  # fmt: skip
    assert not {name for name in moved if name.startswith(frozen)}
    assert {name for name in before if not name.startswith(frozen)} == moved


def test_a_network_of_the_same_widths_gets_the_very_same_weights() -> None:
    state = trained_like().state_dict()
    copied = widen(state, SMALL, TrainableSuperPoint(SMALL))
    assert copied.keys() == state.keys()
    assert all(torch.equal(copied[name], state[name]) for name in state)


def test_widening_changes_neither_network() -> None:
    narrow, wide = trained_like(), TrainableSuperPoint(NetworkConfig((16, 16, 16, 16), 24, 65, 16))
    states = [{n: v.clone() for n, v in net.state_dict().items()} for net in (narrow, wide)]
    widen(narrow.state_dict(), SMALL, wide)
    for network, before in zip((narrow, wide), states, strict=True):
        assert all(torch.equal(value, before[n]) for n, value in network.state_dict().items())


def test_folding_does_not_change_the_network() -> None:
    state = trained_like().state_dict()
    before = {name: value.clone() for name, value in state.items()}
    fold(state, SMALL)
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_frozen_norms_stay_in_evaluation_mode() -> None:
    network = TrainableSuperPoint(SMALL, frozen_blocks=1).train()
    modes = {name: norm.training for name, norm in network.norms.items()}
    assert [name for name, training in modes.items() if not training] == [
        "encoder_conv_blocks_0_conv_a",
        "encoder_conv_blocks_0_conv_b",
    ]
    assert not any(norm.training for norm in network.eval().norms.values())


@pytest.mark.parametrize("batch_norm", [True, False])
def test_every_layer_with_a_relu_has_a_norm_or_none_has(batch_norm: bool) -> None:
    network = TrainableSuperPoint(SMALL, batch_norm=batch_norm)
    relus = sum(layer.relu for layer in SMALL.layers())
    assert len(network.norms) == (relus if batch_norm else 0)
    biased = sum(name.endswith(".bias") for name, _ in network.named_parameters())
    assert biased == 12  # of 12 layers: each has a bias, its norm's or its own
