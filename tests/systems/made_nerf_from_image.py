"""nerf-from-image's generators with weights by rule, and what the published code gave for them."""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seeded import FIXTURES, seeded, seeded_state
from unflat.geometry import Camera
from unflat.geometry.published_frames import NerfFromImageCamera, from_nerf_from_image, full_box
from unflat.systems.gan.generator import Form, Generator
from unflat.systems.gan.published.nerf_from_image import (
    DATA_SETS,
    Config,
    build,
    generator_from_published,
)

NAMES = {"p3d": "p3d_car", "carla": "carla", "cub": "cub", "srn": "shapenet_cars"}


class Made(NamedTuple):
    expected: dict[str, Tensor]
    config: Config
    generator: Generator
    codes: Tensor
    form: Form


@cache
def published_state(with_view: bool = False) -> dict[str, Tensor]:
    return seeded_state(FIXTURES / ("weights_with_view.json" if with_view else "weights.json"))


def expected_arrays(path) -> dict[str, Tensor]:
    with np.load(path) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive}


@cache
def made(case: str) -> Made:
    expected = expected_arrays(FIXTURES / f"{case}.npz")
    return ready(expected, case, published_state(case == "carla"))


def ready(expected: dict[str, Tensor], case: str, state: dict[str, Tensor]) -> Made:
    config, weights = generator_from_published(state, DATA_SETS[NAMES[case]])
    generator = build(config, weights)
    offsets = seeded("input.w_offset", (2, generator.body.codes, 512))
    codes = expected["w"][:, None] + 0.15 * offsets  # another for each layer
    return Made(expected, config, generator, codes, generator.form(codes))


def camera_of(expected: dict[str, Tensor], side: int, box: Tensor | None = None) -> Camera:
    pose = expected["cam2world"]
    box = full_box(pose).expand(2, 2, 2) if box is None else box
    return from_nerf_from_image(NerfFromImageCamera(pose, expected.get("focal"), box), side, side)


def close(got: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance, check_dtype=False)


def last(maps: Tensor) -> Tensor:
    """Channels last, as the published code has them."""
    return maps.permute(0, 2, 3, 1)
