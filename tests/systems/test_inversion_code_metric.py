"""Errors in codes count by what they change: where that is known, the metric finds it."""

from typing import Any

import torch
from torch import Tensor, nn

from unflat.geometry import Camera, orbit_pose
from unflat.systems.gan.generator import Generator, Made
from unflat.systems.inversion.code_metric import code_metric


class Painter(Generator):
    """Codes of three numbers: the first sets the brightness of four pixels, the second a ninth as
    much, the third nothing."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.latent_dim, self.scale = 3, 1
        self.body = nn.Module()
        self.body.codes = 2  # pyright: ignore[reportAttributeAccessIssue]

    def codes(self, latents: Tensor) -> Tensor:
        spread = torch.tensor([1.0, 3.0, 2.0])
        return (latents * spread)[:, None].expand(-1, 2, -1)

    def form(self, codes: Tensor) -> Tensor:
        return codes

    def picture(self, form: Tensor, codes: Tensor, camera: Camera, side: int, **how: Any) -> Made:
        count = len(camera.intrinsics)
        image = torch.zeros(count, 3, side, side)
        shown = codes.mean(1)
        image[:, 0, :2, :2] = (shown[:, :1] + shown[:, 1:2] / 3)[..., None]
        opacity = torch.ones(count, 1, side, side)
        return Made(image, image, opacity, torch.zeros(count, side, side))


def test_the_metric_is_that_of_the_pictures() -> None:
    camera = Camera.from_fov(0.8, orbit_pose(0.2, torch.arange(5.0), 1.3))
    painter: Any = Painter()
    root = code_metric(painter, camera, draws=4096)
    metric = root.mT @ root
    # J'J is (1, 1/3, 0)'(1, 1/3, 0) times 4; with a spread of (1, 9, 4) an error counts 1 in all
    row = torch.tensor([1.0, 1 / 3, 0.0])
    changes = torch.outer(row, row)
    spread = torch.diag(torch.tensor([1.0, 9.0, 4.0]))
    expected = 0.9 * changes / (changes @ spread).trace() + 0.1 * torch.eye(3) / spread.trace()
    torch.testing.assert_close(metric, expected, atol=0.03, rtol=0)
    latents = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(1))
    errors = painter.codes(latents)[:, 0]
    assert abs(float((errors @ root.mT).square().sum(1).mean()) - 1) < 0.05
