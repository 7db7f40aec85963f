"""An ObjectScene: one object in a box, seen from all around; what generators and inversion give.

It answers to the same verbs as `unflat.scene.Scene`, in another world: that of the object (y up,
front +z). Its file needs no model to render.

    scene = load_scene("car/scene.safetensors")
    scene.orbit().save("car.webp")
    write_mesh(scene.mesh(), "car.glb")
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unflat.errors import UserError
from unflat.export.isosurface import mesh_of_field
from unflat.export.mesh import Mesh
from unflat.export.picture import to_uint8
from unflat.fields.distance import PaletteField
from unflat.fields.field import Bounded, Field
from unflat.fields.saved_object import pack_object_field, unpack_object_field
from unflat.fields.slope import outward
from unflat.fields.voxels import VoxelField
from unflat.geometry.camera import Camera
from unflat.geometry.rays import Rays, image_rays
from unflat.geometry.turntable import swing, turntable
from unflat.rendering.occupancy import OccupancyGrid
from unflat.rendering.render import RayOutput, RenderOptions, RenderOutput, render, render_rays
from unflat.rendering.sampling import box_limits, even_edges, importance_edges, merge_edges
from unflat.scene import Frames, PathName, Scene, SceneHeader
from unflat.tensor_file import read_tensor_file, tensor_file_kind, write_tensor_file

KIND = "object"
"""In the header of its file; that of a `Scene` says "scene"."""
FORMAT = 3  # of the one file format that scenes and objects share; 1 and 2 hold no objects
SAMPLES = 64  # intervals of a ray, and as many again where the first ones found matter
FILM_SAMPLES = 16  # of a moving picture: solids are 48 dB or nearer to the still one
SIDE = 256  # pixels of a picture if nothing else is said
WHITE = (1.0, 1.0, 1.0)

_CHUNK = 4096  # rays at once
_STEEPEST = math.radians(85)  # elevation up to which a path may rise
_SLOPES = 8  # places along a ray where a normal is asked for: those where most light ends
_FADED = 1e-3  # density, per world unit, that films leave out where nothing else is around
_WORTH_A_GRID = 1 << 24  # questions to the field: eight times as many as the grid itself asks


class ObjectScene:
    """One object in a box of the object world (y up, front +z), before a plain background.

    What is rendered is the field itself. Where a generator has a network after the rendering, as
    EG3D's super-resolution, pictures here are what this network would get: rougher than its own,
    but the same from all sides, and no network is needed to open the file.
    """

    def __init__(
        self,
        field: Field,
        header: SceneHeader,
        camera: Camera,
        *,
        size: tuple[int, int] = (SIDE, SIDE),
        background: tuple[float, float, float] = WHITE,
        picture: Float[Tensor, "3 height width"] | None = None,
    ):
        """A scene of one field.

        Args:
            field: of one scene of colours, with ``bounds``.
            header: what it is.
            camera: the canonical one, in the object world; with or without a batch axis of 1.
            size: height and width of its pictures, pixels.
            background: colour behind the object, in [0, 1].
            picture: what the model saw, for objects that were made from a picture.

        Raises:
            ValueError: the field has no bounds, or there is more than one camera.
        """
        if not isinstance(field, Bounded):
            raise ValueError(f"{type(field).__name__} has no bounds: nothing says where it ends")
        if math.prod(camera.batch_shape) != 1:
            raise ValueError(f"one canonical camera is needed, not {tuple(camera.batch_shape)}")
        self.field = field
        self.header = header
        self.size = size
        self.background = background
        self.photo = picture
        """The picture it was made from, "3 height width" in [0, 1]; None if there is none."""
        self.camera = Camera(
            camera_to_world=camera.camera_to_world.detach().reshape(1, 4, 4),
            intrinsics=camera.intrinsics.detach().reshape(1, 4),
            kind=camera.kind,
        ).to(field.bounds.device, torch.float32)
        """The canonical camera, batch of one."""

    @property
    def bounds(self) -> Float[Tensor, "2 3"]:
        """Lowest and highest corner of the object's box, world units."""
        assert isinstance(self.field, Bounded)  # the constructor saw to it
        return self.field.bounds

    @property
    def pivot(self) -> Float[Tensor, "3"]:
        """What camera paths turn about: the point of the optical axis nearest to the box's middle.

        So the first camera of every path is the canonical one, wherever that looks.
        """
        position, forward = self.camera.position[0], self.camera.forward[0]
        return position + ((self.bounds.mean(0) - position) @ forward) * forward

    def render(
        self,
        camera: Camera | None = None,
        size: tuple[int, int] | None = None,
        samples: int = SAMPLES,
    ) -> RenderOutput:
        """Pictures through some cameras (batch axis), one after the other, over the background.

        Args:
            camera: the canonical one if absent.
            size: height and width in pixels; the scene's own if absent.
            samples: intervals of a ray, to which as many are added where matter was found.
        """
        return self._render(camera, size, samples)

    @property
    def quick_samples(self) -> int:
        """Intervals of a ray for films and previews, as ``samples`` of `render`.

        Few do for solids. Voxels may be thin shells, which intervals of more than two voxels miss.
        """
        if not isinstance(self.field, VoxelField):
            return FILM_SAMPLES
        return max(FILM_SAMPLES, max(self.field.density.shape[-3:]) // 2)

    def depth(self, size: tuple[int, int] | None = None) -> Float[Tensor, "height width"]:
        """Depth of the canonical view along its axis, world units; infinite beside the object."""
        return depth_of(self.render(size=size))[0]

    def normals(
        self,
        camera: Camera | None = None,
        size: tuple[int, int] | None = None,
        samples: int = SAMPLES,
    ) -> Float[Tensor, "views 3 height width"]:
        """Which way the surface looks: unit vectors in world axes, 0 beside the object.

        They are the slopes of the field's distance, or of its density where it has none
        (`outward`), where most of a ray's light ends. `unflat.export.colorize_normals` makes
        pictures of them.

        Args:
            camera: the canonical one if absent.
            size: height and width in pixels; the scene's own if absent.
            samples: as in `render`.
        """
        height, width = size or self.size
        views = self._views(camera)
        rays = image_rays(views, height, width)
        chunks = zip(
            rays.origins.reshape(-1, 3).split(_CHUNK),
            rays.directions.reshape(-1, 3).split(_CHUNK),
            strict=True,
        )
        far = max(self._reach(views[index : index + 1]) for index in range(views.batch_shape[0]))
        normals = torch.cat([self._normals_along(*some, far, samples) for some in chunks])
        return normals.reshape(-1, height, width, 3).permute(0, 3, 1, 2)

    def orbit(
        self,
        path: PathName = "orbit",
        frames: int = 36,
        size: tuple[int, int] | None = None,
        max_angle: float = math.radians(20),
        fps: float = 24.0,
        samples: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Frames:
        """A camera path as moving pictures.

        Args:
            path: ``orbit`` goes once around at the canonical camera's elevation and radius;
                ``spiral`` does so and rises and sinks on its way; ``wiggle`` swings to both sides.
            frames: how many.
            size: height and width; the scene's own if absent.
            max_angle: of rising, sinking and swinging, radians.
            fps: frames per second.
            samples: as in `render`; `quick_samples` if absent.
            progress: is told how many of how many frames are done.
        """
        height, width = size or self.size
        samples = self.quick_samples if samples is None else samples
        grid = None
        if frames * height * width * 2 * samples > _WORTH_A_GRID:
            grid = OccupancyGrid.of(self.field, threshold=_FADED)
        images: list[np.ndarray] = []
        for pose in self.path(path, frames, max_angle):
            view = replace(self.camera, camera_to_world=pose[None])
            seen = self._render(view, size, samples, grid)
            images.append(to_uint8(seen.rgb[0]))
            if progress is not None:
                progress(len(images), frames)
        return Frames(np.stack(images), fps)

    def path(
        self, path: PathName, frames: int, max_angle: float = math.radians(20)
    ) -> Float[Tensor, "frames 4 4"]:
        """Camera-to-world of the cameras of `orbit`; the first is the canonical one.

        Args:
            path: ``orbit``, ``spiral`` or ``wiggle``.
            frames: how many.
            max_angle: of rising, sinking and swinging, radians; less where the camera would come
                near the poles.
        """
        start = self.camera.camera_to_world[0]
        if path == "wiggle":
            return swing(start, self.pivot, frames, max_angle)
        steepness = abs(math.asin(max(-1.0, min(1.0, float(start[1, 2])))))
        rise = max(0.0, min(max_angle, _STEEPEST - steepness))
        return turntable(start, self.pivot, frames, rise if path == "spiral" else 0.0)

    def mesh(self, resolution: int = 128, level: float | None = None) -> Mesh:
        """Its whole surface with vertex colours, in the object world (`mesh_of_field`).

        Args:
            resolution: grid points along the longest side of the box.
            level: where the surface lies, if not where `mesh_of_field` puts it.

        Raises:
            UserError: it has no surface.
        """
        return mesh_of_field(self.field, resolution, level)

    def recolored(self, other: "ObjectScene") -> "ObjectScene":
        """The same object in the colours of another one that the same generator made.

        Its field chooses, point by point, among the colours of a palette; the same choice means
        the same kind of part in all objects of a generator. The scene carries no picture.

        Raises:
            UserError: one of the two has no palette, or theirs differ in size.
        """
        own, given = self.field, other.field
        if not isinstance(own, PaletteField) or not isinstance(given, PaletteField):
            which, what = (
                (self, "it") if not isinstance(own, PaletteField) else (other, "the other")
            )
            raise UserError(
                f"{what} ({which.header.model}) keeps no palette, so its colours cannot be "
                "exchanged; take objects of one model of unflat invert, or of sdf_triplane."
            )
        if own.palette.shape != given.palette.shape or self.header.model != other.header.model:
            raise UserError(
                f"the objects are of {self.header.model} and {other.header.model}, whose palettes "
                "do not mean the same; take two of one model."
            )
        header = replace(
            self.header,
            confidence=None,
            settings={**self.header.settings, "colors_from": other.header.source or "another"},
        )
        field = PaletteField(own.field, given.palette.to(own.palette))
        return ObjectScene(field, header, self.camera, size=self.size, background=self.background)

    def save(self, path: str | Path) -> Path:
        """The path of the one safetensors file written; it needs no model to be read."""
        about, tensors = pack_object_field(self.field)
        tensors = {f"field/{name}": value for name, value in tensors.items()}
        tensors["camera_to_world"] = self.camera.camera_to_world[0]
        tensors["intrinsics"] = self.camera.intrinsics[0]
        if self.photo is not None:
            tensors["picture"] = (self.photo * 255).round().clamp(0, 255).to(torch.uint8)
        header = {
            "format": FORMAT,
            "kind": KIND,
            "field": about,
            "camera": self.camera.kind,
            "size": list(self.size),
            "background": list(self.background),
            "header": dataclasses.asdict(self.header),
        }
        write_tensor_file(Path(path), tensors, header)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "ObjectScene":
        """The scene of a file.

        Raises:
            UserError: no such file, no object, cut in half, or of a newer unflat.
        """
        if tensor_file_kind(Path(path)) == "scene":
            raise UserError(f"{path}: holds the scene of a photo, not an object; give such a one.")
        about, tensors = read_tensor_file(Path(path), KIND, FORMAT)
        own = {name[6:]: value for name, value in tensors.items() if name.startswith("field/")}
        try:
            height, width = about["size"]
            red, green, blue = about["background"]
            return cls(
                unpack_object_field(about["field"], own),
                SceneHeader(**about["header"]),
                Camera(
                    camera_to_world=tensors["camera_to_world"],
                    intrinsics=tensors["intrinsics"],
                    kind=about["camera"],
                ),
                size=(height, width),
                background=(red, green, blue),
                picture=tensors["picture"].float() / 255 if "picture" in tensors else None,
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{path}: its parts do not fit together; make the object again."
            ) from error

    @torch.no_grad()
    def _normals_along(
        self,
        origins: Float[Tensor, "rays 3"],
        directions: Float[Tensor, "rays 3"],
        far: float,
        samples: int,
    ) -> Float[Tensor, "rays 3"]:
        near, leave = box_limits(origins, directions, self.bounds, 0.0, far)
        edges = near[:, None] + (leave - near)[:, None] * even_edges(samples, device=near.device)
        first = self._light(origins, directions, edges)
        finer = importance_edges(edges, first.weights[0], samples - 1)
        light = self._light(origins, directions, merge_edges(edges, finer))
        weights, place = light.weights[0].topk(min(_SLOPES, 2 * samples))
        points = Rays(origins, directions).at(light.middles[0].gather(-1, place))
        slope = (weights[..., None] * outward(self.field, points[None])[0]).sum(-2)
        there = light.opacity[0, :, None] > 0.5
        return torch.where(there, functional.normalize(slope, dim=-1), 0.0)

    def _light(self, origins: Tensor, directions: Tensor, edges: Tensor) -> RayOutput:
        """Where the light of rays ends, as a batch of one."""
        return render_rays(
            self.field, origins[None], directions[None], edges[None], opaque_last=False
        )

    def _views(self, camera: Camera | None) -> Camera:
        """A camera with a batch axis, where the field is; the canonical one if absent."""
        views = self.camera if camera is None else camera.to(self.bounds.device)
        if views.batch_shape:
            return views
        pose, intrinsics = views.camera_to_world[None], views.intrinsics[None]
        return replace(views, camera_to_world=pose, intrinsics=intrinsics)

    def _render(
        self,
        camera: Camera | None,
        size: tuple[int, int] | None,
        samples: int,
        grid: OccupancyGrid | None = None,
    ) -> RenderOutput:
        views = self._views(camera)
        parts: list[RenderOutput] = []
        for index in range(views.batch_shape[0]):
            view = views[index : index + 1]
            far = self._reach(view)
            options = RenderOptions(
                samples=samples,
                fine_samples=samples,
                near=1e-4 * far,
                far=far,
                spacing="distance",
                opaque_last=False,
                background=self.background,
                chunk=_CHUNK,
                occupancy=grid,
                fit_box=True,
            )
            parts.append(render(self.field, view, *(size or self.size), options))
        return RenderOutput(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def _reach(self, view: Camera) -> float:
        """A distance beyond which no ray of a camera is inside the box."""
        low, high = self.bounds
        away = (view.position[0] - (low + high) / 2).norm() + (high - low).norm()
        return float(away if view.kind == "perspective" else away + (1 / view.intrinsics[0, 0]))


def depth_of(seen: RenderOutput) -> Float[Tensor, "views height width"]:
    """Depth of what pictures show of an object, infinite where they show more of what is behind.

    It is that of the light which the object stopped; ``seen.depth`` counts the rest as well, as if
    it came from infinitely far.
    """
    depth = seen.opacity / seen.disparity.clamp_min(1e-12)
    return torch.where(seen.opacity > 0.5, depth, torch.inf)


def load_scene(path: str | Path) -> Scene | ObjectScene:
    """The scene of a photo or of an object, whichever a file holds.

    Raises:
        UserError: no such file, no scene, cut in half, or of a newer unflat.
    """
    if tensor_file_kind(Path(path)) == KIND:
        return ObjectScene.load(path)
    return Scene.load(path)
