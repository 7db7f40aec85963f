"""Pictures turned, scaled and moved together with their cameras, as often as the critic bears it.

Where pictures are few a critic learns them by heart. Changed pictures are more pictures; how many
are changed follows how sure the critic is of real ones (adaptive augmentation, arXiv 2006.06676),
and since cameras change along with them, nothing of it leaks into what a generator makes
(nerf-from-image, arXiv 2211.11674, supplement). Real pictures are warped; made ones are made for
changed cameras.

    augment = PoseAugment(most=0.8)
    window = augment.draw(uniform, normal)      # one for each real picture
    image, camera = window.picture(image, outside=1.0), window.camera(camera)
    augment.watch(logits_of_real_pictures, progress)
    augment.after_step(step)                    # from Recipe.after_step
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from unflat.geometry import Camera
from unflat.geometry.camera_augment import augment_camera
from unflat.nn.warp_picture import warp_picture
from unflat.training.distribution import mean_over_processes, process_rank

_SCALE = 0.2  # standard deviation, in doublings of the window
_SHIFT = 0.1  # standard deviation, in half sides of the picture

Draw = Callable[[tuple[int, ...]], Tensor]
"""Random numbers of a shape, for each picture of the batch."""


class Window(NamedTuple):
    """How the window on each picture is changed; see `augment_camera`."""

    turn: Float[Tensor, " batch"]
    """Radians, clockwise."""
    scale: Float[Tensor, " batch"]
    """How many times larger."""
    shift: Float[Tensor, "batch 2"]
    """Right and up, in half sides."""

    def camera(self, camera: Camera) -> Camera:
        """The cameras that see through these windows."""
        with torch.autocast(self.turn.device.type, enabled=False):
            return augment_camera(camera, *self)

    def picture(
        self, images: Float[Tensor, "batch channels side side"], *, outside: float
    ) -> Float[Tensor, "batch channels side side"]:
        """What they see of pictures in [0, 1].

        Read at twice the side, then 2 x 2 pixels are averaged, so that a window that is larger or
        turned shows nothing that its pixels would not hold. nerf-from-image does so with pictures
        loaded twice as large, bilinearly; these are as they are and read bicubically, which errs
        about as little. Pictures whose window is the whole picture stay bit by bit.

        Args:
            images: real ones, or masks; square.
            outside: what is where no picture is: 1 for white, 0 for masks.
        """
        with torch.autocast(images.device.type, enabled=False):
            side = 2 * images.shape[-1]
            fine = warp_picture(images.float(), *self, outside=outside, side=side, mode="bicubic")
            warped = functional.avg_pool2d(fine.clamp(0, 1), 2).to(images)
        is_whole = (self.turn == 0) & (self.scale == 1) & (self.shift == 0).all(1)
        return torch.where(is_whole[:, None, None, None], images, warped)


class PoseAugment(nn.Module):
    """Draws windows, and decides how often.

    The share of changed pictures grows while the mean sign of the logits of real pictures is above
    the target, and shrinks while it is below.
    """

    probability: Tensor
    seen: Tensor
    judged: Tensor

    def __init__(
        self,
        most: float = 0.8,
        *,
        target: float = 0.6,
        every: int = 4,
        speed: float = 500_000,
        start: float = 0.05,
    ):
        """A share of 0 that may grow; the defaults are about nerf-from-image's.

        Args:
            most: largest probability of each of the three changes.
            target: mean sign of real logits that is aimed at: 0 for a critic that guesses, 1 for
                one that is never wrong.
            every: steps between decisions.
            speed: pictures in which the probability could go from 0 to 1.
            start: share of the adversarial part of the run in which it stays 0.

        Raises:
            ValueError: the largest probability is not in (0, 1].
        """
        super().__init__()
        if not 0 < most <= 1:
            raise ValueError(f"most is {most}; it must be above 0 and at most 1")
        self.most, self.target, self.every = most, target, every
        self.speed, self.start = speed, start
        self.register_buffer("probability", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(2))  # of this step: sum of signs, how many
        self.register_buffer("judged", torch.zeros(2))  # the same since the last decision, shared

    def draw(self, uniform: Draw, normal: Draw) -> Window:
        """A window for each picture.

        Turned evenly all around, scaled by 2^N(0, 0.2^2), moved by N(0, 0.1^2) along each side:
        each of the three with the present probability, independently.

        Args:
            uniform: draws from [0, 1).
            normal: draws from the normal distribution.
        """
        numbers, bells = uniform((4,)), normal((3,))
        happens = (numbers[:, :3] < self.probability).to(bells)
        turn = math.pi * (2 * numbers[:, 3] - 1) * happens[:, 0]
        scale = torch.exp2(_SCALE * bells[:, 0] * happens[:, 1])
        return Window(turn, scale, _SHIFT * bells[:, 1:] * happens[:, 2:])

    @torch.no_grad()
    def watch(self, logits: Float[Tensor, " batch"], progress: float) -> None:
        """Takes note of how sure the critic was of real pictures.

        Args:
            logits: of real pictures, changed ones included.
            progress: share of the adversarial part of the run that is done.
        """
        if progress >= self.start:
            signs = logits.detach().float().sign()
            self.seen += torch.stack([signs.sum(), signs.new_tensor(len(signs))])

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Decides where it is due, alike on every process.

        To be called by ``Recipe.after_step``; where nothing was watched nothing changes.

        Args:
            step: of the optimizer, counted from 0.
        """
        self.judged += mean_over_processes(self.seen) * process_rank()[1]
        self.seen.zero_()
        total, count = self.judged
        if (step + 1) % self.every == 0 and count:
            change = torch.sign(total / count - self.target) * count / self.speed
            self.probability.add_(change).clamp_(0, self.most)
            self.judged.zero_()
