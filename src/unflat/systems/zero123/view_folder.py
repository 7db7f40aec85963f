"""The folder that a person gets for views of an object; every view in it is whole as it comes.

mug/
    input.png            what the model saw: cut out, centred, on white
    az000_el20.png ...   the views, with transparency where the model tells it
    sheet.png            all of them
    orbit.mp4            where they go once around; orbit.webp without the video extra
    transforms.json      their cameras, as NeRF tools read them
    report.json          last: a folder without it is an interrupted run
    views.json           what was asked for, so that a run goes on with nothing else
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unflat.errors import UserError
from unflat.export import contact_sheet, to_uint8, write_png, write_video
from unflat.files import atomic_path
from unflat.geometry import Camera
from unflat.geometry.frames import camera_object_to_z_up, flip_camera_axes
from unflat.geometry.published_frames import ZERO123_FOV
from unflat.geometry.relative_pose import RelativePose
from unflat.systems.zero123.model import Views
from unflat.systems.zero123.prepare import Prepared

PLAN = "views.json"
REPORT = "report.json"
REFERENCE_RADIUS = 1.85
"""World units from the object to the first camera: the middle of what was learned from."""

_COLUMNS = 6
_SECONDS = 3.0
_LEAST_ORBIT = 4


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One view."""

    azimuth_deg: float
    """Around to the camera's right, from the picture's own side."""
    elevation_deg: float
    """How high the camera stands."""
    distance: float
    """Farther than the picture's camera by so many object sizes."""
    sample: int
    """Which of several for the same pose, from 0."""

    @property
    def name(self) -> str:
        """Of its file."""
        turn = f"az{_number(self.azimuth_deg, 3)}_el{_number(self.elevation_deg, 2)}"
        far = f"_d{self.distance:+g}" if self.distance else ""
        return f"{turn}{far}{f'_{self.sample + 1}' if self.sample else ''}.png"


class ViewFolder:
    """Views on disk, some of them or all.

    Args:
        path: the folder.
        asked: all views.
        settings: whatever else decides how they look; the same when a run goes on.
    """

    def __init__(self, path: Path, asked: Sequence[Asked], settings: Mapping[str, Any]) -> None:
        self.path, self.asked = path, list(asked)
        self.settings = json.loads(json.dumps(dict(settings)))

    def open(self, *, force: bool, resume: bool) -> list[int]:
        """Which views are missing; a new folder gets its plan.

        Raises:
            UserError: it holds a result, an interrupted run that is not to go on, another run's
                views, or something else.
        """
        if self.path.is_file():
            raise UserError(f"{self.path}: is a file; choose another --out.")
        older = self._older()
        if older is None:
            if self.path.is_dir() and any(self.path.iterdir()):
                raise UserError(f"{self.path}/: holds other files; choose another --out.")
        elif force:
            self._clear()
        elif (self.path / REPORT).exists():
            raise UserError(
                f"{self.path}/: already holds a result; add --force to replace it or choose --out."
            )
        elif not resume:
            raise UserError(
                f"{self.path}/: holds an interrupted run; add --resume to go on, or --force to "
                "begin again."
            )
        elif older != self._plan():
            raise UserError(
                f"{self.path}/: was begun with other options or another picture; give the same "
                "with --resume, or --force to begin again."
            )
        with atomic_path(self.path / PLAN) as temporary:
            temporary.write_text(json.dumps(self._plan(), indent=1) + "\n", encoding="utf-8")
        return [i for i, one in enumerate(self.asked) if not (self.path / one.name).exists()]

    def write(self, place: int, views: Views, index: int) -> None:
        """One view, whole or not at all."""
        pixels = _pixels(views, index)
        with atomic_path(self.path / self.asked[place].name) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")

    def read(self) -> Float[Tensor, "views 3 side side"]:
        """All views on white, as they lie there.

        Raises:
            UserError: one cannot be read.
        """
        from unflat.data import open_picture
        from unflat.data.pictures import over_color

        found = [
            np.asarray(over_color(open_picture(self.path / one.name)), dtype=np.float32) / 255
            for one in self.asked
        ]
        return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)

    def finish(self, shown: Prepared, input_elevation_deg: float) -> list[str]:
        """Sheet, orbit and cameras of all views; names of everything but the report."""
        images = self.read()
        write_png(shown.image, self.path / "input.png")
        sheet = contact_sheet(list(images), columns=min(_COLUMNS, len(images)))
        with atomic_path(self.path / "sheet.png") as temporary:
            Image.fromarray(sheet).save(temporary, format="PNG")
        names = ["input.png", *(one.name for one in self.asked), "sheet.png"]
        orbit = self._orbit()
        if len(orbit) >= _LEAST_ORBIT:
            from unflat.result import usual_video

            film = f"orbit.{usual_video()}"
            frames = np.stack([to_uint8(images[place]) for place in orbit])
            write_video(frames, self.path / film, fps=max(1.0, len(orbit) / _SECONDS))
            names.append(film)
        text = json.dumps(self._transforms(input_elevation_deg), indent=1) + "\n"
        with atomic_path(self.path / "transforms.json") as temporary:
            temporary.write_text(text, encoding="utf-8")
        return [*names, "transforms.json", PLAN]

    def _orbit(self) -> list[int]:
        """Places of views that go around at one height, the first sample of each."""
        heights = [one.elevation_deg for one in self.asked]
        first = [
            i
            for i, one in enumerate(self.asked)
            if one.sample == 0 and one.elevation_deg == heights[0]
        ]
        turns = [self.asked[i].azimuth_deg for i in first]
        return first if turns == sorted(turns) and len(set(turns)) == len(turns) else []

    def _transforms(self, input_elevation_deg: float) -> dict[str, Any]:
        """Cameras in a world with z up, as Blender's and NeRF's."""
        camera = self.cameras(input_elevation_deg)
        matrices = flip_camera_axes(camera_object_to_z_up(camera).camera_to_world)
        return {
            "camera_angle_x": ZERO123_FOV,
            "frames": [
                {"file_path": one.name, "transform_matrix": matrix}
                for one, matrix in zip(self.asked, matrices.tolist(), strict=True)
            ],
        }

    def cameras(self, input_elevation_deg: float) -> Camera:
        """Of all views, in the object world; the picture's own is in front."""
        return cameras_of(self.poses(input_elevation_deg), math.radians(input_elevation_deg))

    def poses(self, input_elevation_deg: float) -> RelativePose:
        """From the picture to all views."""
        return RelativePose.from_degrees(
            torch.tensor([one.azimuth_deg for one in self.asked]),
            torch.tensor([one.elevation_deg for one in self.asked]),
            torch.tensor([one.distance for one in self.asked]),
            input_elevation_deg=input_elevation_deg,
        )

    def _plan(self) -> dict[str, Any]:
        return {"views": [one.name for one in self.asked], "settings": self.settings}

    def _older(self) -> dict[str, Any] | None:
        """The plan that lies there."""
        try:
            return json.loads((self.path / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _clear(self) -> None:
        """Remove what an older run left; files of others stay."""
        older = self._older() or {}
        names = [*older.get("views", []), "input.png", "sheet.png", "orbit.mp4", "orbit.webp"]
        for name in [REPORT, *names, "transforms.json", PLAN]:
            (self.path / name).unlink(missing_ok=True)


def picture_hash(shown: Prepared) -> str:
    """By which a picture is known again."""
    values = torch.cat([shown.image, shown.opacity[None]]).mul(255).round().to(torch.uint8)
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()


def cameras_of(poses: RelativePose, input_elevation: float) -> Camera:
    """Cameras of the object world, where the picture was taken from the front (azimuth 0).

    Args:
        poses: a batch.
        input_elevation: radians.
    """
    return poses.cameras(reference_camera(input_elevation))


def reference_camera(input_elevation: float) -> Camera:
    """The picture's own camera: in front, so high, at the middle distance of what was learned from.

    Args:
        input_elevation: radians.
    """
    from unflat.geometry.pose import orbit_pose

    return Camera.from_fov(
        ZERO123_FOV, orbit_pose(torch.tensor(float(input_elevation)), 0.0, REFERENCE_RADIUS)
    )


def _pixels(views: Views, index: int) -> np.ndarray:
    """RGB, or RGBA with the object's own colors, in 255ths."""
    image = views.image[index].cpu()
    if views.opacity is None:
        return to_uint8(image)
    opacity = views.opacity[index].cpu()
    own = (image - (1 - opacity)) / opacity.clamp_min(1 / 255)
    rgba = torch.cat([own.clamp(0, 1), opacity[None]]).mul(255).round().to(torch.uint8)
    return rgba.permute(1, 2, 0).numpy()


def _number(value: float, digits: int) -> str:
    """With leading zeros, without an idle fraction, as in 030, -05, 7.5."""
    text = f"{abs(value):g}"
    whole, dot, rest = text.partition(".")
    return f"{'-' if value < 0 else ''}{whole.zfill(digits)}{dot}{rest}"
