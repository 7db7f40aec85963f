"""How VQ3D stage 1 learns from single pictures with a teacher's disparity.

Terms (specs: vq3d section 1.5): pixel error of the canonical view, pointwise depth on the weights
of rendering, distortion, the quantiser's own loss; novel views are supervised by the picture
itself, moved by the teacher's disparity; the detail mode's refiner learns beside. Terms that see
whole windows, critics among them, are in `adversary`.
"""

import dataclasses
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unflat.fields.viewspace import ViewSpaceField, ViewSpacePlanes
from unflat.hub.registry import FEATURES, find
from unflat.losses import (
    FeatureDistance,
    accumulated_depth,
    distortion,
    frozen,
    is_smooth,
    pointwise_depth,
)
from unflat.nn.depth_net import laplace_loss
from unflat.nn.quantize import VectorQuantizer
from unflat.rendering.forward_warp import fill_holes, forward_warp
from unflat.systems.features import load as load_features
from unflat.systems.vq3d.adversary import Windows
from unflat.systems.vq3d.autoencoder import Autoencoder, Encoded, SceneField
from unflat.systems.vq3d.config import Config
from unflat.systems.vq3d.loss_config import LossConfig
from unflat.systems.vq3d.surface import token_surface
from unflat.systems.vq3d.views import (
    canonical_light,
    jittered_edges,
    novel_cameras,
    novel_light,
    render_canonical,
)
from unflat.training.distribution import gather_over_processes, mean_over_processes
from unflat.training.randomness import rand_per_sample, randn_per_sample

TOKEN_MAKERS = frozenset(
    ("embed", "encoder_positions", "encoder", "to_code", "skip_in", "quantizer")
)
"""Parts of the model on which its tokens depend."""


class Players(nn.Module):
    """The model, and the critics that it learns against; a model file holds the model alone."""

    def __init__(self, model: Autoencoder, critics: nn.ModuleDict):
        super().__init__()
        self.model = model
        self.critics = critics


class Vq3dRecipe:
    """The model with its training step, and with critics where the objective has some."""

    def __init__(
        self, config: Config, loss: LossConfig | None = None, perceptual: nn.Module | None = None
    ):
        """A model with its first weights.

        Args:
            config: of the model.
            loss: what is minimised.
            perceptual: distance of pairs of pictures for the perceptual term, its weights frozen;
                that of unflat's own features if not given.
        """
        self.config = config
        self.loss = loss or LossConfig()
        self.model = Autoencoder(config)
        self.networks: nn.Module = self.model
        self.windows: Windows | None = None
        if self.loss.has_windows:
            if self.loss.perceptual_weight and perceptual is None:
                perceptual = own_distance()
            side, samples = config.resolution, config.samples
            self.windows = Windows(self.loss, side, samples, perceptual)
            if self.loss.has_critics:
                self.networks = Players(self.model, self.windows.judges)
        if self.loss.trained == "decoder":
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name.split(".")[0] not in TOKEN_MAKERS)

    def start(self, images: Float[Tensor, "batch 3 side side"]) -> None:
        """Starts the linear path from some hundred training pictures, if there is one."""
        if self.config.linear_skip:
            self.model.start_from_patches(images)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights decay; biases, norms, positions, the codebook and critics do not."""
        decayed, free = [], []
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            is_free = parameter.ndim < 2 or "positions" in name or name == "quantizer.table"
            (free if is_free else decayed).append(parameter)
        groups = [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
        if self.windows is not None and self.loss.has_critics:
            critics = list(self.windows.judges.parameters())
            scale = {"lr_scale": self.loss.critic_lr_scale, "betas": (0.0, 0.99)}
            groups.append({"params": critics, "weight_decay": 0.0, **scale})
        return groups

    def model_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The model's own tensors, named as in a model file, out of those of all networks."""
        if not self.loss.has_critics:
            return weights
        prefix = "model."
        mine = (name for name in weights if name.startswith(prefix))
        return {name.removeprefix(prefix): weights[name] for name in mine}

    def step(
        self, batch: dict[str, Tensor], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Terms of one batch; see the module's docstring."""
        image, has_disparity = batch["image"], batch["has_disparity"]
        encoded = self._encode(image, float(progress >= self.loss.unrounded_share))
        planes = self.model.decode(encoded.quantized.tokens)
        field = self.model.field(planes)
        terms = self._canonical(field, batch, progress, generator)
        terms["quantizer"] = self.loss.quantizer_weight * encoded.quantized.loss
        taught = has_disparity.nonzero().flatten()
        whole, taught_field = field, None
        if len(taught):
            if len(taught) < len(image):
                field = self.model.field(_take(planes, taught))
            taught_field = field
            if self.loss.novel_weight or self.loss.novel_depth_weight:
                terms |= self._novel(field, batch, taught, generator)
            if self.model.refiner is not None and isinstance(field, ViewSpaceField):
                surface = token_surface(field, image.shape[-1])
                refined = self.model.refiner(image[taught], surface, encoded.features[taught])
                cost = laplace_loss(refined, batch["disparity"][taught]).mean((1, 2, 3))
                terms["refiner"] = self.loss.refiner_weight * cost.sum() / len(image)
        figures: dict[str, Tensor] = {}
        if self.windows is not None:
            more, figures = self.windows.terms(whole, taught_field, batch, progress, generator)
            terms |= more
        terms["loss"] = torch.stack(list(terms.values())).sum()
        with torch.no_grad():
            terms["psnr"] = -10 * terms["pixel"].log10()
        return terms | figures

    @torch.no_grad()
    def sample(self, batch: dict[str, Tensor]) -> Float[Tensor, "3 height width"]:
        """Rows of pictures: input, reconstruction, rendered disparity, teacher's."""
        image = batch["image"][:8]
        planes = self.model.decode(self.model.encode(image).quantized.tokens)
        rgb, disparity, _ = render_canonical(self.model.field(planes), self.config.resolution)
        rows = [image, rgb.clamp(0, 1), disparity.expand(-1, 3, -1, -1)]
        rows.append(batch["disparity"][:8].expand(-1, 3, -1, -1))
        return torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2).clamp(0, 1)

    def after_step(self, step: int) -> dict[str, float]:
        """Restarts dead codes of a codebook: every 20 steps at first, later every 200.

        What the processes saw is brought together first, so that all of them restart alike.
        """
        if self.windows is not None:
            self.windows.after_step()
        quantizer = self.model.quantizer
        if not isinstance(quantizer, VectorQuantizer) or self.loss.trained == "decoder":
            return {}
        quantizer.recent_use.copy_(mean_over_processes(quantizer.recent_use))
        if step % (20 if step < 2000 else 200):
            return {}
        parts = gather_over_processes(quantizer.recent_inputs.cpu())
        quantizer.recent_inputs = torch.cat(parts).to(quantizer.table.device)
        generator = torch.Generator().manual_seed(step)
        return {"restarted_codes": float(quantizer.restart_dead(generator))}

    def config_json(self) -> dict[str, Any]:
        """System, model and loss configuration."""
        return {
            "system": "vq3d",
            "config": dataclasses.asdict(self.config),
            "loss": dataclasses.asdict(self.loss),
        }

    def _encode(self, image: Tensor, rounding: float) -> Encoded:
        """Tokens, with gradients where what makes them is trained."""
        if self.loss.trained == "all":
            return self.model.encode(image, rounding)
        if self.model.quantizer is not None:
            self.model.quantizer.eval()  # counts no use of its codes
        with torch.no_grad():
            return self.model.encode(image, rounding)

    def _canonical(
        self,
        field: SceneField,
        batch: dict[str, Tensor],
        progress: float,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Terms on a random product grid of canonical rays."""
        loss, side = self.loss, self.config.resolution
        rows = _choose(side, loss.rows, generator)
        columns = _choose(side, loss.columns, generator)
        edges = jittered_edges(self.config.samples, generator, batch["image"].device)
        rgb, shares, middles = canonical_light(field, rows, columns, side, edges)
        target = batch["image"][:, :, rows][..., columns].permute(0, 2, 3, 1)
        terms = {"pixel": (rgb - target).square().mean()}
        teacher = batch["disparity"][:, 0, rows][..., columns]
        ends = middles.expand_as(shares)
        accumulated = accumulated_depth(shares, ends, teacher)
        blend = 0.0
        if loss.depth == "pointwise":
            blend = min(1.0, 0.1 + 0.9 * progress / loss.fog_share) if loss.fog_share else 1.0
        cost = (1 - blend) * accumulated
        if blend:
            cost = cost + blend * pointwise_depth(shares, ends, teacher, loss.depth_huber)
        if loss.mask_edges:
            smooth = is_smooth(batch["disparity"])[:, 0, rows][..., columns]
            cost = cost * smooth / smooth.float().mean((1, 2), keepdim=True).clamp_min(1e-3)
        has = batch["has_disparity"]
        # A sum over the taught divided by the whole batch: linear in every sample, so that two
        # processes add up to one.
        terms["depth"] = loss.depth_weight * (cost.mean((1, 2)) * has).mean()
        spread = distortion(shares, edges.expand(*shares.shape[:-1], -1)).mean()
        strength = loss.distortion_weight * min(1.0, 0.1 + progress * 9)
        terms["distortion"] = strength * spread
        return terms

    def _novel(
        self,
        field: SceneField,
        batch: dict[str, Tensor],
        taught: Int[Tensor, " taught"],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Colour and depth of random rays of novel views, from the warped pictures."""
        loss, frame = self.loss, self.model.frame
        image = batch["image"][taught]
        span = frame.d_near - frame.d_far
        inverse_depth = frame.d_far + span * batch["disparity"][taught, 0]
        turns = randn_per_sample(batch, (3,), generator)[taught].clamp(-2.5, 2.5).to(image)
        uv = rand_per_sample(batch, (loss.novel_rays, 2), generator)[taught].to(image)
        offset = rand_per_sample(batch, (loss.novel_rays, 1), generator)[taught].to(image) - 0.5
        camera_from, camera_to = novel_cameras(
            frame.focal_assumed, inverse_depth, turns * loss.novel_angle
        )
        warped = fill_holes(forward_warp(image, inverse_depth, camera_from, camera_to))
        side = self.config.resolution
        pixels = (uv * side).long().clamp_max(side - 1)
        index = pixels[..., 1] * side + pixels[..., 0]
        light = novel_light(field, camera_to, pixels, side, offset, loss.novel_samples)
        target = warped.image.flatten(2).gather(2, index[:, None].expand(-1, 3, -1)).mT
        nearness = warped.inverse_depth.flatten(1).gather(1, index)
        seen = warped.visible.flatten(1).gather(1, index)
        importance = torch.where(seen, 1.0, loss.hole_weight)
        taught_disparity = (nearness - frame.d_far) / span
        cost = pointwise_depth(light.weights, light.middles, taught_disparity, loss.depth_huber)
        color = (light.rgb - target).abs().mean(-1)
        share = len(taught) / len(batch["image"])
        return {
            "novel": loss.novel_weight * (importance * color).mean() * share,
            "novel_depth": loss.novel_depth_weight * (importance * cost).mean() * share,
        }


def own_distance() -> nn.Module:
    """Distance of pictures by the features that come with unflat, its weights frozen."""
    with torch.device("cpu"):  # also where a model is only counted, on the meta device
        return frozen(FeatureDistance(load_features(find(FEATURES))))


def _choose(side: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(side, generator=generator, device=generator.device)[:count].sort().values


def _take(planes: ViewSpacePlanes | Tensor, chosen: Tensor) -> ViewSpacePlanes | Tensor:
    if isinstance(planes, ViewSpacePlanes):
        return ViewSpacePlanes(*(plane[chosen] for plane in planes))
    return planes[chosen]
