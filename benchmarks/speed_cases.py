"""The things that benchmarks/speed.py measures, each prepared by its name.

A name is words with colons: ``tokens:64`` renders a 64 px picture from tokens.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.eg3d import Eg3dRenderer
from unflat.data.prepare import prepare_picture
from unflat.fields.detail import DetailField
from unflat.fields.viewspace import ViewSpaceField, ray_limits
from unflat.geometry.camera import Camera
from unflat.geometry.trajectory import orbit
from unflat.hub import example_picture, is_here
from unflat.rendering.render import RenderOptions, render
from unflat.scene import Scene, SceneHeader
from unflat.systems.vq3d import (
    PRESETS,
    Autoencoder,
    Config,
    build,
    detail_field,
    render_canonical,
    token_field,
)

SAMPLES = 48
ANGLE = math.radians(10)  # of the camera that is not the canonical one
FRAMES = 12  # of an orbit whose time is shared by its frames
REFERENCE_CHUNK = 1024  # rays at once, of the reference that is not asked all at once
Work = Callable[[], Any]


def configuration(size: str) -> Config:
    """The preset of a size; `bundle128` at 256 px, and the paper's with few blocks."""
    if size == "256":
        return replace(PRESETS["bundle128"](), resolution=256, plane_resolution=256)
    if size == "paper":
        return replace(PRESETS["paper"](), encoder_depth=2, decoder_depth=2)
    return PRESETS[{"64": "small", "128": "bundle128"}[size]]()


def prepare(name: str) -> Work:
    """What to call for a case; all that is not to be timed has been done."""
    kind, *rest = name.split(":")
    return _KINDS[kind](*rest)


def parts(name: str) -> int:
    """How many pictures one call of the work makes."""
    return FRAMES if name.startswith("layers") else 1


def available(name: str) -> bool:
    """Whether the case can be measured in this checkout."""
    return not name.startswith("reconstruct") or is_here("vq3d-small")


def _network(size: str) -> tuple[Autoencoder, Tensor]:
    """An untrained model, and the example picture at its resolution."""
    torch.manual_seed(0)
    model = build(configuration(size)).eval()
    return model, prepare_picture(example_picture(), model.config.resolution).model_image[None]


def _encode(size: str) -> Work:
    model, image = _network(size)
    return torch.no_grad()(lambda: model.encode(image))


def _decode(size: str) -> Work:
    model, image = _network(size)
    with torch.no_grad():
        tokens = model.encode(image).quantized.tokens
    return torch.no_grad()(lambda: model.decode(tokens))


def _fields(size: str, side: int) -> tuple[ViewSpaceField, DetailField]:
    model, image = _network(size)
    photo = prepare_picture(example_picture(), model.config.resolution).image[None]
    photo = functional.interpolate(photo, (side, side), mode="area")
    with torch.no_grad():
        encoded = model.encode(image)
        base = token_field(model, encoded)
        assert isinstance(base, ViewSpaceField)
        return base, detail_field(model, encoded, image, photo)


def _canonical(size: str, samples: str = str(SAMPLES)) -> Work:
    base, _ = _fields(size, 64)
    return lambda: render_canonical(base, int(size), int(samples))


def _marched(mode: str) -> Callable[..., Work]:
    def prepared(size: str, samples: str = str(SAMPLES), light: str = "ends") -> Work:
        """Through the field, from the side; ``light`` = all follows every ray to its end."""
        side = int(size)
        chosen = _fields(size, side)[mode == "detail"]
        return _view(chosen, side, int(samples), light)

    return prepared


def _scaling(rays: str, samples: str) -> Work:
    """The same 64 px planes at any number of rays, all followed to the end."""
    return _view(_fields("64", 64)[0], math.isqrt(int(rays)), int(samples), "all")


def _view(field: ViewSpaceField | DetailField, side: int, samples: int, light: str) -> Work:
    near, far = ray_limits(field.frame)
    options = RenderOptions(samples=samples, near=near, far=far)
    if light == "all":
        options = replace(options, least_light=0.0)
    half = field.frame.focal_true / 2
    pose = orbit(4, ANGLE, 2.0)[1:2]
    camera = Camera(camera_to_world=pose, intrinsics=torch.tensor([[half, half, 0.5, 0.5]]))
    return lambda: render(field, camera, side, side, options)


def _layers(size: str) -> Work:
    side = int(size)
    _, detail = _fields(size if size in ("64", "128", "256") else "64", side)
    scene = Scene(detail, SceneHeader(system="vq3d", model="untrained"))
    return lambda: scene.orbit(frames=FRAMES, size=(side, side))


def _paper(samples: str = str(SAMPLES)) -> Work:
    """Tri-planes in contracted space."""
    model, image = _network("paper")
    with torch.no_grad():
        field = token_field(model, model.encode(image))
    near, far = ray_limits(field.frame)
    options = RenderOptions(samples=int(samples), near=near, far=far)
    half = field.frame.focal_true / 2
    pose = orbit(4, ANGLE, 2.0)[1:2]
    camera = Camera(camera_to_world=pose, intrinsics=torch.tensor([[half, half, 0.5, 0.5]]))
    return lambda: render(field, camera, 256, 256, options)


def _eg3d(size: str, how: str = "whole", fine: str = str(SAMPLES)) -> Work:
    torch.manual_seed(0)
    side = int(size)
    renderer = Eg3dRenderer()
    planes = torch.randn(3, 32, side, side)
    chunk = REFERENCE_CHUNK if how == "chunked" else None
    return lambda: renderer(planes, side, SAMPLES, int(fine), chunk)


def _reconstruct(mode: str) -> Work:
    """The bundled picture with the bundled model, its file read anew every time."""
    from unflat import reconstruct

    return lambda: reconstruct(example_picture(), model="vq3d-small", detail=mode == "detail")


def _result(frames: str) -> Work:
    """The same with an orbit, written to a file."""
    import tempfile

    from unflat import reconstruct

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            scene = reconstruct(example_picture(), model="vq3d-small")
            scene.save(Path(folder) / "scene.safetensors")
            scene.orbit(frames=int(frames)).save(Path(folder) / "orbit.webp")

    return work


_KINDS: dict[str, Callable[..., Work]] = {
    "encode": _encode,
    "decode": _decode,
    "canonical": _canonical,
    "tokens": _marched("tokens"),
    "detail": _marched("detail"),
    "scaling": _scaling,
    "layers": _layers,
    "paper": _paper,
    "eg3d": _eg3d,
    "reconstruct": _reconstruct,
    "reconstruct_orbit": _result,
}
