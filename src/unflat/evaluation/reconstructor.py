"""What the reconstruction task asks of a system: any system, or a test's oracle."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from unflat.geometry.camera import Camera
from unflat.metrics import fit_scale_and_shift

Mode = str
"""What a system is asked for. VQ3D: ``tokens``, everything through the quantiser, or ``detail``,
with the photo's own detail on what it shows. A system with one way of working has one name."""

_LEAST_SCALE = 0.05  # of the ratio of standard deviations: keeps an anti-correlated map renderable


class Alignment(NamedTuple):
    """The three numbers that a single photo cannot know (the projective frame's f*, a, b)."""

    scale: float
    """a in d' = a / z + b, where d' is the disparity in the space the system works in."""
    shift: float
    """b."""
    focal: float
    """True focal length divided by the picture's width."""


@runtime_checkable
class Reconstruction(Protocol):
    """Scenes made from a batch of pictures."""

    @property
    def image(self) -> Float[Tensor, "batch 3 height width"]:
        """The canonical camera's view as rendered, in [0, 1]."""
        ...

    @property
    def disparity(self) -> Float[Tensor, "batch height width"] | None:
        """Expected disparity of the canonical view in the system's own space: 1 / depth there.

        None for a method without depth.
        """
        ...

    @property
    def termination_variance(self) -> Float[Tensor, " batch"] | None:
        """Mean over rays, of normalised disparity; None for a system without a density."""
        ...

    @property
    def indices(self) -> Int[Tensor, "batch tokens codes"] | None:
        """Codes of each picture; None for a system without a codebook."""
        ...

    def render(
        self, index: int, alignment: Alignment, cameras: Camera
    ) -> Float[Tensor, "views 3 height width"]:
        """One scene seen by true cameras, given in the canonical camera's frame."""
        ...


@runtime_checkable
class Reconstructor(Protocol):
    """A system that makes scenes from single pictures."""

    name: str
    """For the report: a file or a model's name."""
    resolution: int
    """Side of the pictures it takes, in pixels."""
    modes: tuple[Mode, ...]
    """What it can do."""
    codebook_sizes: tuple[int, ...] | None
    """Of each code of a token; None without a codebook."""

    def describe(self) -> dict[str, object]:
        """What the report should keep: samples per ray, file hash, preset ..."""
        ...

    def reconstruct(
        self,
        images: Float[Tensor, "batch 3 side side"],
        photos: Float[Tensor, "batch 3 height width"],
        mode: Mode,
        names: Sequence[str] = (),
    ) -> Reconstruction:
        """Scenes of some pictures.

        Args:
            images: at the system's own resolution.
            photos: the same pictures at the evaluation's resolution, at which all is rendered.
            mode: one of `modes`.
            names: of the pictures, for a method that looks something up.
        """
        ...


def align(
    disparity: Float[Tensor, "height width"],
    true: Float[Tensor, "height width"],
    focal: float,
) -> tuple[Alignment, bool]:
    """Scale and shift by least squares over all pixels, and whether the scale had to be raised.

    A disparity that falls where the true one rises would ask for a negative scale, which is no
    scene: the scale is then held at 5 % of the ratio of standard deviations, about a flat scene.

    Args:
        disparity: the system's, of the canonical view.
        true: 1 / depth, sky as 0.
        focal: true focal length divided by the picture's width.
    """
    fit = fit_scale_and_shift(disparity[None].double(), true[None].double())
    spread, true_spread = disparity.double().std(), true.double().std()
    least = _LEAST_SCALE * (spread / true_spread.clamp_min(1e-9)).clamp_min(1e-6).item()
    scale, raised = fit.scale.item(), False
    if scale < least:
        scale, raised = least, True
    shift = (disparity.double().mean() - scale * true.double().mean()).item()
    return Alignment(scale, shift, focal), raised


def true_disparity(
    disparity: Float[Tensor, "height width"], alignment: Alignment
) -> Float[Tensor, "height width"]:
    """The system's disparity in true units, 1 / scene units, at least 0 (the sky)."""
    return ((disparity - alignment.shift) / alignment.scale).clamp_min(0)
