"""A Scene: what every pipeline answers with, and all that renderers, viewers and exporters need.

It holds a field, the canonical camera and where it came from. Its file needs no model to render.

    scene = unflat.reconstruct("photo.jpg")
    scene.orbit().save("orbit.webp")
    scene.save("scene.safetensors")
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

from unflat.data.object_mesh import ObjectSurface
from unflat.data.voxelize import RESOLUTION
from unflat.errors import UserError
from unflat.export.layer import Layer
from unflat.export.mesh import Mesh, mesh_from_layers
from unflat.export.objects import join_meshes, object_layers, object_mesh, peel
from unflat.export.picture import to_uint8
from unflat.export.video import write_video
from unflat.fields.behind import BehindField
from unflat.fields.detail import SHEET, DetailField
from unflat.fields.edited import EditedField
from unflat.fields.field import Field
from unflat.fields.saved import SavedField, pack_field, unpack_field
from unflat.fields.viewspace import ViewSpaceField, ray_limits
from unflat.geometry.camera import Camera
from unflat.geometry.trajectory import orbit, spiral, wiggle
from unflat.insertion import Subject, Where, find_subject, inserted, inserted_scene
from unflat.rendering.layered import LayeredPicture, Surroundings
from unflat.rendering.objects import FurnishedPicture
from unflat.rendering.render import RenderOptions, RenderOutput, render
from unflat.tensor_file import read_tensor_file, tensor_file_kind, write_tensor_file

FORMAT = 2
_PLAIN_FORMAT = 1  # of scenes without objects, which older versions read as well
SAMPLES = 64  # intervals of a ray of a final picture
PathName = Literal["orbit", "spiral", "wiggle"]
_PATHS = {"orbit": orbit, "spiral": spiral, "wiggle": wiggle}
_HIDDEN_SIDE = 96  # pixels of the layer behind the visible one
_JUMP = 0.05  # of normalised disparity; behind such a step something is hidden
_BEHIND = 0.35  # of the way from the farthest surface around to the visible one
_SUBJECT_SIDE = 128  # pixels of the picture in which a scene's subject is looked for
_REACH = 0.06  # share of the picture's side around a step that a small move can uncover


@dataclass(frozen=True, kw_only=True)
class SceneHeader:
    """What a scene is and where it came from."""

    system: str
    """As in ``vq3d``."""
    model: str
    """Name or file of the model."""
    model_sha256: str = ""
    """Of the model's file."""
    licence: str = "not stated"
    """Of the model; the picture's own licence is its author's."""
    source: str = ""
    """Name of the picture."""
    fov_deg: float = 50.0
    """Across the picture."""
    fov_from: Literal["default", "option", "exif"] = "default"
    """Where the field of view came from."""
    units: Literal["unknown", "metric"] = "unknown"
    """Of lengths; a single photo fixes none."""
    confidence: float | None = None
    """Between 0 and 1; how it is computed is told by the system's page."""
    created: str = ""
    """Date, ISO 8601."""
    settings: dict[str, str | int | float | bool] = field(default_factory=dict[str, Any])
    """Further facts: seed, versions, mode."""


@dataclass(frozen=True)
class Frames:
    """A moving picture.

    Attributes:
        images: sRGB.
        fps: frames per second.
    """

    images: UInt8[np.ndarray, "frames height width 3"]
    fps: float = 24.0

    def save(self, path: str | Path) -> Path:
        """The path written: .mp4 (video extra) or .webp."""
        return write_video(self.images, path, self.fps)


class Scene:
    """One scene in the canonical camera's own frame (OpenCV axes, identity pose)."""

    def __init__(
        self,
        field: SavedField,
        header: SceneHeader,
        *,
        max_angle: float = math.radians(20),
        picture: Float[Tensor, "3 height width"] | None = None,
    ):
        """A scene of one field.

        Args:
            field: a batch of one.
            header: what it is.
            max_angle: how far the camera may honestly turn about the pivot, radians.
            picture: what the model saw, for scenes that do not carry it in their field.
        """
        self.field = field
        self.header = header
        self.max_angle = max_angle
        self._picture = picture

    @property
    def photo(self) -> Tensor | None:
        """The picture it was made from, "3 height width" in [0, 1]; None if it carries none."""
        ground = self._ground
        return ground.photo[0] if isinstance(ground, DetailField) else self._picture

    @property
    def camera(self) -> Camera:
        """The canonical camera, batch of one."""
        half = self.field.frame.focal_true / 2
        return Camera(
            camera_to_world=torch.eye(4)[None],
            intrinsics=torch.tensor([[half, half, 0.5, 0.5]]),
        )

    @property
    def pivot_depth(self) -> float:
        """Depth of the point that camera paths turn about: the median of what is seen."""
        normalised = self._surface(64).median()
        frame = self.field.frame
        disparity = frame.d_far + (frame.d_near - frame.d_far) * float(normalised)
        return 1 / max((disparity - frame.b) / frame.a, 1e-3)

    def render(
        self,
        camera: Camera | None = None,
        size: tuple[int, int] | None = None,
        samples: int = SAMPLES,
    ) -> RenderOutput:
        """Pictures through some cameras (batch axis), one after the other.

        Args:
            camera: the canonical one if absent.
            size: height and width in pixels; the photo's own if absent.
            samples: intervals of a ray.
        """
        camera = self.camera if camera is None else camera
        height, width = size or self.size
        near, far = ray_limits(self.field.frame)
        options = RenderOptions(samples=samples, near=near, far=far, chunk=4096)
        views = camera
        if not camera.batch_shape:
            views = replace(
                camera,
                camera_to_world=camera.camera_to_world[None],
                intrinsics=camera.intrinsics[None],
            )
        parts = [
            render(self.field, views[i : i + 1], height, width, options)
            for i in range(views.batch_shape[0])
        ]
        return RenderOutput(*(torch.cat(values) for values in zip(*parts, strict=True)))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photo, or of the field's own plane without one."""
        photo = self.photo
        if photo is None:
            photo = self._base.uv[0]
        return int(photo.shape[-2]), int(photo.shape[-1])

    def depth(self, size: tuple[int, int] | None = None) -> Float[Tensor, "height width"]:
        """Depth of the canonical view along its axis, world units."""
        return self.layers(size)[0].depth

    def orbit(
        self,
        path: PathName = "orbit",
        frames: int = 36,
        size: tuple[int, int] | None = None,
        max_angle: float = math.radians(12),
        fps: float = 24.0,
        quality: Literal["layers", "field"] = "layers",
        progress: Callable[[int, int], None] | None = None,
    ) -> Frames:
        """A camera path as moving pictures.

        Args:
            path: ``orbit``, ``spiral`` or ``wiggle``.
            frames: how many.
            size: height and width; the photo's, at most 512, if absent.
            max_angle: farthest turn about the pivot, radians.
            fps: frames per second.
            quality: ``layers`` splats the layered depth picture (a fraction of a second a frame);
                ``field`` marches rays through the field itself (some seconds).
            progress: is told how many of how many frames are done.
        """
        height, width = size or (min(512, self.size[0]), min(512, self.size[1]))
        poses = _PATHS[path](frames, max_angle, self.pivot_depth)
        layered = None if quality == "field" else self.layered((height, width))
        images: list[np.ndarray] = []
        for pose in poses:
            view = Camera(camera_to_world=pose[None], intrinsics=self.camera.intrinsics)
            if layered is None:
                rgb = self.render(view, (height, width)).rgb[0]
            else:
                rgb = layered.view(view)
            images.append(to_uint8(rgb))
            if progress is not None:
                progress(len(images), frames)
        return Frames(np.stack(images), fps)

    def layered(self, size: tuple[int, int] | None = None) -> LayeredPicture | FurnishedPicture:
        """All layers at one size (the photo's if absent), to be seen quickly by other cameras."""
        if isinstance(self.field, EditedField):
            return FurnishedPicture(self.without_objects()._layered(size), self.field.objects)
        return self._layered(size)

    def _layered(self, size: tuple[int, int] | None) -> LayeredPicture:
        height, width = size or self.size
        stacks: list[Tensor] = []
        for layer in self.layers((height, width)):
            stack = torch.cat(
                [layer.rgb.permute(2, 0, 1), 1 / layer.depth[None], layer.mask[None].float()]
            )
            if stack.shape[1:] != (height, width):
                stack = functional.interpolate(stack[None], (height, width), mode="bilinear")[0]
            stacks.append(stack)
        return LayeredPicture(
            [stack[:3] for stack in stacks],
            [stack[3] for stack in stacks],
            [stack[4] > 0.5 for stack in stacks],
            self.camera,
            self._surroundings(),
        )

    @torch.no_grad()
    def layers(self, size: tuple[int, int] | None = None) -> list[Layer]:
        """The canonical view as depth pictures, front first: what is seen, what is hidden.

        The hidden layer exists around steps in depth, where a small move uncovers it. Objects that
        were put in bring their fronts and backs, and all surfaces are sorted pixel by pixel.

        Args:
            size: height and width of the front one; the photo's own if absent.
        """
        height, width = size or self.size
        if isinstance(self.field, EditedField):
            return self._layers_with_objects(self.field, (height, width))
        photo = self.photo if isinstance(self.field, DetailField) else None
        if photo is None:
            seen = self.render(size=(height, width))
            photo, surface = seen.rgb[0], self._normalised(seen.disparity[0])
        else:
            surface = self._surface(height, width)
        photo = functional.interpolate(photo[None], (height, width), mode="area")[0]
        front = Layer(
            rgb=photo.permute(1, 2, 0),
            depth=self._depth_of(surface),
            mask=torch.ones(height, width, dtype=torch.bool),
        )
        if not isinstance(self.field, DetailField):  # rays are dear, and it is blurred anyway
            height, width = min(_HIDDEN_SIDE, height), min(_HIDDEN_SIDE, width)
        return [front, self._hidden(height, width)]

    def mesh(self, size: tuple[int, int] | None = None) -> Mesh:
        """The layers as one mesh with vertex colours, in the scene world."""
        height, width = size or (min(256, self.size[0]), min(256, self.size[1]))
        if isinstance(self.field, EditedField):
            room = self.without_objects().mesh((height, width))
            return join_meshes([room, *map(object_mesh, self.field.objects)])
        return mesh_from_layers(self.layers((height, width)), self.camera)

    def insert(
        self,
        other: "Scene | Mesh | ObjectSurface | Field",
        where: Where,
        *,
        resolution: int = RESOLUTION,
        farthest: float | None = None,
        mask: Bool[Tensor, "height width"] | None = None,
    ) -> "Scene":
        """This scene with something put into it; occlusion is right, light and shadows are not.

        Args:
            other: a mesh (`unflat.data.read_object_mesh`); a field of colours with bounds, in the
                object world; or another scene, of which the subject is taken.
            where: a `Placement`, or a 4x4 similarity from the object world (y up, front +z) to
                this scene's world.
            resolution: voxels along the longest side of a mesh or field.
            farthest: normalised disparity down to which a scene is taken; what parts its near from
                its far best, if absent.
            mask: what of an inserted scene's picture is taken; what stands on its ground, if
                absent.

        Raises:
            UserError: the place is outside the scene, or nothing of the other scene is that near.
        """
        frame = self.field.frame
        nearest, _ = ray_limits(frame)
        if isinstance(other, Scene):
            kept = find_subject(other._surface(_SUBJECT_SIDE), farthest)
            if mask is not None:
                kept = Subject(kept.farthest if farthest is not None else 0.0, mask)
            new = inserted_scene(other.field, where, frame, kept, nearest=nearest)
        else:
            new = [inserted(other, where, frame, nearest=nearest, resolution=resolution)]
        older = self.field.objects if isinstance(self.field, EditedField) else []
        field = EditedField(self._ground, [*older, *new])
        return Scene(field, self.header, max_angle=self.max_angle, picture=self._picture)

    def nearness_at(self, x: float, y: float) -> float:
        """Nearness of what the reconstruction shows at a point of the picture, for a `Placement`.

        Args:
            x: -1 at the left border, 1 at the right one.
            y: -1 at the lower border, 1 at the upper one.
        """
        surface = self._surface(*self.size)
        height, width = surface.shape
        column = min(max(int((x + 1) / 2 * width), 0), width - 1)
        row = min(max(int((1 - y) / 2 * height), 0), height - 1)
        return min(max(float(surface[row, column]), 0.0), 1.0)

    @property
    def is_edited(self) -> bool:
        """Whether something was put into it."""
        return isinstance(self.field, EditedField)

    def without_objects(self) -> "Scene":
        """The scene as it was reconstructed."""
        return Scene(self._ground, self.header, max_angle=self.max_angle, picture=self._picture)

    def save(self, path: str | Path) -> Path:
        """The path of the one safetensors file written; it needs no model to be read."""
        about, tensors = pack_field(self.field)
        if self._picture is not None:
            tensors["picture"] = (self._picture * 255).round().clamp(0, 255).to(torch.uint8)
        header = {
            "format": FORMAT if isinstance(self.field, EditedField) else _PLAIN_FORMAT,
            "kind": "scene",
            "field": about,
            "max_angle": self.max_angle,
            "header": dataclasses.asdict(self.header),
        }
        write_tensor_file(Path(path), tensors, header)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "Scene":
        """The scene of a file.

        Raises:
            UserError: no such file, no scene of a photo, cut in half, or of a newer unflat.
        """
        if tensor_file_kind(Path(path)) == "object":
            raise UserError(f"{path}: holds an object, not the scene of a photo; give such a one.")
        about, tensors = read_tensor_file(Path(path), "scene", FORMAT)
        try:
            loaded = unpack_field(about["field"], tensors)
            header = SceneHeader(**about["header"])
            picture = tensors["picture"].float() / 255 if "picture" in tensors else None
            return cls(loaded, header, max_angle=float(about["max_angle"]), picture=picture)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{path}: its parts do not fit together; make the scene again."
            ) from error

    @property
    def _ground(self) -> ViewSpaceField | DetailField:
        """The reconstruction, without what was put into it."""
        return self.field.base if isinstance(self.field, EditedField) else self.field

    @property
    def _base(self) -> ViewSpaceField:
        ground = self._ground
        return ground.base if isinstance(ground, DetailField) else ground

    @torch.no_grad()
    def _surface(self, height: int, width: int | None = None) -> Float[Tensor, "height width"]:
        """Normalised disparity of what the canonical camera sees of the reconstruction."""
        size = (height, width or height)
        if isinstance(self._ground, DetailField):
            return functional.interpolate(self._ground.disparity, size, mode="nearest")[0, 0]
        room = self.without_objects()
        return self._normalised(room.render(size=size, samples=48).disparity[0])

    def _normalised(self, disparity: Tensor) -> Tensor:
        """True disparity of the canonical view as the field counts it."""
        frame = self.field.frame
        assumed = frame.a * disparity + frame.b
        return (assumed - frame.d_far) / (frame.d_near - frame.d_far)

    def _layers_with_objects(self, field: EditedField, size: tuple[int, int]) -> list[Layer]:
        layers: list[Layer] = []
        for layer in self.without_objects().layers(size):
            stack = torch.cat([layer.rgb.permute(2, 0, 1), layer.depth[None], layer.mask[None]])
            if stack.shape[1:] != size:
                stack = functional.interpolate(stack[None], size, mode="nearest")[0]
            layers.append(Layer(stack[:3].permute(1, 2, 0), stack[3], stack[4] > 0.5))
        for placed in field.objects:
            layers += object_layers(placed, self.camera, size)
        return peel(layers)

    def _depth_of(self, surface: Tensor) -> Tensor:
        frame = self.field.frame
        assumed = frame.d_far + (frame.d_near - frame.d_far) * surface.clamp_min(0)
        _, far = ray_limits(frame)
        return (1 / ((assumed - frame.b) / frame.a).clamp_min(1 / far)).clamp_max(far)

    def _surroundings(self) -> Surroundings | None:
        """What stands beside the photo, for views from farther aside."""
        field = self.field
        if not isinstance(field, DetailField) or field.around is None:
            return None
        rgb, surface, mask = (part[0] for part in field.around)
        inside = torch.linspace(-1, 1, 2 * mask.shape[-1] + 1)[1::2].abs() * field.reach < 1
        mask = (mask[0] > 0.5) & ~(inside[:, None] & inside)
        return Surroundings(rgb, 1 / self._depth_of(surface[0]), mask, field.reach)

    @torch.no_grad()
    def _hidden(self, height: int, width: int) -> Layer:
        if isinstance(self.field, DetailField) and self.field.hidden is not None:
            sheet = torch.cat(list(self.field.hidden), dim=1)
            sheet = functional.interpolate(sheet, (height, width), mode="nearest")[0]
            depth, mask = self._depth_of(sheet[3]), sheet[4] > 0.5
            return Layer(rgb=sheet[:3].permute(1, 2, 0), depth=depth, mask=mask)
        surface = self._surface(height, width)
        reach = 2 * max(1, round(_REACH * height)) + 1
        lowest = -functional.max_pool2d(-surface[None, None], reach, 1, reach // 2)[0, 0]
        # Nearer to what lies around than to the surface: else an object's own back would show.
        limit = torch.minimum(surface - SHEET - 0.03, lowest + _BEHIND * (surface - lowest))
        behind = BehindField(self._base, limit[None, None])
        near, far = ray_limits(self.field.frame)
        options = RenderOptions(samples=40, near=near, far=far, chunk=2048)
        seen = render(behind, self.camera, height, width, options)
        return Layer(
            rgb=seen.rgb[0].permute(1, 2, 0),
            depth=seen.depth[0],
            mask=surface - lowest > _JUMP,
        )
