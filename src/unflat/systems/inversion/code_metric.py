"""How much errors in a code count: by what they change in pictures.

A generator's code has many numbers, and most of what they do is hardly seen: of small generators of
cars, one direction out of 192 makes half of all changes in pictures, six make three quarters. The
plain squared error asks an encoder for all alike (arXiv 2211.11674, section 3.2); this asks for
what shows.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.geometry import Camera
from unflat.rendering import Casting
from unflat.systems.gan.generator import Generator

_SIDE = 16  # pixels of the pictures whose changes are measured
_CASTING = Casting(coarse=16)
_BATCH = 32
_PRIOR = 2048  # codes that tell how far codes are apart
_PLAIN = 0.1  # share of the plain squared error, so that codes stay where the generator knows them


def code_metric(
    generator: Generator, camera: Camera, *, draws: int = 256, seed: int = 0
) -> Float[Tensor, "style_dim style_dim"]:
    """A matrix A; the error of a code e counts as |A e|^2, which is 1 for the mean code on average.

    The mean of J'J over objects and cameras, J the change of colors and opacities of a picture by
    the code, from random directions of the picture (as path lengths are: arXiv 1912.04958,
    section 3.2), and a tenth of the plain squared error.

    Args:
        generator: frozen; told nothing but a latent.
        camera: to draw from, with one batch axis.
        draws: objects, each with a camera and a direction.
        seed: of all of these.
    """
    random = torch.Generator().manual_seed(seed)
    total, done = 0.0, 0
    while done < draws:
        gradient = _gradients(generator, camera, random)
        total = total + gradient.mT @ gradient
        done += len(gradient)
    changes = torch.as_tensor(total) / done
    with torch.no_grad():
        latents = torch.randn(_PRIOR, generator.latent_dim, generator=random)
        spread = torch.cov(generator.codes(latents.to(changes))[:, 0].mT)
    plain = torch.eye(len(spread)).to(changes) / spread.trace()
    metric = (1 - _PLAIN) * changes / (changes @ spread).trace() + _PLAIN * plain
    values, vectors = torch.linalg.eigh(metric)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] torch's stub is untyped
    return values.clamp(min=0).sqrt()[:, None] * vectors.mT


def _gradients(
    generator: Generator, camera: Camera, random: torch.Generator
) -> Float[Tensor, "batch style_dim"]:
    """Of a random direction of each picture, by its object's code."""
    device = camera.intrinsics.device
    with torch.no_grad():
        latents = torch.randn(_BATCH, generator.latent_dim, generator=random).to(device)
        w = generator.codes(latents)[:, 0]
    with torch.enable_grad():
        w = w.detach().requires_grad_()
        codes = w[:, None].expand(-1, generator.body.codes, -1)
        chosen = torch.randint(len(camera.intrinsics), (_BATCH,), generator=random)
        made = generator.picture(
            generator.form(codes), codes, camera[chosen], _SIDE * generator.scale, casting=_CASTING
        )
        seen = torch.cat([made.raw, made.opacity], dim=1)
        direction = torch.randn(seen.shape, generator=random).to(seen)
        (gradient,) = torch.autograd.grad((seen * direction).sum(), w)
    return gradient.detach()
