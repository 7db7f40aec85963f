import pytest
import torch
from torch import nn

from unflat.losses import PathLength, path_lengths


def test_lengths_of_a_linear_map_are_its_transpose_times_the_noise(generator):
    """planes = A w_0 + B w_1, palette = C w_1: every derivative is a matrix."""
    planes_of = torch.randn(2, 3, 4, 5, 6, 7, generator=generator).double()  # codes planes... style
    palette_of = torch.randn(10, 3, 7, generator=generator).double()
    codes = torch.randn(3, 2, 7, generator=generator).double().requires_grad_()
    planes = torch.einsum("kpchws,bks->bpchw", planes_of, codes)
    palette = torch.einsum("ncs,bs->bnc", palette_of, codes[:, 1])
    noise = torch.randn(planes.shape, generator=generator).double()
    palette_noise = torch.randn(palette.shape, generator=generator).double()
    lengths = path_lengths(codes, planes, noise, palette, palette_noise)
    for b in range(3):
        first = torch.einsum("pchws,pchw->s", planes_of[0], noise[b]) / 30**0.5
        second = torch.einsum("pchws,pchw->s", planes_of[1], noise[b]) / 30**0.5
        second = second + torch.einsum("ncs,nc->s", palette_of, palette_noise[b])
        expected = ((first @ first + second @ second) / 2).sqrt()
        torch.testing.assert_close(lengths[b], expected)


def test_an_image_has_lengths_as_well_and_they_can_be_minimized(generator):
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3 * 5 * 5)).double()
    codes = torch.randn(2, 1, 4, generator=generator).double().requires_grad_()
    noise = torch.randn(2, 3, 5, 5, generator=generator).double()

    def lengths() -> torch.Tensor:
        return path_lengths(codes, network(codes[:, 0]).view(2, 3, 5, 5), noise)

    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    before = float(lengths().detach().mean())
    for _ in range(30):
        optimizer.zero_grad()
        lengths().square().mean().backward()
        optimizer.step()
    assert float(lengths().detach().mean()) < 0.7 * before


def test_the_mean_holds_this_step_already_and_moves_by_a_hundredth():
    penalty = PathLength()
    expected_mean = 0.0
    for lengths in (torch.tensor([2.0, 4.0]), torch.tensor([1.0, 5.0]), torch.tensor([8.0, 6.0])):
        expected_mean += 0.01 * (float(lengths.mean()) - expected_mean)
        asked = lengths.clone().requires_grad_()
        value = penalty(asked)
        torch.testing.assert_close(value, (lengths - expected_mean).square())
        value.sum().backward()
        assert asked.grad is not None
        torch.testing.assert_close(asked.grad, 2 * (lengths - expected_mean))
        penalty.after_step()
        assert float(penalty.average) == pytest.approx(expected_mean)
    penalty.after_step()
    assert float(penalty.average) == pytest.approx(expected_mean), "a lazy step changes nothing"


def test_a_batch_in_parts_moves_the_mean_as_the_whole_does():
    whole, parts = PathLength(), PathLength()
    lengths = torch.tensor([2.0, 4.0, 9.0, 1.0])
    whole(lengths)
    parts(lengths[:2])
    parts(lengths[2:])
    for each in (whole, parts):
        each.after_step()
    torch.testing.assert_close(whole.average, parts.average)
    assert float(whole.average) == pytest.approx(0.04)
    assert set(whole.state_dict()) == {"average", "seen"}


def test_a_palette_without_noise_is_refused():
    codes = torch.zeros(1, 1, 2, requires_grad=True)
    picture = codes.sum().expand(1, 1, 2, 2)
    with pytest.raises(ValueError, match="both or not at all"):
        path_lengths(codes, picture, picture.detach(), palette=codes)
