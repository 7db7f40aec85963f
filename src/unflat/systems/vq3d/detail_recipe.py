"""How the detail mode learns: the surface of the photo, and how soft a sheet should stand there.

Everything but the refiner is frozen. Where a teacher's disparity is known, its likelihood is
raised, and the sheets are rendered from nearby cameras and compared with the picture moved there
by the true disparity: that teaches how much a wrong edge costs, which a disparity error does not
say, and so how soft a sheet ought to be where it may be wrong.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unflat.fields.detail import DetailSheets
from unflat.nn.depth_net import laplace_loss
from unflat.rendering.forward_warp import fill_holes, forward_warp
from unflat.systems.vq3d.autoencoder import Autoencoder
from unflat.systems.vq3d.surface import hidden_sheet, token_surface
from unflat.systems.vq3d.views import novel_cameras, novel_light
from unflat.training import decay_groups
from unflat.training.randomness import rand_per_sample, randn_per_sample


@dataclass(frozen=True, kw_only=True)
class DetailLoss:
    """Weights of the terms."""

    likelihood_weight: float = 0.1
    """Of the disparity's likelihood."""
    novel_weight: float = 3.0
    """Of the squared color error of novel views."""
    novel_angle: float = 0.2
    """Standard deviation of each axis' turn about the pivot, radians; cut at 2.5 of it."""
    hole_weight: float = 0.3
    """Of novel pixels that the picture does not show, filled from the nearest background."""
    rays: int = 192
    """Random rays of each novel view."""
    samples: int = 40
    """Intervals of each of them."""


class DetailRecipe:
    """The refiner with its training step; the rest of the model stands still."""

    def __init__(self, model: Autoencoder, loss: DetailLoss | None = None):
        if model.refiner is None:
            raise ValueError("the model has no refiner")
        self.model = model.eval().requires_grad_(False)
        self.refiner = model.refiner.requires_grad_(True)
        self.loss = loss or DetailLoss()
        self.networks: nn.Module = self.refiner

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights decay; biases, norms and positions do not."""
        return decay_groups(self.refiner)

    def step(
        self, batch: dict[str, Tensor], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Terms of one batch; see the module's docstring."""
        taught = batch["has_disparity"].nonzero().flatten()
        image, disparity = batch["image"][taught], batch["disparity"][taught]
        with torch.no_grad():
            encoded = self.model.encode(image)
            field = self.model.field(self.model.decode(encoded.quantized.tokens))
            surface = token_surface(field, image.shape[-1])
        refined = self.refiner(image, surface, encoded.features)
        share = len(taught) / len(batch["image"])
        likelihood = laplace_loss(refined, disparity).mean()
        terms = {"likelihood": self.loss.likelihood_weight * likelihood * share}
        sheets = DetailSheets(
            image,
            refined.disparity,
            refined.softness,
            hidden_sheet(refined.disparity.detach(), image),
            self.model.frame,
        )
        terms["novel"] = self.loss.novel_weight * share * self._novel(sheets, batch, generator)
        terms["loss"] = torch.stack(list(terms.values())).sum()
        with torch.no_grad():
            terms["error"] = (refined.disparity - disparity).abs().mean()
            terms["softness"] = refined.softness.mean()
        return terms

    def _novel(
        self, sheets: DetailSheets, batch: dict[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        """Squared color error of random rays of novel views."""
        loss, frame = self.loss, self.model.frame
        taught = batch["has_disparity"].nonzero().flatten()
        image = batch["image"][taught]
        inverse_depth = frame.d_far + (frame.d_near - frame.d_far) * batch["disparity"][taught, 0]
        turns = randn_per_sample(batch, (3,), generator)[taught].clamp(-2.5, 2.5).to(image)
        uv = rand_per_sample(batch, (loss.rays, 2), generator)[taught].to(image)
        offset = rand_per_sample(batch, (loss.rays, 1), generator)[taught].to(image) - 0.5
        camera_from, camera_to = novel_cameras(
            frame.focal_assumed, inverse_depth, turns * loss.novel_angle
        )
        warped = fill_holes(forward_warp(image, inverse_depth, camera_from, camera_to, blend=0.05))
        side = image.shape[-1]
        pixels = (uv * side).long().clamp_max(side - 1)
        index = pixels[..., 1] * side + pixels[..., 0]
        light = novel_light(sheets, camera_to, pixels, side, offset, loss.samples)
        target = warped.image.flatten(2).gather(2, index[:, None].expand(-1, 3, -1)).mT
        seen = warped.visible.flatten(1).gather(1, index)
        importance = torch.where(seen, 1.0, loss.hole_weight)
        return (importance * (light.rgb - target).square().mean(-1)).mean()

    @torch.no_grad()
    def sample(self, batch: dict[str, Tensor]) -> Float[Tensor, "3 height width"]:
        """Rows of pictures: photo, surface, softness (ten times), the teacher's disparity."""
        image = batch["image"][:8]
        encoded = self.model.encode(image)
        field = self.model.field(self.model.decode(encoded.quantized.tokens))
        refined = self.refiner(image, token_surface(field, image.shape[-1]), encoded.features)
        maps = [refined.disparity, 10 * refined.softness, batch["disparity"][:8]]
        rows = [image, *(values.expand(-1, 3, -1, -1) for values in maps)]
        return torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2).clamp(0, 1)

    def after_step(self, step: int) -> dict[str, float]:
        """Nothing."""
        return {}

    def config_json(self) -> dict[str, Any]:
        """System, model and loss configuration."""
        return {
            "system": "vq3d-detail",
            "config": dataclasses.asdict(self.model.config),
            "loss": dataclasses.asdict(self.loss),
        }
