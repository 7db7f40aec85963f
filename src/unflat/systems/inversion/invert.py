"""One picture to one object: guess, steps, and what is to be said of them.

inverted = invert(model, cutout.image, cutout.opacity, distance, steps_of(10))
inverted.scene.mesh()
inverted.camera              # of the whole square picture, object world
inverted.confidence
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import save_file
from torch import Tensor, nn

from unflat.export.picture import to_uint8
from unflat.geometry import Camera
from unflat.geometry.pnp import PnpConfig
from unflat.geometry.published_pose import camera_from_pose
from unflat.metrics import mask_iou, psnr
from unflat.object_scene import ObjectScene
from unflat.scene import SceneHeader
from unflat.systems.inversion.compare import Comparison, look
from unflat.systems.inversion.fit import FitConfig, Fitted, Unknowns
from unflat.systems.inversion.framing import Window
from unflat.systems.inversion.pipeline import InversionModel, Start
from unflat.systems.inversion.pose import search_of

_SHOWN_SIDE = 128  # pixels of the scene's view
_ROOM = 4 / 3  # how much wider that is than the encoder's window: turned objects fit in
_MEASURED = slice(16, 112)  # of its rows and columns: that window
_LOST = 0.8  # share of the outline's IoU below which steps were for the worse
_UNLIKE = 0.3  # perceptual distance that divides confidence by e


@dataclass(frozen=True, kw_only=True)
class Inverted:
    """An object found behind a picture."""

    scene: ObjectScene
    """The object, seen by its canonical camera as the picture shows it."""
    camera: Camera
    """Of the whole square picture; a single one, object world, OpenCV axes."""
    start: Start
    """The encoder's guess, and the cameras that were looked at."""
    fitted: Fitted
    """What the steps made of it."""
    frames: list[Float[Tensor, "3 side side"]]
    """The window before and after every step."""
    before: dict[str, float]
    """Figures of the guess: ``iou``, ``psnr``, ``perceptual``."""
    after: dict[str, float]
    """Figures of the result."""
    confidence: float
    """In [0, 1]: the share of the canonical map that one camera explains, times the IoU of the
    outlines in the end, times exp(-perceptual distance in the end / 0.3)."""
    is_kept: bool
    """Whether the steps made outline and likeness worse, so that the guess was kept."""
    problem: str | None
    """Why no camera was found, in one sentence; the result is the model's usual object then."""

    def film(self) -> UInt8[np.ndarray, "frames side two_sides 3"]:
        """The picture, and beside it what was made of it, step by step."""
        photo = self.scene.photo
        assert photo is not None  # every such scene carries it
        return np.stack([to_uint8(torch.cat([photo, frame], dim=2)) for frame in self.frames])

    @property
    def unknowns(self) -> Unknowns:
        """Codes, pose and palette in the end."""
        return self.fitted.unknowns


def invert(
    model: InversionModel,
    image: Float[Tensor, "3 height width"],
    opacity: Float[Tensor, "height width"],
    distance: nn.Module,
    config: FitConfig,
    *,
    fov: float | None = None,
    comparison: Comparison | None = None,
    header: SceneHeader | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Inverted:
    """The object of a square picture.

    Args:
        model: of the object's category.
        image: in [0, 1]; beside the object it may show anything.
        opacity: which share of a pixel is object.
        distance: of pairs of pictures, as `unflat.losses.FeatureDistance`.
        config: how many steps, how long ones.
        fov: radians across the picture, if known; else like those that the model learned from.
        comparison: what differs in pictures; the defaults if not given.
        header: of the scene; what is known is filled in.
        seed: of the warps.
        progress: is told how many of how many steps are done.

    Raises:
        ValueError: the picture is not square.
    """
    if image.shape[-1] != image.shape[-2] or opacity.shape != image.shape[1:]:
        raise ValueError(
            f"image is {tuple(image.shape)} and opacity {tuple(opacity.shape)}; both must be square"
        )
    background = model.objects.generator.background
    batch = image[None].to(model.device), opacity[None].to(model.device)
    seen = look(*batch, model.side, background)
    finer = look(*batch, _SHOWN_SIDE, background, _wider)
    search = search_of(model.objects.camera[1:])
    if fov is not None:
        focal = 0.5 / math.tan(0.5 * fov)
        search = replace(search, pnp=PnpConfig(focals=(focal,), is_focal_free=False))
    start = model.start(seen, search)
    frames: list[Tensor] = []

    @torch.no_grad()
    def measured(unknowns: Unknowns) -> dict[str, float]:
        made = model.render(unknowns, finer.window, _SHOWN_SIDE)
        shown = made.image.clamp(0, 1)
        frames.append(shown[0].cpu())
        found, true = (each[..., _MEASURED, _MEASURED] for each in (shown, finer.image))
        return {
            "iou": float(mask_iou(made.opacity[:, 0], finer.opacity[:, 0])),
            "psnr": float(psnr(found, true)),
            "perceptual": float(distance(found, true)),
        }

    def told(done: int, total: int, unknowns: Unknowns) -> None:
        figures.update(measured(unknowns))
        if progress is not None:
            progress(done, total)

    before = measured(start.unknowns)
    figures = dict(before)
    fitted = model.refine(
        start.unknowns, seen, distance, config, comparison=comparison, seed=seed, progress=told
    )
    is_kept = figures["iou"] < _LOST * before["iou"] or (
        figures["iou"] < before["iou"] and figures["perceptual"] > before["perceptual"]
    )
    if is_kept:
        fitted, figures = fitted._replace(unknowns=start.unknowns), dict(before)
    camera = camera_from_pose(fitted.unknowns.pose)
    estimate, chosen = start.estimates[0], start.judged.chosen[0]
    explained = estimate.hypotheses[chosen].confidence if chosen >= 0 else 0.0
    confidence = explained * figures["iou"] * math.exp(-figures["perceptual"] / _UNLIKE)
    header = header or SceneHeader(system="inversion", model="")
    header = replace(
        header,
        fov_deg=math.degrees(float(camera.fov[0])),
        confidence=round(confidence, 3),
        created=datetime.now(UTC).date().isoformat(),
    )
    scene = ObjectScene(
        model.form(fitted.unknowns).scene(),
        header,
        finer.window.camera(camera),
        background=(background, background, background),
        picture=finer.image[0].cpu(),
    )
    return Inverted(
        scene=scene,
        camera=camera[0].to("cpu"),
        start=start,
        fitted=fitted,
        frames=frames,
        before=before,
        after=figures,
        confidence=confidence,
        is_kept=is_kept,
        problem=estimate.problem,
    )


def _wider(window: Window) -> Window:
    """With more room around the object."""
    middle, side = window.corner + 0.5 * window.side[:, None], _ROOM * window.side
    return Window(middle - 0.5 * side[:, None], side)


def write_latent(inverted: Inverted, path: Path) -> None:
    """Codes of all layers, and the palette, as ``codes`` "codes style_dim", ``palette`` "k 3"."""
    unknowns = inverted.unknowns
    tensors = {"codes": unknowns.codes[0].cpu().contiguous()}
    if unknowns.palette is not None:
        tensors["palette"] = unknowns.palette[0].cpu().contiguous()
    save_file(tensors, path)


@torch.no_grad()
def write_distances(inverted: Inverted, path: Path, count: int) -> None:
    """Signed distances on a grid, as arrays of an ``.npz``.

    ``distance`` "x y z" in world units, negative inside; ``low`` and ``high`` "3", the places of
    its first and last number (y up, front +z).

    Args:
        inverted: the object.
        path: of the file.
        count: of numbers along every axis.
    """
    scene = inverted.scene
    low, high = scene.bounds
    shares = torch.linspace(0, 1, count, device=low.device)
    axes = [low[axis] + (high[axis] - low[axis]) * shares for axis in range(3)]
    rows = []
    for x in axes[0]:
        y, z = torch.meshgrid(axes[1], axes[2], indexing="ij")
        points = torch.stack([x.expand_as(y), y, z], dim=-1)
        rows.append(scene.field.distance(points[None])[0])  # pyright: ignore[reportAttributeAccessIssue] such generators have one
    np.savez_compressed(
        path,
        distance=torch.stack(rows).half().cpu().numpy(),
        low=low.cpu().numpy(),
        high=high.cpu().numpy(),
    )


def pose_json(inverted: Inverted) -> dict[str, Any]:
    """The camera as people and other programs read it.

    ``camera_to_world`` and ``intrinsics`` (of the square picture, its side being 1) are OpenCV's,
    in the object world (y up, front +z); the others are the paper's numbers.
    """
    turn, shift, scale, zoom = inverted.unknowns.pose
    start = inverted.start
    costs = start.judged.cost[0]
    return {
        "camera_to_world": inverted.camera.camera_to_world.tolist(),
        "intrinsics": dict(
            zip(("fx", "fy", "cx", "cy"), inverted.camera.intrinsics.tolist(), strict=True)
        ),
        "quaternion": turn[0].tolist(),
        "shift": shift[0].tolist(),
        "scale": float(scale[0]),
        "zoom": None if zoom is None else float(zoom[0]),
        "hypotheses": [
            {
                "camera_to_world": one.camera.camera_to_world.tolist(),
                "inlier_share": one.inlier_share,
                "confidence": one.confidence,
                "cost": cost,
                "chosen": number == start.judged.chosen[0],
            }
            for number, (one, cost) in enumerate(
                zip(start.estimates[0].hypotheses, costs, strict=True)
            )
        ],
    }
