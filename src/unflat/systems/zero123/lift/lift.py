"""One picture of an object to 3D, with any model of new views.

::

    lifted = lift(
        model, image, opacity, method="fit", preset="fast", elevation=0.1, seed=0, make_views=make
    )
    lifted.scene.save("scene.safetensors")
    lifted.mesh                       # closed, object world, vertex colours
    lifted.figures                    # agreement of the views, parts dropped, confidence ...

``fit`` has a sampler make views once and fits a solid to them; ``sds`` and ``sjc`` ask the model at
every step.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from unflat.errors import UserError
from unflat.export.isosurface import mesh_of_field, mesh_report
from unflat.export.mesh import Mesh
from unflat.geometry.camera import Camera
from unflat.geometry.hull import agreement
from unflat.geometry.pose import orbit_coordinates
from unflat.geometry.relative_pose import RelativePose
from unflat.metrics import mask_iou, psnr
from unflat.object_scene import ObjectScene
from unflat.scene import SceneHeader
from unflat.systems.zero123.lift.bake import shots_of_latents
from unflat.systems.zero123.lift.cameras import input_camera, view_plan
from unflat.systems.zero123.lift.fit import FitConfig, fit
from unflat.systems.zero123.lift.guidance import GuidanceConfig
from unflat.systems.zero123.lift.sds import SdsConfig, distil
from unflat.systems.zero123.lift.shots import Shots, batch_of, believed, masks_of_white
from unflat.systems.zero123.lift.sjc import SjcConfig, chain
from unflat.systems.zero123.lift.smoothing import smoothed
from unflat.systems.zero123.lift.solid import Solid, on_white, seen_by
from unflat.systems.zero123.lift.surface import best_level, finish
from unflat.systems.zero123.lift.voxels import LatentVoxels, march
from unflat.systems.zero123.model import ViewModel, Views

Method = Literal["fit", "sds", "sjc"]
"""How a picture is lifted."""
Preset = Literal["fast", "best"]
"""How long it may take."""

VIEWS = {"fast": 16, "best": 32}
"""Made for ``fit``, beside the picture itself."""

_FIRST_WEIGHT = 4.0  # of the picture among views of weight 1
_SHARP = 0.3  # voxels: softness of what is saved
_MESH = 128  # grid points along the box's longest side, at most
_FINER = 2  # of them for each voxel
_FRAMES = 12  # progress pictures
_POLISH = {"fast": 0, "best": 60}  # steps of distillation after the fit
_AROUND = 24  # sides from which what was distilled is looked at


@runtime_checkable
class MakeViews(Protocol):
    """A sampler, with the picture and all its settings inside."""

    def __call__(self, poses: RelativePose, seed: int) -> Views:
        """Pictures of the object from other sides.

        Args:
            poses: one axis; from the given picture's camera.
            seed: of the noise.
        """
        ...


Progress = Callable[[str, int, int], None]
"""Is told what is done ("views", "fit", "sds", "sjc"), and how many of how many steps."""


@dataclass(frozen=True, kw_only=True)
class Lifted:
    """An object made of one picture."""

    scene: ObjectScene
    """It, seen by the picture's camera; carries the picture."""
    mesh: Mesh
    """Its whole surface with vertex colours, object world (y up, front +z)."""
    shots: Shots
    """The picture, and the views it was fitted to with the weights they ended with."""
    figures: dict[str, float | int | str | list[float]]
    """For the report."""
    frames: list[Float[Tensor, "3 side side"]]
    """The picture's view of the object while it came to be."""


def lift(
    model: ViewModel,
    image: Float[Tensor, "3 side side"],
    opacity: Float[Tensor, "side side"],
    *,
    method: Method,
    preset: Preset,
    elevation: float,
    seed: int,
    guidance_scale: float | None = None,
    make_views: MakeViews | None = None,
    camera: Camera | None = None,
    header: SceneHeader | None = None,
    progress: Progress | None = None,
) -> Lifted:
    """The object of a picture.

    Args:
        model: of new views.
        image: the object on white, [0, 1], of the model's size.
        opacity: share of each pixel that the object covers, [0, 1].
        method: ``fit``, ``sds`` or ``sjc``.
        preset: ``fast`` or ``best``.
        elevation: radians; how high the picture was taken.
        seed: of all that is random.
        guidance_scale: of ``sds`` and ``sjc``, and of polishing; the method's own if not given.
            Views that ``make_views`` makes are guided as it likes.
        make_views: needed by ``fit``.
        camera: of the picture, a single one of the object world at azimuth 0; one at the elevation
            if not given, as far away as objects of such an extent usually are.
        header: of the scene; what is known is filled in.
        progress: is told what is done.

    Raises:
        UserError: the picture shows no object, silhouettes have nothing in common, or no surface
            is left.
        ValueError: ``fit`` without ``make_views``.
    """
    if not bool((opacity > 0.5).any()):
        raise UserError(
            "lift: the picture's matte is empty, so there is no object to lift; give a picture of "
            "one object, or one with a transparent background."
        )
    began = time.perf_counter()
    camera = input_camera(opacity, elevation) if camera is None else camera
    diary = _Diary(camera, image.shape[-1], progress)
    picture = Shots(
        image=image[None].cpu().float(),
        opacity=opacity[None].cpu().float(),
        cameras=batch_of(camera),
        weight=torch.ones(1),
    )
    made = _MADE[method](_Task(model, picture, preset, seed, guidance_scale, make_views, diary))
    agreeing = float(made.figures.get("agreement_mean", 1.0))  # pyright: ignore[reportArgumentType] a number
    solid = smoothed(made.solid, picture, agreeing)
    finished = finish(solid, best_level(solid, made.judges))
    field = finished.solid.field(_SHARP * finished.solid.cell)
    mesh = mesh_of_field(field, min(_MESH, _FINER * max(field.distances.shape[1:])))
    with torch.no_grad():
        seen = seen_by(field, batch_of(camera), picture.side)
    figures: dict[str, float | int | str | list[float]] = {
        "method": method,
        "preset": preset,
        "elevation_deg": math.degrees(elevation),
        "picture_iou": float(mask_iou(seen.opacity, picture.opacity)),
        "picture_psnr": float(psnr(on_white(seen).clamp(0, 1), picture.image)),
        "surface_level_voxels": finished.level / finished.solid.cell,
        "parts_dropped": finished.dropped,
        "volume": mesh_report(mesh).volume or 0.0,
        **made.figures,
        "seconds": time.perf_counter() - began,
    }
    confidence = float(figures["picture_iou"]) * agreeing  # pyright: ignore[reportArgumentType] a number
    header = header or SceneHeader(system="zero123", model=model.name)
    header = replace(
        header,
        fov_deg=math.degrees(float(camera.fov)),
        confidence=round(confidence, 3),
        created=datetime.now(UTC).date().isoformat(),
    )
    scene = ObjectScene(field, header, camera, picture=picture.image[0])
    return Lifted(scene=scene, mesh=mesh, shots=made.shots, figures=figures, frames=diary.frames)


@dataclass(frozen=True)
class _Task:
    """What every method is told."""

    model: ViewModel
    picture: Shots
    preset: Preset
    seed: int
    guidance_scale: float | None
    make_views: MakeViews | None
    diary: "_Diary"

    @property
    def camera(self) -> Camera:
        return self.picture.cameras[0]

    def guided(self, config: GuidanceConfig) -> GuidanceConfig:
        if self.guidance_scale is None:
            return config
        return replace(config, guidance_scale=self.guidance_scale)


@dataclass(frozen=True)
class _Made:
    """What every method gives."""

    solid: Solid
    shots: Shots
    judges: Shots
    """Whose silhouettes say where the surface lies."""
    figures: dict[str, float | int | str | list[float]]


class _Diary:
    """Pictures of the object while it comes to be, and whoever wants to know."""

    def __init__(self, camera: Camera, side: int, progress: Progress | None):
        self.camera, self.side, self.progress = camera, side, progress
        self.frames: list[Tensor] = []

    @torch.no_grad()
    def solid(self, stage: str) -> Callable[[int, int, Solid, float], None]:
        def told(done: int, total: int, solid: Solid, softness: float) -> None:
            if self._wanted(done, total):
                with torch.no_grad():
                    seen = seen_by(solid.field(softness), batch_of(self.camera), self.side)
                self.frames.append(on_white(seen)[0].clamp(0, 1))
            self.tell(stage, done, total)

        return told

    def latents(self, model: ViewModel, white: Tensor) -> Callable[[int, int, LatentVoxels], None]:
        def told(done: int, total: int, voxels: LatentVoxels) -> None:
            if self._wanted(done, total):
                height, width = model.latent_shape[1:]
                camera = batch_of(self.camera.to(voxels.bounds.device))
                with torch.no_grad():
                    latent = march(voxels, camera, height, width, white).latent
                    self.frames.append(model.decode(latent).image[0].clamp(0, 1).float().cpu())
            self.tell("sjc", done, total)

        return told

    def tell(self, stage: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(stage, done, total)

    def _wanted(self, done: int, total: int) -> bool:
        """About `_FRAMES` times in all; callers report every tenth step."""
        every = max(1, math.ceil(total / _FRAMES / 10)) * 10
        return done % every == 0 or done == total


def _fit(task: _Task) -> _Made:
    if task.make_views is None:
        raise ValueError("method fit needs make_views: a sampler that makes the views to fit to")
    elevation, _, _ = orbit_coordinates(task.camera.position)
    poses = view_plan(VIEWS[task.preset], float(elevation))
    task.diary.tell("views", 0, len(poses.polar))
    views = task.make_views(poses, task.seed)
    task.diary.tell("views", len(poses.polar), len(poses.polar))
    shots = joined(task.picture, views, poses.cameras(task.camera))
    scores = agreement(shots.opacity, shots.cameras)
    config = FitConfig.fast() if task.preset == "fast" else FitConfig.best()
    fitted = fit(shots, config, seed=task.seed, progress=task.diary.solid("fit"))
    shots = replace(shots, weight=fitted.weight)
    solid = fitted.solid
    if steps := _POLISH[task.preset]:
        polish = SdsConfig.polish(steps)
        polish = replace(polish, guidance=task.guided(polish.guidance))
        solid.settle()
        solid = distil(
            task.model, shots, polish, seed=task.seed, solid=solid, progress=task.diary.solid("sds")
        )
    figures = {
        "views": len(poses.polar),
        "agreement": [round(value, 4) for value in scores.tolist()],
        "agreement_mean": float(scores.mean()),
        "view_weights": [round(value, 4) for value in fitted.weight.tolist()],
        "view_residuals": [round(value, 4) for value in fitted.residual.tolist()],
        "fit_steps": config.steps,
        "polish_steps": steps,
    }
    return _Made(solid, shots, shots, figures)


def _sds(task: _Task) -> _Made:
    config = SdsConfig.fast() if task.preset == "fast" else SdsConfig.best()
    config = replace(config, guidance=task.guided(config.guidance))
    solid = distil(
        task.model, task.picture, config, seed=task.seed, progress=task.diary.solid("sds")
    )
    judges = _own_outlines(solid, config.softness[1] * solid.cell, task.picture)
    figures = {
        "sds_steps": config.steps,
        "guidance_scale": config.guidance.guidance_scale,
    }
    return _Made(solid, task.picture, judges, figures)


def _sjc(task: _Task) -> _Made:
    config = SjcConfig.fast() if task.preset == "fast" else SjcConfig.best()
    config = replace(config, guidance=task.guided(config.guidance))
    model, picture = task.model, task.picture
    with torch.no_grad():
        blank = torch.ones_like(picture.image).to(model.device, model.dtype)
        white = model.encode(blank, torch.zeros_like(blank[:, 0]))[0].float()
    voxels = chain(
        model,
        picture.image[0],
        picture.opacity[0],
        task.camera,
        config,
        seed=task.seed,
        progress=task.diary.latents(model, white),
    )
    around = view_plan(_AROUND, 0.0).cameras(input_camera(picture.opacity[0], 0.0))
    judges = shots_of_latents(model, voxels, around, white, picture)
    solid = fit(judges, FitConfig.of_renderings(), seed=task.seed).solid
    figures = {
        "sjc_steps": config.steps,
        "guidance_scale": config.guidance.guidance_scale,
    }
    return _Made(solid, picture, judges, figures)


_MADE: dict[Method, Callable[[_Task], _Made]] = {"fit": _fit, "sds": _sds, "sjc": _sjc}


def joined(picture: Shots, views: Views, cameras: Camera) -> Shots:
    """A picture and views of its object, weighed by the agreement of their silhouettes.

    Args:
        picture: one shot.
        views: that were made; without opacity it is read off the white.
        cameras: of the views.
    """
    image = views.image.detach().float().cpu().clamp(0, 1)
    if views.opacity is None:
        opacity = masks_of_white(image)
    else:
        opacity = views.opacity.detach().float().cpu().clamp(0, 1)
    own = picture.cameras
    together = Camera(
        camera_to_world=torch.cat(
            [own.camera_to_world, cameras.camera_to_world.to(own.camera_to_world)]
        ),
        intrinsics=torch.cat([own.intrinsics, cameras.intrinsics.to(own.intrinsics)]),
        kind=own.kind,
    )
    shots = Shots(
        image=torch.cat([picture.image, image]),
        opacity=torch.cat([picture.opacity, opacity]),
        cameras=together,
        weight=torch.ones(1 + len(image)),
    )
    return believed(shots, _FIRST_WEIGHT)


@torch.no_grad()
def _own_outlines(solid: Solid, softness: float, picture: Shots) -> Shots:
    """What a solid itself shows from all around, for the surface to agree with."""
    around = view_plan(_AROUND, 0.0).cameras(input_camera(picture.opacity[0], 0.0))
    seen = seen_by(solid.field(softness), around, picture.side)
    return Shots(
        image=on_white(seen).clamp(0, 1),
        opacity=seen.opacity,
        cameras=around,
        weight=torch.ones(_AROUND),
    )
