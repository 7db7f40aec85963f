import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from unflat.losses import play
from unflat.nn.coord_critic import CoordCritic, with_coordinates


def critic(side: int = 16, start_side: int = 4, **options) -> CoordCritic:
    torch.manual_seed(0)
    return CoordCritic(side, start_side, base=64, widest=12, **options)


def pictures(count: int, side: int, seed: int = 0, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, side, side, generator=generator)


def test_coordinates_go_from_corner_to_corner():
    out = with_coordinates(torch.zeros(2, 1, 3, 5))
    assert out.shape == (2, 3, 3, 5)
    for b in range(2):
        for row in range(3):
            for column in range(5):
                assert out[b, :, row, column].tolist() == [0, column / 2 - 1, row - 1]


def slow_block(block: torch.nn.Module, maps: Tensor) -> Tensor:
    """Two convolutions with coordinates, pooled, beside the pooled input; by hand."""
    size = maps.shape[-1]
    line = torch.linspace(-1, 1, size, dtype=maps.dtype)
    column = line.expand(len(maps), 1, size, size)
    deep = maps
    for name in ("first", "second"):
        layer = getattr(block, name)
        deep = torch.cat([deep, column, column.mT], dim=1)
        deep = functional.conv2d(deep, layer.weight, layer.bias, padding=1)
        deep = torch.where(deep > 0, deep, 0.2 * deep)

    def halved(image: Tensor) -> Tensor:
        return image.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))

    skip = getattr(block, "skip")  # noqa: B009  (not a tensor, and no type tells so)
    beside = halved(maps)
    if not isinstance(skip, torch.nn.Identity):
        beside = torch.einsum("oi,bihw->bohw", skip.weight[:, :, 0, 0], beside)
        beside = beside + skip.bias[:, None, None]
    return (halved(deep) + beside) / math.sqrt(2)


@pytest.mark.parametrize("side", [4, 8, 16])
def test_it_is_the_formula_at_every_side(side):
    network, images = critic().double(), pictures(2, side).double()
    level = {16: 0, 8: 1, 4: 2}[side]
    enter = network.enter[level]
    assert isinstance(enter, torch.nn.Conv2d)
    maps = torch.einsum("oi,bihw->bohw", enter.weight[:, :, 0, 0], images)
    maps = functional.leaky_relu(maps + enter.bias[:, None, None], 0.2)
    for block in network.blocks[level:]:
        maps = slow_block(block, maps)
    assert maps.shape[-2:] == (2, 2)
    told = torch.einsum("oihw,bihw->bo", network.leave.weight, maps) + network.leave.bias
    logits, pose = network(images)
    torch.testing.assert_close(logits, told[:, 0])
    torch.testing.assert_close(pose, told[:, 1:])
    assert pose.shape == (2, 2)


def test_a_side_is_faded_in_from_the_one_below():
    network, images = critic(), pictures(2, 16)
    below = network(functional.avg_pool2d(images, 2))
    at_first, at_last = network(images, fade=0.0), network(images)
    for first, small in zip(at_first, below, strict=True):
        torch.testing.assert_close(first, small)
    assert float((at_last[0] - at_first[0]).detach().abs().min()) > 1e-3
    near = network(images, fade=1 - 1e-5)
    torch.testing.assert_close(near[0], at_last[0], atol=1e-4, rtol=1e-4)


def test_features_double_as_published():
    network = CoordCritic(512, 32)
    assert network.sides == (512, 256, 128, 64, 32)
    widths = [block.second.out_channels for block in network.blocks]
    assert widths == [32, 64, 128, 256, 400, 400, 400, 400]
    assert [layer.out_channels for layer in network.enter] == [16, 32, 64, 128, 256]
    first = network.blocks[4].first.weight.detach()  # 256 and 2 enter
    kaiming = math.sqrt(2 / (1 + 0.2**2) / (258 * 9))
    assert float(first.std()) == pytest.approx(kaiming, rel=0.02)


def test_what_it_is_given_changes_the_logit_and_not_the_pose():
    network = critic(condition_dim=3, pose_dim=1)
    images, condition = pictures(2, 8), torch.eye(3)[:2]
    logits, pose = network(images, condition)
    assert network.mapping is not None
    other_logits, other_pose = network(images, condition.roll(1, 0))
    assert torch.equal(pose, other_pose)
    assert float((logits - other_logits).detach().abs().min()) > 1e-4
    with pytest.raises(ValueError, match="condition"):
        network(images)


def test_without_a_pose_it_tells_none():
    logits, pose = critic(pose_dim=0)(pictures(3, 4))
    assert logits.shape == (3,)
    assert pose.shape == (3, 0)


def test_sides_that_do_not_fit_are_refused():
    for side in (2, 24, 0):
        with pytest.raises(ValueError, match=f"side is {side}"):
            CoordCritic(side)
    with pytest.raises(ValueError, match="start_side is 32, more than the side 16"):
        CoordCritic(16, 32)
    network = critic(16, 8)
    with pytest.raises(ValueError, match=r"side \(16, 8\) are judged"):
        network(pictures(1, 4))
    with pytest.raises(ValueError, match=r"fade is 0\.5 at side 8"):
        network(pictures(1, 8), fade=0.5)


def test_a_round_of_the_game_reaches_every_weight_of_its_side():
    network = critic()
    real, fake, pose = pictures(4, 8), pictures(4, 8, seed=1), torch.zeros(4, 2)
    judged = play(
        lambda images: network(images, fade=0.5), real, fake, 1.0, fake_pose=pose, pose_weight=15.0
    )
    judged.critic.mean().backward()
    untouched = {name for name, weight in network.named_parameters() if weight.grad is None}
    assert untouched == {
        name for name, _ in network.named_parameters() if name.startswith(("enter.0.", "blocks.0."))
    }
    assert float(judged.slope.abs().sum()) > 0


def test_it_learns_where_a_dot_is():
    """Its coordinates tell it; without coordinates convolutions and pooling could hardly."""
    network = CoordCritic(8, base=64, widest=16)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    line = torch.linspace(-1, 1, 8)

    def error() -> Tensor:
        place = 1.4 * torch.rand(32, 2, generator=generator) - 0.7
        across = (line - place[:, :1]).square()[:, None, :]
        down = (line - place[:, 1:]).square()[:, :, None]
        dot = torch.exp(-(across + down) / 0.1)[:, None].expand(-1, 3, -1, -1)
        return (network(dot)[1] - place).square().mean()

    before = float(error().detach())
    for _ in range(70):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    after = float(torch.stack([error().detach() for _ in range(4)]).mean())
    assert before > 0.1  # the mean square of the place itself is 0.16
    assert after < 0.01
