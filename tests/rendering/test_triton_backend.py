"""The Triton backend against the plain torch reference.

On a CUDA device the tests that march run there. Everywhere else they run in Triton's interpreter,
in a process of its own: it must be chosen before Triton is imported.
"""

import math
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from unflat.errors import UserError
from unflat.fields import FeatureDecoder, FieldOutput, TriplaneField
from unflat.geometry import Camera
from unflat.rendering import RenderOptions, backends, render, render_rays
from unflat.rendering.backends import REFERENCE, Marching, Rays
from unflat.rendering.backends.triton.backend import Triton, interpreted
from unflat.rendering.occupancy import OccupancyGrid

pytest.importorskip("triton")

DEVICE = "cpu" if interpreted() else "cuda"
marches = pytest.mark.gpu if DEVICE == "cuda" else lambda test: test

OPEN = Marching(opaque_last=False)
ENDING = Marching(opaque_last=False, least_light=0.5, block=2)
BOX = torch.tensor([[-1.0, -1.2, 1.0], [1.0, 1.1, 4.0]])


@pytest.mark.slow
@pytest.mark.skipif(interpreted(), reason="this is the child")
def test_everything_that_marches_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert " 0 passed" not in done.stdout


def field(
    channels=16, hidden=16, out=3, size=(7, 9), bounds=BOX, batch=1, dtype=torch.float32
) -> TriplaneField:
    """Random planes in which light gets some way."""
    torch.manual_seed(channels + hidden)
    planes = nn.Parameter(2 * torch.randn(batch, 3, channels, *size).to(dtype))
    made = TriplaneField(planes, FeatureDecoder(channels, hidden, out), bounds)
    return made.to(DEVICE)


def rays(batch=1, count=21, n=4, given_lengths=False) -> Rays:
    """Some miss the box; distances of other rays and intervals differ."""
    generator = torch.Generator().manual_seed(count + n)
    origins = 0.2 * torch.randn(batch, count, 3, generator=generator)
    directions = 0.4 * torch.randn(batch, count, 3, generator=generator)
    directions = nn.functional.normalize(directions + torch.tensor([0.0, 0.0, 1.0]), dim=-1)
    edges = 0.5 + 4 * torch.rand(batch, count, n + 1, generator=generator).sort(-1).values
    lengths = torch.rand(batch, count, n, generator=generator) if given_lengths else None
    return Rays(
        *(None if t is None else t.to(DEVICE) for t in (origins, directions, edges, lengths))
    )


def compare(made: TriplaneField, along: Rays, how: Marching) -> None:
    """Values to 1e-4 and gradients of everything to 1e-3, both of them really moving."""
    along = along._replace(
        origins=along.origins.clone().requires_grad_(),
        directions=along.directions.clone().requires_grad_(),
        lengths=None if along.lengths is None else along.lengths.clone().requires_grad_(),
    )
    learned = [*made.parameters(), along.origins, along.directions]
    learned += [] if along.lengths is None else [along.lengths]
    results = []
    for backend in (REFERENCE, Triton()):
        assert backend.refuses(made, along) is None
        features, weights = backend.march(made, along, how)
        torch.manual_seed(0)
        loss = (features * torch.randn_like(features)).sum()
        loss = loss + (weights * torch.randn_like(weights)).sum()
        results.append((features, weights, torch.autograd.grad(loss, learned)))
    (features, weights, grads), (fused_features, fused_weights, fused_grads) = results
    assert features.std() > 0.02
    assert weights.std() > 0.02
    torch.testing.assert_close(fused_features, features, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fused_weights, weights, atol=1e-5, rtol=1e-5)
    for one, two in zip(grads, fused_grads, strict=True):
        assert one.norm() > 1e-3
        assert (one - two).norm() < 1e-4 * one.norm()


@marches
@pytest.mark.parametrize(
    ("sizes", "count", "n", "how", "given_lengths"),
    [
        # as wide as EG3D's planes; two programs; a box
        ({"channels": 32, "hidden": 32}, 33, 2, Marching(), False),
        # nothing is a power of two, and planes are not square
        ({"channels": 11, "hidden": 23, "out": 17, "size": (5, 12)}, 3, 2, Marching(), False),
        # all of space, contracted; lengths of another space; rays end early, or let light pass
        ({"bounds": None, "batch": 2}, 5, 3, ENDING, True),
        # one of everything
        ({"channels": 1, "hidden": 1, "out": 1, "size": (1, 2)}, 2, 1, OPEN, False),
    ],
    ids=["box", "odd", "space", "ones"],
)  # fmt: skip
def test_values_and_gradients_are_the_references(sizes, count, n, how, given_lengths):
    made = field(**sizes)
    compare(made, rays(len(made.planes), count, n, given_lengths), how)


@marches
@pytest.mark.parametrize(("scenes", "empty_outside"), [(1, True), (2, False)])
def test_a_grid_says_where_matter_may_be(scenes, empty_outside):
    """Half of its cells hold matter; its box is smaller than where rays go."""
    generator = torch.Generator().manual_seed(3)
    cells = (torch.rand(scenes, 2, 3, 4, generator=generator) > 0.5).to(torch.uint8).to(DEVICE)
    box = torch.tensor([[-0.7, -1.0, 1.2], [0.8, 0.9, 3.5]], device=DEVICE)
    grid = OccupancyGrid(cells=cells, bounds=box, empty_outside=empty_outside)
    made, along = field(bounds=None, batch=2), rays(2, 9, 3)
    without = REFERENCE.march(made, along, Marching()).weights
    how = Marching(opaque_last=scenes == 1, occupancy=grid)
    assert (REFERENCE.march(made, along, how).weights - without).abs().max() > 0.1
    compare(made, along, how)
    if scenes == 2:
        with pytest.raises(ValueError, match="grid of 2 scenes for 1"):
            Triton().march(field(), rays(), how)


@marches
def test_gradients_only_of_what_asks_for_them():
    made, along = field(), rays(count=3, n=2)
    made.planes.requires_grad_(False)
    with torch.no_grad():
        assert not Triton().march(made, along, Marching()).features.requires_grad
    features, _ = Triton().march(made, along, Marching())
    features.sum().backward()
    assert made.planes.grad is None
    assert made.decoder.into.weight.grad.abs().sum() > 0
    made.decoder.requires_grad_(False)
    assert not Triton().march(made, along, Marching()).weights.requires_grad


@marches
def test_a_second_derivative_is_refused_in_words():
    made = field()
    features, _ = Triton().march(made, rays(count=2, n=2), Marching())
    (first,) = torch.autograd.grad(features.square().sum(), made.planes, create_graph=True)
    assert first.abs().sum() > 0
    with pytest.raises(NotImplementedError, match=r'backends\.use\("reference"\)'):
        first.square().sum().backward()


@marches
@pytest.mark.parametrize(
    ("kind", "side", "chunk"), [("perspective", 6, 10**6), ("orthographic", 4, 20)]
)
def test_pictures_are_the_references_whatever_the_chunk(kind, side, chunk, monkeypatch):
    """Two scenes whose rays end at different places: no ray of one is kept up by the other's."""
    monkeypatch.setattr(backends, "_fused", lambda device: [Triton()])
    seen = Camera(
        camera_to_world=torch.eye(4, device=DEVICE).repeat(2, 1, 1),
        intrinsics=torch.tensor([[0.9, 0.9, 0.5, 0.5]], device=DEVICE).repeat(2, 1),
        kind=kind,
    )
    made = field(batch=2)
    options = RenderOptions(
        samples=2,
        near=0.8,
        far=4.5,
        spacing="distance",
        opaque_last=False,
        background=(0.1, 0.5, 0.9),
        chunk=chunk,
        block=1,
        least_light=0.4,
    )
    with backends.use("reference"):
        expected = render(made, seen, side, side, options)
    assert expected.rgb.std() > 0.05
    assert expected.opacity.std() > 0.03
    with backends.use("fused"):
        found = render(made, seen, side, side, options)
    for name, one, two in zip(expected._fields, expected, found, strict=True):
        torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-4, msg=f"{kind}: {name}")


@marches
@pytest.mark.parametrize("asked", ["autocast", "planes"])
def test_bfloat16_planes_keep_45_decibels(asked):
    made, along = field(bounds=None), rays(count=16, n=2)
    expected = REFERENCE.march(made, along, Marching()).features
    if asked == "planes":
        made.planes = nn.Parameter(made.planes.detach().bfloat16())
    with torch.autocast(DEVICE, torch.bfloat16, enabled=asked == "autocast"):
        assert Triton().refuses(made, along) is None
        features, weights = Triton().march(made, along, Marching())
    assert features.dtype == weights.dtype == torch.float32
    error = (features - expected).square().mean().item()
    assert error > 0, "planes were not stored in bfloat16"
    assert -10 * math.log10(error) > 45
    features.square().sum().backward()
    assert made.planes.grad.dtype == made.planes.dtype
    halved = made.planes.grad.float()
    plain = field(bounds=None)
    REFERENCE.march(plain, along, Marching()).features.square().sum().backward()
    assert (halved - plain.planes.grad).norm() < 0.03 * plain.planes.grad.norm()


@marches
def test_no_rays_give_nothing():
    features, weights = Triton().march(field(), rays(count=0), Marching())
    assert features.shape == (1, 0, 3)
    assert weights.shape == (1, 0, 4)


# What it leaves to others


class Brighter(FeatureDecoder):
    pass


def refusal(made, along: Rays | None = None) -> str | None:
    return Triton().refuses(made, along or rays())


@marches
def test_it_takes_what_it_knows():
    assert refusal(field()) is None
    assert refusal(field(bounds=None)) is None


@marches
def test_what_it_does_not_know_is_refused_with_a_reason():
    def empty(points, directions=None) -> FieldOutput:
        return FieldOutput(points[..., 0], points)

    assert "TriplaneField" in refusal(empty)
    other = field()
    other.decoder = Brighter(16, 16).to(DEVICE)
    assert "Brighter" in refusal(other)
    assert "channels is 80" in refusal(field(channels=80))
    assert "hidden is 200" in refusal(field(hidden=200))
    assert "out is 65" in refusal(field(out=65))
    assert "weights is 18432, above 16384" in refusal(field(hidden=100, out=64))
    assert "float64" in refusal(field().double())
    along = rays()
    assert "float32" in refusal(field(), along._replace(origins=along.origins.bfloat16()))
    asks = along._replace(edges=along.edges.requires_grad_())
    assert "edges get no gradients" in refusal(field(), asks)
    with torch.no_grad():
        assert refusal(field(), asks) is None


@pytest.mark.skipif(interpreted(), reason="the interpreter takes any device")
def test_without_a_device_it_is_refused_and_the_reference_renders(monkeypatch):
    torch.manual_seed(0)
    made = TriplaneField(torch.randn(1, 3, 8, 4, 4), FeatureDecoder(8), BOX)
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(1, 5, 3, generator=generator)
    directions = nn.functional.normalize(torch.randn(1, 5, 3, generator=generator), dim=-1)
    edges = torch.linspace(1, 2, 4).expand(1, 5, 4)
    assert "CUDA device, not cpu" in refusal(made, Rays(origins, directions, edges))
    monkeypatch.setattr(backends, "_fused", lambda device: [Triton()])
    expected = REFERENCE.march(made, Rays(origins, directions, edges), Marching())
    found = render_rays(made, origins, directions, edges)
    assert torch.equal(found.features, expected.features)
    with backends.use("fused"), pytest.raises(UserError, match="triton: it needs a CUDA device"):
        render_rays(made, origins, directions, edges)


# Machine code


@pytest.mark.skipif(interpreted(), reason="the interpreter compiles nothing")
@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("forward", 80),
        ("backward", 90),
        pytest.param("forward", 90, marks=pytest.mark.slow),
        pytest.param("backward", 80, marks=pytest.mark.slow),
    ],
)
def test_kernels_compile_for_cards_that_are_not_here(name, capability, monkeypatch):
    """The interpreter forgives what a compiler does not: shapes, types, loops that change them."""
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # some versions warn where it is not set
    from triton import compile as compiled
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from unflat.rendering.backends.triton import kernels

    kernel = getattr(kernels, name)
    constants = {"CHANNELS": 12, "HIDDEN": 16, "OUT": 4, "C": 16, "H": 16, "K": 16, "R": 16}
    constants |= {"CONTRACTED": capability == 80, "LENGTHS": True, "OPAQUE_LAST": True, "BLOCK": 8}
    constants |= {"PRECISION": "tf32" if capability == 80 else "ieee"}
    constants |= {"CELLS": capability == 80, "EMPTY_OUTSIDE": True}
    constants |= {"OF_PLANES": True, "OF_DECODER": True, "OF_RAYS": True, "OF_LENGTHS": True}
    types = {"least_light": "fp32", "planes": "*bf16" if capability == 80 else "*fp32"}
    types["cells"] = "*u8"
    types |= dict.fromkeys(kernels.SIZES, "i32") | dict.fromkeys(constants, "constexpr")
    source = ASTSource(
        kernel,
        signature={argument: types.get(argument, "*fp32") for argument in kernel.arg_names},
        constexprs={
            (kernel.arg_names.index(k),): v for k, v in constants.items() if k in kernel.arg_names
        },
    )
    options = {"num_warps": 4, "num_stages": 1, "ptx_version": 84}
    code = compiled(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert f".target sm_{capability}" in code.asm["ptx"]
    assert ("red.global" in code.asm["ptx"] or "atom.global" in code.asm["ptx"]) == (
        name == "backward"
    )
    assert code.metadata.shared < 99 * 1024, "what the smallest of these cards gives a program"
