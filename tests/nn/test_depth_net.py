import pytest
import torch
from torch import nn

from unflat.nn.depth_net import DepthNet, laplace_loss


def net(**known: int) -> DepthNet:
    torch.manual_seed(0)
    return DepthNet((8, 12, 32), 1, side=32, **known)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (40, 24)])
@torch.no_grad()
def test_sizes_that_are_multiples_of_eight(size):
    guess = net()(torch.rand(2, 3, *size))
    assert all(part.shape == (2, 1, *size) for part in guess)
    assert bool((guess.spread > 0.005).all())
    assert bool((guess.softness > 0.0025).all())
    assert float((guess.disparity - 0.5).abs().max()) < 0.1  # it begins as a plain half


@torch.no_grad()
def test_every_pixel_can_follow_the_whole_picture():
    """The transformer at the bottom: a change in one corner is seen in the other."""
    model, image = net(), torch.rand(1, 3, 32, 32)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=0.2)
    changed = image.clone()
    changed[..., :8, :8] = 1 - changed[..., :8, :8]
    apart = (model(image).disparity - model(changed).disparity).abs()
    assert float(apart[..., -8:, -8:].min()) > 0


@torch.no_grad()
def test_what_is_known_is_the_start():
    model, known = net(known=1, context=6), torch.rand(1, 1, 32, 32)
    nn.init.zeros_(model.leave.weight)
    context = torch.randn(1, 16, 6)
    guess = model(torch.rand(1, 3, 32, 32), known, context)
    torch.testing.assert_close(guess.disparity, known)


def test_it_learns_which_way_is_near():
    """Bright is near: a net that saw nothing, or shuffled answers, cannot know."""

    def error(shuffled: bool) -> float:
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        generator = torch.Generator().manual_seed(1)
        for _ in range(60):
            depth = torch.rand(8, 1, 4, 4, generator=generator)
            depth = nn.functional.interpolate(depth, (32, 32), mode="nearest")
            image = depth.expand(-1, 3, -1, -1)
            target = depth.flip(0) if shuffled else depth
            loss = laplace_loss(model(image), target).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float((model(image).disparity - depth).abs().mean().detach())

    assert error(shuffled=False) < 0.1 < 0.15 < error(shuffled=True)
