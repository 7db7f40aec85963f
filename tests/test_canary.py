"""Proves that shapes in types are checked while testing; else every annotation is a wish."""

import pytest
import torch
from jaxtyping import TypeCheckError

from unflat.geometry.camera import Camera


def test_a_wrong_shape_is_refused() -> None:
    camera = Camera.from_fov(1.0)
    points = torch.zeros(5, 2)
    with pytest.raises(TypeCheckError):
        camera.project(points)


def test_a_wrong_dtype_is_refused() -> None:
    camera = Camera.from_fov(1.0)
    points = torch.zeros(5, 3, dtype=torch.int64)
    with pytest.raises(TypeCheckError):
        camera.project(points)
