import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from unflat.systems.inversion import PRESETS, Config, Encoder, ObjectGuess, build
from unflat.systems.inversion.encoder import tiny


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_goes_to_json_and_back(name: str) -> None:
    config = PRESETS[name]()
    assert Config.from_json(json.loads(json.dumps(asdict(config)))) == config
    with torch.device("meta"):
        encoder = build(config)
        guess = encoder(torch.zeros(2, 3, 32, 48))
    assert guess.points.shape == (2, 3, 32, 48)
    assert guess.opacity.shape == (2, 1, 32, 48)
    assert guess.w.shape == (2, config.style_dim)
    assert (guess.log_scale is not None) == config.has_confidence


def test_sizes_of_presets() -> None:
    def count(name: str) -> int:
        with torch.device("meta"):
            return sum(weight.numel() for weight in build(PRESETS[name]()).parameters())

    assert count("paper") == 92_609_476
    assert 1.5e6 < count("small") < 3e6


def made(seed: int = 0, **changes) -> Encoder:
    torch.manual_seed(seed)
    return build(replace(tiny(), **changes)).eval()


def test_sides_that_cells_do_not_divide() -> None:
    encoder = made().double()
    image = torch.rand(2, 3, 21, 34, dtype=torch.float64)
    guess = encoder(image)
    assert guess.points.shape == (2, 3, 21, 34)
    assert ((guess.opacity > 0) & (guess.opacity < 1)).all()
    torch.testing.assert_close(encoder(image[1:]).w, guess.w[1:])


def test_codes_end_as_the_mapping_network_does() -> None:
    """Leaky: what is negative before the last activation counts a fifth."""
    encoder = made()
    image = torch.rand(3, 3, 16, 16)
    before = []
    encoder.code_head.last.register_forward_hook(lambda *given: before.append(given[2]))
    found = encoder(image).w
    assert (before[0] < 0).any()
    torch.testing.assert_close(found, torch.where(before[0] < 0, 0.2 * before[0], before[0]))


def test_gray_is_zero_inside() -> None:
    """The network sees pictures in [-1, 1]: at its first layer mid gray leaves the bias alone."""
    encoder = made()
    seen = []
    layer = encoder.trunk.backbone.stages[0].embed
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    encoder(torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8))
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor([-1.0, 0.0, 1.0]))


def test_confidence_is_a_channel_more() -> None:
    with_it, without = made(), made(has_confidence=False)
    state = with_it.state_dict()
    for part in ("weight", "bias"):
        state[f"map_head.last.{part}"] = state[f"map_head.last.{part}"][:4]
    without.load_state_dict(state)
    image = torch.rand(1, 3, 16, 16)
    sure, plain = with_it(image), without(image)
    torch.testing.assert_close(sure.points, plain.points)
    torch.testing.assert_close(sure.opacity, plain.opacity)
    assert plain.log_scale is None
    assert sure.log_scale is not None
    assert float(sure.log_scale.detach().exp().mean()) == pytest.approx(
        0.1, rel=0.3
    )  # before any training


def test_a_code_of_its_own_network() -> None:
    encoder = made(is_separate=True)
    image = torch.rand(1, 3, 16, 16)
    before = encoder(image)
    for weight in encoder.code_trunk.parameters():
        torch.nn.init.zeros_(weight)
    after = encoder(image)
    torch.testing.assert_close(after.points, before.points)
    assert (after.w - before.w).abs().max() > 1e-4


_MIX = torch.randn(3, 8, generator=torch.Generator().manual_seed(7))


def discs(count: int, seed: int) -> tuple[Tensor, ObjectGuess]:
    """Discs of some tint whose shades tell places on them, and the right answers."""
    draw = torch.Generator().manual_seed(seed)
    center = 6 + 12 * torch.rand(count, 2, 1, 1, generator=draw)
    radius = 4 + 3 * torch.rand(count, 1, 1, 1, generator=draw)
    tint = torch.rand(count, 3, 1, 1, generator=draw)
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    local = (torch.stack([columns, rows]) - center) / radius
    inside = (local.norm(dim=1, keepdim=True) < 1).float()
    points = torch.cat([local, 1 - local.norm(dim=1, keepdim=True)], dim=1)
    color = 0.15 + 0.7 * tint + 0.15 * points
    image = (color * inside + 1 - inside).clamp(0, 1)
    return image, ObjectGuess(points, inside, (tint[:, :, 0, 0] - 0.5) @ _MIX, None)


def errors(guess: ObjectGuess, target: ObjectGuess) -> tuple[Tensor, Tensor, Tensor]:
    """Of the map where the object is, of opacity, of the code."""
    away = (guess.points - target.points).norm(dim=1, keepdim=True)
    return (
        (away * target.opacity).sum() / target.opacity.sum(),
        (guess.opacity - target.opacity).abs().mean(),
        (guess.w - target.w).square().mean(),
    )


def learned(steps: int, shuffled: bool = False) -> list[float]:
    """Errors on new pictures after some steps."""
    encoder = made(style_dim=8).train()
    optimizer = torch.optim.Adam(encoder.parameters(), 3e-3)
    for step in range(steps):
        image, target = discs(8, step)
        guess = encoder(image.roll(1, 0) if shuffled else image)
        away, _, code = errors(guess, target)
        # Absolute errors of opacity are least where it is 0 everywhere, as long as little is known.
        told = functional.binary_cross_entropy(guess.opacity, target.opacity)
        optimizer.zero_grad()
        (away + told + 4 * code).backward()
        optimizer.step()
    image, target = discs(64, 10_000)
    with torch.no_grad():
        return [float(each) for each in errors(encoder.eval()(image), target)]


@pytest.mark.slow
def test_it_learns_where_pixels_are_what_is_object_and_its_code() -> None:
    bounds = [0.25, 0.045, 0.14]
    found = learned(160)
    assert all(error < bound for error, bound in zip(found, bounds, strict=True)), found
    for other in (learned(0), learned(40, shuffled=True)):
        assert all(error > 1.4 * bound for error, bound in zip(other, bounds, strict=True)), other
