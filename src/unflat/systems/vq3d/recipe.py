"""How VQ3D stage 1 learns from single pictures with a teacher's disparity.

Terms (specs: vq3d section 1.5): pixel error of the canonical view, pointwise depth on the weights
of rendering, distortion, the quantiser's own loss; novel views are supervised by the picture
itself, moved by the teacher's disparity; the detail mode's refiner learns beside.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unflat.fields.viewspace import CanonicalField, ViewSpaceField, ViewSpacePlanes
from unflat.geometry.camera import Camera, rigid
from unflat.geometry.pose import rotation_from_vector
from unflat.geometry.rays import camera_rays, depth_per_distance
from unflat.losses import accumulated_depth, distortion, pointwise_depth
from unflat.nn.quantize import VectorQuantizer
from unflat.rendering.backends import REFERENCE, Marching, Rays, pick
from unflat.rendering.forward_warp import fill_holes, forward_warp
from unflat.rendering.quadrature import integrate, weights
from unflat.rendering.render import render_rays
from unflat.rendering.sampling import to_distance
from unflat.systems.vq3d.autoencoder import Autoencoder, SceneField
from unflat.systems.vq3d.config import Config
from unflat.systems.vq3d.refiner import laplace_loss
from unflat.training.distribution import gather_over_processes, mean_over_processes
from unflat.training.randomness import rand_per_sample, randn_per_sample

NOVEL_NEAR, NOVEL_FAR = 0.6, 14.0  # distances around the assumed depths 1...10


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and schedules of the terms."""

    depth: Literal["pointwise", "accumulated"] = "pointwise"
    """VQ3D's pointwise loss, or the accumulated one that it beats (for the ablation)."""
    depth_weight: float = 2.0
    """Of the depth term; a Huber of 0.05 for the pointwise form."""
    fog_share: float = 0.1
    """Share of the run over which the depth term moves from accumulated to pointwise."""
    distortion_weight: float = 0.01
    """mip-NeRF 360's 0.01."""
    quantizer_weight: float = 1.0
    """Of the codebook's own loss; FSQ has none."""
    unrounded_share: float = 0.0
    """Share of the run without rounding; 0.1 without the linear start."""
    novel_weight: float = 0.3
    """Of warp supervision's colour term (absolute difference); 0 turns novel views off."""
    novel_depth_weight: float = 1.0
    """Of warp supervision's depth term."""
    novel_angle: float = 0.2
    """Standard deviation of each axis' turn about the pivot, radians; cut at 2.5 of it."""
    hole_weight: float = 0.3
    """Of novel pixels that the picture does not show, filled from the nearest background."""
    refiner_weight: float = 0.05
    """Of the refiner's likelihood."""
    rows: int = 12
    """Random rows of the canonical view's product grid of rays."""
    columns: int = 24
    """Random columns of it."""
    novel_rays: int = 96
    """Random rays of each novel view."""
    novel_samples: int = 24
    """Intervals of each of them."""


class Vq3dRecipe:
    """The model with its training step."""

    def __init__(self, config: Config, loss: LossConfig | None = None):
        self.config = config
        self.loss = loss or LossConfig()
        self.model = Autoencoder(config)
        self.networks: nn.Module = self.model

    def start(self, images: Float[Tensor, "batch 3 side side"]) -> None:
        """Starts the linear path from some hundred training pictures, if there is one."""
        if self.config.linear_skip:
            self.model.start_from_patches(images)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights decay; biases, norms, positions and the codebook do not."""
        decayed, free = [], []
        for name, parameter in self.model.named_parameters():
            is_free = parameter.ndim < 2 or "positions" in name or name == "quantizer.table"
            (free if is_free else decayed).append(parameter)
        return [{"params": decayed}, {"params": free, "weight_decay": 0.0}]

    def step(
        self, batch: dict[str, Tensor], progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Terms of one batch; see the module's docstring."""
        image, has_disparity = batch["image"], batch["has_disparity"]
        encoded = self.model.encode(image, float(progress >= self.loss.unrounded_share))
        planes = self.model.decode(encoded.quantized.tokens)
        field = self.model.field(planes)
        terms = self._canonical(field, batch, progress, generator)
        terms["quantizer"] = self.loss.quantizer_weight * encoded.quantized.loss
        taught = has_disparity.nonzero().flatten()
        if len(taught):
            if len(taught) < len(image):
                field = self.model.field(_take(planes, taught))
            if self.loss.novel_weight or self.loss.novel_depth_weight:
                terms |= self._novel(field, batch, taught, generator)
            if self.model.refiner is not None and isinstance(field, ViewSpaceField):
                surface = field.uv[:, 3:4].detach() + 0.5
                refined = self.model.refiner(image[taught], surface, encoded.features[taught])
                cost = laplace_loss(refined, batch["disparity"][taught]).mean((1, 2, 3))
                terms["refiner"] = self.loss.refiner_weight * cost.sum() / len(image)
        terms["loss"] = torch.stack(list(terms.values())).sum()
        with torch.no_grad():
            terms["psnr"] = -10 * terms["pixel"].log10()
        return terms

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
        quantizer = self.model.quantizer
        if not isinstance(quantizer, VectorQuantizer):
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

    def _canonical(
        self,
        field: SceneField,
        batch: dict[str, Tensor],
        progress: float,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Terms on a random product grid of canonical rays."""
        loss, side, n = self.loss, self.config.resolution, self.config.samples
        device = batch["image"].device
        rows = _choose(side, loss.rows, generator)
        columns = _choose(side, loss.columns, generator)
        edges = torch.linspace(1, 0, n + 1, device=device)
        jitter = torch.rand(n - 1, generator=generator, device=generator.device).to(device) - 0.5
        edges = torch.cat([edges[:1], edges[1:-1] + jitter / n, edges[-1:]])
        rgb, shares, middles = _canonical_rays(field, rows, columns, side, edges)
        target = batch["image"][:, :, rows][..., columns].permute(0, 2, 3, 1)
        terms = {"pixel": (rgb - target).square().mean()}
        teacher = batch["disparity"][:, 0, rows][..., columns]
        accumulated = accumulated_depth(shares, middles.expand_as(shares), teacher)
        blend = 0.0
        if loss.depth == "pointwise":
            blend = min(1.0, 0.1 + 0.9 * progress / loss.fog_share) if loss.fog_share else 1.0
        cost = (1 - blend) * accumulated
        if blend:
            cost = cost + blend * pointwise_depth(shares, middles.expand_as(shares), teacher)
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
        rays = camera_rays(camera_to, (pixels.to(uv) + 0.5) / side)
        count = loss.novel_samples
        s = torch.linspace(0, 1, count + 1, device=image.device).expand(*index.shape, -1)
        s = torch.cat([s[..., :1], s[..., 1:-1] + offset / count, s[..., -1:]], dim=-1)
        edges = to_distance(s, NOVEL_NEAR, NOVEL_FAR, "disparity")
        out = render_rays(field, rays.origins, rays.directions, edges)
        target = warped.image.flatten(2).gather(2, index[:, None].expand(-1, 3, -1)).mT
        nearness = warped.inverse_depth.flatten(1).gather(1, index)
        seen = warped.visible.flatten(1).gather(1, index)
        importance = torch.where(seen, 1.0, loss.hole_weight)
        forward = depth_per_distance(camera_to, rays)
        middles = (1 / (out.middles * forward[..., None]) - frame.d_far) / span
        cost = pointwise_depth(out.weights, middles, (nearness - frame.d_far) / span)
        color = (out.features - target).abs().mean(-1)
        share = len(taught) / len(batch["image"])
        return {
            "novel": loss.novel_weight * (importance * color).mean() * share,
            "novel_depth": loss.novel_depth_weight * (importance * cost).mean() * share,
        }


def novel_cameras(
    focal: float,
    inverse_depth: Float[Tensor, "batch height width"],
    turns: Float[Tensor, "batch 3"],
) -> tuple[Camera, Camera]:
    """The canonical cameras of a batch, and each turned rigidly about its own pivot.

    The pivot lies on the optical axis at the median disparity.

    Args:
        focal: in half-widths of the picture.
        inverse_depth: of the canonical pictures.
        turns: rotation vectors, radians.
    """
    batch = len(turns)
    eye = torch.eye(4, device=turns.device).expand(batch, 4, 4)
    half = torch.tensor([focal / 2, focal / 2, 0.5, 0.5], device=turns.device)
    intrinsics = half.expand(batch, 4)
    pivot = torch.zeros(batch, 3, device=turns.device)
    pivot[:, 2] = 1 / inverse_depth.flatten(1).median(dim=1).values
    rotation = rotation_from_vector(turns)
    moved = pivot - (rotation @ pivot[..., None])[..., 0]
    return (
        Camera(camera_to_world=eye, intrinsics=intrinsics),
        Camera(camera_to_world=rigid(rotation, moved), intrinsics=intrinsics),
    )


@torch.no_grad()
def render_canonical(
    field: SceneField, side: int, samples: int = 64
) -> tuple[
    Float[Tensor, "batch 3 side side"],
    Float[Tensor, "batch 1 side side"],
    Float[Tensor, "batch 1 side side"],
]:
    """Colour, expected normalised disparity and its variance, seen by the canonical camera."""
    planes = next(field.buffers())
    dtype = torch.promote_types(planes.dtype, torch.float32)
    every = torch.arange(side, device=planes.device)
    edges = torch.linspace(1, 0, samples + 1, device=planes.device, dtype=dtype)
    parts = []
    for rows in every.split(32):  # the intervals of whole pictures are many
        rgb, shares, middles = _canonical_rays(field, rows, every, side, edges)
        mean = (shares * middles).sum(-1, keepdim=True)
        variance = (shares * (middles - mean).square()).sum(-1, keepdim=True)
        parts.append(torch.cat([rgb, mean, variance], dim=-1))
    rgb, mean, variance = torch.cat(parts, dim=1).permute(0, 3, 1, 2).split([3, 1, 1], dim=1)
    return rgb, mean, variance


def _canonical_rays(
    field: SceneField, rows: Tensor, columns: Tensor, side: int, edges: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour (batch rows columns 3) and weights on a product grid; middles of the intervals."""
    v = (rows.to(edges) + 0.5) / side * 2 - 1
    u = (columns.to(edges) + 0.5) / side * 2 - 1
    middles = 0.5 * (edges[1:] + edges[:-1])
    slant = 1 + (v[:, None].square() + u.square()) / field.frame.focal_assumed**2
    lengths = -edges.diff() * slant.sqrt()[..., None]  # rows columns n
    canonical, rays = CanonicalField(field), _parallel_rays(field, v, u, edges, lengths)
    backend = pick(canonical, rays)
    if backend is REFERENCE:
        return *_on_grid(field, v, u, middles, lengths), middles
    marched = backend.march(canonical, rays, Marching())
    rgb, shares = (part.unflatten(1, (len(v), len(u))) for part in marched)
    return rgb, shares, middles


def _parallel_rays(field: SceneField, v: Tensor, u: Tensor, edges: Tensor, lengths: Tensor) -> Rays:
    """Rays of a product grid in (u, v, delta): from delta 1 towards 0."""
    batch = len(next(field.buffers()))
    down, across = torch.meshgrid(v, u, indexing="ij")
    origins = torch.stack([across, down, torch.ones_like(across)], dim=-1).flatten(0, 1)
    directions = origins.new_tensor([0.0, 0.0, -1.0]).expand_as(origins)
    distances = (1 - edges).expand(len(origins), -1)
    every = origins, directions, distances, lengths.flatten(0, 1)
    return Rays(*(part.expand(batch, -1, -1) for part in every))


def _on_grid(
    field: SceneField, v: Tensor, u: Tensor, middles: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Colour and weights in plain torch: rays of a product grid share lookups."""
    parts = []
    # Without gradients a few rows at once: their samples stay near the processor.
    few = len(v) if torch.is_grad_enabled() else 4
    for some, long in zip(v.split(few), lengths.split(few), strict=True):
        density, rgb = field.on_grid(some, u, middles)
        shares = weights(density, long.expand_as(density), opaque_last=True)
        parts.append((integrate(shares, rgb), shares))
    rgb, shares = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return rgb, shares


def _choose(side: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(side, generator=generator, device=generator.device)[:count].sort().values


def _take(planes: ViewSpacePlanes | Tensor, chosen: Tensor) -> ViewSpacePlanes | Tensor:
    if isinstance(planes, ViewSpacePlanes):
        return ViewSpacePlanes(*(plane[chosen] for plane in planes))
    return planes[chosen]
