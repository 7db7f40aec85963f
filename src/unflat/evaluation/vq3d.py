"""VQ3D stage 1 as the reconstruction task asks it: true cameras through its frame."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unflat.data.posed import resize_maps
from unflat.data.sample import Reject
from unflat.evaluation.generator import GeneratedViews
from unflat.evaluation.picture_stream import PictureStream
from unflat.evaluation.reconstructor import Alignment, Mode
from unflat.fields.detail import DetailField
from unflat.geometry.camera import Camera
from unflat.geometry.projective import Frame
from unflat.geometry.trajectory import turn_about_pivot
from unflat.nn.quantize import Quantized
from unflat.rendering.render import RenderOptions, RenderOutput, render
from unflat.systems.vq3d.autoencoder import Autoencoder, Encoded, SceneField
from unflat.systems.vq3d.complete import complete
from unflat.systems.vq3d.generate import SceneMaker
from unflat.systems.vq3d.pipeline import USUAL_SHIFT, detail_field, has_detail, token_field

SAMPLES = 48
"""Intervals of a ray unless said otherwise; 32 instead cost 0.03 dB near and 0.06 dB far."""
_CPU_CHUNK = 512  # rays at once: what fits a core's cache is a third faster
_GPU_CHUNK = 65536
_NEARER = 1.3  # novel cameras may come so much nearer to the nearest surface than the canonical
_FARTHER = 0.5  # share of the farthest disparity at which their rays end
_LEAST_RATIO = 1e-3  # of far over near disparity


@dataclass(frozen=True, kw_only=True)
class Vq3dScenes:
    """Scenes of a batch of pictures; keeps `unflat.evaluation.reconstructor.Reconstruction`."""

    image: Float[Tensor, "batch 3 height width"]
    """Canonical view."""
    disparity: Float[Tensor, "batch height width"]
    """Expected assumed disparity of the canonical view."""
    termination_variance: Float[Tensor, " batch"]
    """Of normalised disparity, mean over the canonical view."""
    indices: Int[Tensor, "batch tokens codes"] | None
    """Codes."""
    fields: list[SceneField | DetailField]
    """One field per picture, in the model's frame."""
    frame: Frame
    """The model's own: assumed field of view and disparities."""
    samples: int
    """Intervals of a novel view's ray."""

    def render(
        self, index: int, alignment: Alignment, cameras: Camera
    ) -> Float[Tensor, "views 3 height width"]:
        """One scene seen by true cameras, one by one."""
        frame = replace(
            self.frame, focal_true=2 * alignment.focal, a=alignment.scale, b=alignment.shift
        )
        field = self.fields[index].with_frame(frame)
        options = options_for(frame, self.samples, str(self.image.device))
        height, width = self.image.shape[-2:]
        cameras = cameras.to(self.image.device)
        views = [
            render(field, cameras[view : view + 1], height, width, options).rgb
            for view in range(cameras.batch_shape[0])
        ]
        return torch.cat(views)


class Vq3dReconstructor:
    """An autoencoder behind the `Reconstructor` protocol.

    Args:
        model: in evaluation mode.
        name: for the report.
        facts: further things the report should keep, as the file's hash.
        samples: intervals per ray, canonical and novel.
        device: where it runs.
        maker: a prior over the same model's tokens: adds the mode ``completed``, which is detail
            with what the photo does not show drawn by it.
    """

    def __init__(
        self,
        model: Autoencoder,
        name: str,
        *,
        facts: dict[str, object] | None = None,
        samples: int = SAMPLES,
        device: str = "cpu",
        maker: SceneMaker | None = None,
    ) -> None:
        self.maker = maker
        self.model = model.eval().to(device)
        self.name = name
        self.facts = facts or {}
        self.samples = samples
        self.device = device
        self.resolution = model.config.resolution
        self.codebook_sizes = model.codebook_sizes or None
        self.modes: tuple[Mode, ...] = ("tokens", "detail") if has_detail(model) else ("tokens",)
        if maker is not None and has_detail(model):
            self.modes = ("tokens", "completed", "detail")  # the last is the usual one

    def describe(self) -> dict[str, object]:
        """Samples per ray, parameters and what the file says of itself."""
        parameters = sum(weights.numel() for weights in self.model.parameters())
        prior = {} if self.maker is None else {"completed by": self.maker.name}
        return {"samples": self.samples, "parameters": parameters, **prior, **self.facts}

    @torch.no_grad()
    def reconstruct(
        self,
        images: Float[Tensor, "batch 3 side side"],
        photos: Float[Tensor, "batch 3 height width"],
        mode: Mode,
        names: Sequence[str] = (),
    ) -> Vq3dScenes:
        """Scenes of some pictures; see `Reconstructor`."""
        images, photos = images.to(self.device), photos.to(self.device)
        encoded = self.model.encode(images)
        fields: list[SceneField | DetailField] = []
        views = []
        for index in range(len(images)):
            one = slice(index, index + 1)
            alone = Encoded(
                Quantized(
                    encoded.quantized.tokens[one],
                    encoded.quantized.indices[one],
                    encoded.quantized.loss,
                ),
                encoded.features[one],
            )
            if mode != "tokens":
                field = detail_field(self.model, alone, images[one], photos[one])
                field = self._completed(field) if mode == "completed" else field
            else:
                field = token_field(self.model, alone)
            fields.append(field)
            views.append(self.canonical(field, photos.shape[-1]))
        return self.scenes_of(fields, views, encoded.quantized.indices)

    def _completed(self, field: DetailField) -> DetailField:
        """Completed as `unflat reconstruct --complete` does, under its frame."""
        assert self.maker is not None  # else there is no such mode
        looked_at = field.with_frame(replace(field.frame, b=USUAL_SHIFT))
        generator = torch.Generator(self.device).manual_seed(0)
        way = self.maker.sampling
        done = complete(looked_at, self.model, self.maker.prior, generator, sampling=way)
        return done.field.with_frame(field.frame)

    def scenes_of(
        self,
        fields: Sequence[SceneField | DetailField],
        views: Sequence[RenderOutput],
        indices: Int[Tensor, "batch tokens codes"],
    ) -> Vq3dScenes:
        """Fields of one scene each, with their `canonical` views and their codes."""
        frame = self.model.frame
        span = frame.d_near - frame.d_far
        return Vq3dScenes(
            image=torch.cat([view.rgb for view in views]),
            disparity=torch.cat([view.disparity for view in views]),
            termination_variance=torch.cat(
                [view.termination_variance.mean(dim=(1, 2)) / span**2 for view in views]
            ),
            indices=indices if self.codebook_sizes else None,
            fields=list(fields),
            frame=frame,
            samples=self.samples,
        )

    def canonical(self, field: SceneField | DetailField, side: int) -> RenderOutput:
        """The view of the model's own camera; the frame there is the identity."""
        focal = self.model.frame.focal_assumed / 2
        camera = Camera(
            camera_to_world=torch.eye(4, device=self.device)[None],
            intrinsics=torch.tensor([[focal, focal, 0.5, 0.5]], device=self.device),
        )
        return render(
            field, camera, side, side, options_for(self.model.frame, self.samples, self.device)
        )


class Vq3dReconstructions:
    """Scenes made from pictures, as if a generator had made them: what a prior over tokens aims at.

    Keeps `unflat.evaluation.generator.Generator`.

    Args:
        reconstructor: the autoencoder.
        pictures: what it makes scenes of; not the real set they are held against.
        mode: of the reconstructor; the last of its modes if not given.
    """

    def __init__(
        self, reconstructor: Vq3dReconstructor, pictures: PictureStream, mode: Mode | None = None
    ) -> None:
        self.reconstructor, self.pictures = reconstructor, pictures
        self.mode = mode or reconstructor.modes[-1]
        self.name = f"{reconstructor.name} {self.mode}"

    @property
    def count(self) -> int:
        """One scene for each picture."""
        return len(self.pictures)

    @property
    def rejects(self) -> list[Reject]:
        """Unreadable pictures."""
        return self.pictures.rejects

    def describe(self) -> dict[str, object]:
        """The model, and how its disparity is read: as `unflat reconstruct` does."""
        frame = f"a = 1, b = {USUAL_SHIFT}, the model's own field of view"
        facts = {"mode": self.mode, "frame": frame, **self.pictures.describe()}
        return {**self.reconstructor.describe(), **facts}

    @torch.no_grad()
    def generate(
        self, indices: Sequence[int], angles_deg: Sequence[float], side: int
    ) -> GeneratedViews:
        """Scenes of the pictures, rendered through the field at every angle."""
        names, numbers, photos = self.pictures.batch(indices)
        if not names:
            empty = torch.empty(0, len(angles_deg), 3, side, side)
            return GeneratedViews(names=names, numbers=numbers, images=empty)
        images = resize_maps(photos, self.reconstructor.resolution)
        made = self.reconstructor.reconstruct(images, photos, self.mode)
        labels = [self.pictures.label(number) for number in numbers]
        return turned_views(self.reconstructor, made, names, numbers, labels, angles_deg, side)


def turned_views(
    reconstructor: Vq3dReconstructor,
    made: Vq3dScenes,
    names: Sequence[str],
    numbers: Sequence[int],
    labels: Sequence[str | None],
    angles_deg: Sequence[float],
    side: int,
) -> GeneratedViews:
    """Scenes rendered through their fields at every angle, as if they had been generated.

    Args:
        reconstructor: who made them.
        made: one scene for each name.
        names: for people.
        numbers: by which they can be made again.
        labels: their classes, where they are known.
        angles_deg: how far the camera is turned about the point at the scene's median depth.
        side: of the pictures, in pixels.
    """
    angles = torch.deg2rad(torch.tensor(list(angles_deg)))
    turned = [_turned(reconstructor, made, index, angles, side) for index in range(len(names))]
    focal = made.frame.focal_assumed / 2
    lens = torch.tensor([focal, focal, 0.5, 0.5]).expand(len(names), len(angles), 4)
    return GeneratedViews(
        names=list(names),
        numbers=list(numbers),
        images=torch.stack([seen.rgb.cpu() for seen, _ in turned]),
        inverse_depth=torch.stack([seen.disparity.cpu() for seen, _ in turned]),
        camera=Camera(camera_to_world=torch.stack([pose for _, pose in turned]), intrinsics=lens),
        labels=list(labels),
    )


def _turned(
    reconstructor: Vq3dReconstructor, made: Vq3dScenes, index: int, angles: Tensor, side: int
) -> tuple[RenderOutput, Float[Tensor, "views 4 4"]]:
    """One scene from every angle, turned about its median depth."""
    device = reconstructor.device
    frame = replace(made.frame, b=USUAL_SHIFT)
    field = made.fields[index].with_frame(frame)
    options = options_for(frame, reconstructor.samples, device)
    canonical = (made.disparity[index] - frame.b) / frame.a
    pivot = 1 / canonical.median().clamp_min(1 / options.far).item()
    poses = turn_about_pivot(angles, torch.zeros_like(angles), pivot)
    focal = made.frame.focal_assumed / 2
    lens = torch.tensor([[focal, focal, 0.5, 0.5]])
    views = [
        render(
            field,
            Camera(camera_to_world=pose[None], intrinsics=lens).to(device),
            side,
            side,
            options,
        )
        for pose in poses
    ]
    parts = [torch.cat(values) for values in zip(*views, strict=True)]
    return RenderOutput(*parts), poses


def options_for(frame: Frame, samples: int, device: str = "cpu") -> RenderOptions:
    """Where rays of true cameras begin and end: the scene's own disparities with some room.

    Args:
        frame: of the scene; its a and b bring true disparity to the assumed one.
        samples: intervals, even in true disparity.
        device: rays go in smaller chunks on a CPU.
    """
    nearest = _NEARER * (frame.d_near - frame.b) / frame.a
    farthest = _FARTHER * (frame.d_far - frame.b) / frame.a
    farthest = max(farthest, _LEAST_RATIO * nearest)
    return RenderOptions(
        samples=samples,
        near=1 / nearest,
        far=1 / farthest,
        spacing="disparity",
        chunk=_CPU_CHUNK if torch.device(device).type == "cpu" else _GPU_CHUNK,
    )
