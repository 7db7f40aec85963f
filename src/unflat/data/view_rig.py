"""Whether objects' cameras are what their layout says, and a drawing of where they stand.

Files of cameras are read rightly or wrongly without a sign of it: a matrix and its inverse look
alike. Pictures tell. Right cameras look at the origin, see the object's middle there, and give
outlines of which each agrees with the others' visual hull. Of the other ways to write a matrix,
the one under which outlines agree is named.

    rig = RigCheck()
    rig.add(item)            # a PosedObject, as often as there are some
    rig.sentences(), rig.warnings(), rig.drawing()
"""

import math
import statistics
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from unflat.data.posed_objects import PosedObject
from unflat.geometry import Camera, from_zero123, object_to_z_up, to_zero123
from unflat.geometry.camera import invert_rigid, rigid
from unflat.metrics.visual_hull import hull_agreement

PANEL = 384
"""Pixels along a side of each of the drawing's two halves."""

_MOST_OBJECTS = 24  # whose hulls are made
_LOOKS_AWAY = 5.0  # degrees from the origin, median
_OFF_CENTER = 0.15  # of the picture's width, median
_DISAGREES = 0.9  # mean agreement below which cameras are not believed
_LEVEL = 0.02  # mean share of a level axis in the pictures' right
_ROLLED = 0.2
_WHOLE = 0.999  # of all pixels: no alpha at all
_FRUSTUM = 0.35  # world units that are drawn
_SURE = 0.8
_THUMB = 64  # pixels


@dataclass(kw_only=True)
class RigCheck:
    """What the cameras and outlines of a set say, object by object."""

    looks_off_deg: list[float] = field(default_factory=list)
    """Of each view, between its optical axis and the way to the origin."""
    off_center: list[float] = field(default_factory=list)
    """Of each view, from the middle of the outline's box to the origin's place, of the width."""
    agreement: dict[str, list[float]] = field(default_factory=dict)
    """Of each object, under each way to read its cameras; the layout's own is called "as read"."""
    level: list[Float[Tensor, "3"]] = field(default_factory=list)
    """Of each object, the mean share of x, y and z (the file's, z up) in the pictures' right."""
    covered: list[float] = field(default_factory=list)
    """Of each object, the share of all its pixels that its outlines hold."""
    first: PosedObject | None = None
    """The one that is drawn."""
    layout: str = "zero123"
    """Of the set; only this one's matrices are read in other ways."""

    def add(self, item: PosedObject) -> None:
        """Counts one more object."""
        camera = item.camera
        self.first = self.first or item
        way = -torch.nn.functional.normalize(camera.position, dim=-1)
        across = torch.linalg.cross(way, camera.forward).norm(dim=-1)
        self.looks_off_deg += torch.rad2deg(
            torch.atan2(across, (way * camera.forward).sum(dim=-1))
        ).tolist()
        right = object_to_z_up(camera.rotation[..., :, 0])
        self.level.append(right.abs().mean(dim=0))
        if item.masks is None:
            return
        self.covered.append(float((item.masks > 0.5).float().mean()))
        self.off_center += _off_center(item.masks, camera)
        known = self.agreement.setdefault("as read", [])
        if len(known) >= _MOST_OBJECTS or len(item.masks) < 2:
            return
        known.append(_agreement(item.masks, camera))
        if self.layout == "zero123":
            for name, other in _other_readings(camera).items():
                self.agreement.setdefault(name, []).append(_agreement(item.masks, other))

    def figures(self) -> dict[str, float]:
        """Medians over views and means over objects, those that could be measured."""
        found = {}
        if self.looks_off_deg:
            found["looks_off_deg_median"] = statistics.median(self.looks_off_deg)
        if self.off_center:
            found["off_center_median"] = statistics.median(self.off_center)
        for name, values in self.agreement.items():
            if values:
                key = "hull_agreement" + ("" if name == "as read" else f" if {name}")
                found[key] = statistics.fmean(values)
        return found

    def sentences(self) -> list[str]:
        """What was measured, in words."""
        figures = self.figures()
        found = []
        if "looks_off_deg_median" in figures:
            found.append(
                f"cameras look {figures['looks_off_deg_median']:.2f} degrees past the origin "
                "(median)"
            )
        if "off_center_median" in figures:
            found.append(
                f"outlines are {100 * figures['off_center_median']:.1f} % of the width off it"
            )
        if "hull_agreement" in figures:
            count = len(self.agreement["as read"])
            found.append(
                f"views of an object agree on its shape by {figures['hull_agreement']:.3f} "
                f"(visual hull, {count} objects; 1 is best)"
            )
        return found

    def warnings(self) -> list[str]:
        """What is wrong, and which convention would be right."""
        figures, found = self.figures(), []
        if self.covered and statistics.median(self.covered) > _WHOLE:
            return ["the pictures are opaque: nothing tells the object from its background"]
        if figures.get("hull_agreement", 1.0) < _DISAGREES:
            found.append(self._disagreement(figures))
        elif figures.get("looks_off_deg_median", 0.0) > _LOOKS_AWAY:
            found.append(
                f"cameras look {figures['looks_off_deg_median']:.0f} degrees past the origin; "
                "the layout's look at it"
            )
        if figures.get("off_center_median", 0.0) > _OFF_CENTER:
            found.append("objects are not centered where the cameras see the origin")
        if self.level and self.layout == "zero123":
            x, y, z = torch.stack(self.level).mean(dim=0).tolist()
            if y < _LEVEL and z > _ROLLED and x > _ROLLED:
                found.append("cameras hold y upright: this world is y up, the layout's is z up")
        return found

    def _disagreement(self, figures: dict[str, float]) -> str:
        own = figures["hull_agreement"]
        told = f"views of an object do not agree on its shape ({own:.2f} of 1)"
        others = {name: statistics.fmean(v) for name, v in self.agreement.items() if v}
        best = max(others, key=lambda name: others[name])
        if best != "as read" and others[best] > max(_SURE, own + 0.1):
            return f"{told}; they do ({others[best]:.2f}) if {best}"
        return f"{told} under any known convention; cameras or masks are wrong"

    def drawing(self) -> Image.Image | None:
        """The first object's cameras from above and from the side; None without an object."""
        if self.first is None:
            return None
        pictures = _numbered(self.first.images)
        sheet = Image.new("RGB", (2 * PANEL, pictures.height + PANEL), (255, 255, 255))
        sheet.paste(pictures, (0, 0))
        center, corners = _frusta(self.first.camera)
        reach = 1.1 * max(float(center.abs().max()), float(corners.abs().max()), 0.6)
        for column, (title, across, up) in enumerate(_PANELS):
            panel = Image.new("RGB", (PANEL, PANEL), (255, 255, 255))
            _draw_panel(ImageDraw.Draw(panel), title, center, corners, (across, up), reach)
            sheet.paste(panel, (column * PANEL, pictures.height))
        return sheet


# title, the file's axis to the right, and the one up
_PANELS = (
    ("from above: x right, y up, so the front (-y) is below", 0, 1),
    ("from +x: y right, z up, so the front (-y) is left", 1, 2),
)
_GREY, _BLUE, _RED, _GREEN = (170, 170, 170), (60, 90, 200), (205, 40, 40), (30, 130, 60)


def _numbered(images: Float[Tensor, "views 3 height width"]) -> Image.Image:
    """A row of pictures with the numbers of their cameras."""
    row = Image.new("RGB", (2 * PANEL, _THUMB), (255, 255, 255))
    draw = ImageDraw.Draw(row)
    for view, image in enumerate(images[: 2 * PANEL // _THUMB]):
        pixels = (image.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
        left = view * _THUMB
        row.paste(Image.fromarray(pixels).resize((_THUMB, _THUMB)), (left, 0))
        draw.text((left + 2, 1), str(view), fill=_RED if view == 0 else _BLUE)
    return row


def _draw_panel(
    draw: ImageDraw.ImageDraw,
    title: str,
    center: Tensor,
    corners: Tensor,
    axes: tuple[int, int],
    reach: float,
) -> None:
    def place(point: Tensor) -> tuple[float, float]:
        right, up = float(point[axes[0]]), float(point[axes[1]])
        return PANEL / 2 * (1 + right / reach), PANEL / 2 * (1 - up / reach)

    box = torch.tensor([[-0.5] * 3, [0.5] * 3])
    (left, bottom), (right, top) = place(box[0]), place(box[1])
    draw.rectangle((left, top, right, bottom), outline=_GREY)
    front = torch.tensor([0.0, -0.75, 0.0])
    draw.line([place(torch.zeros(3)), place(front)], fill=_GREEN, width=3)
    draw.text(place(front), "front", fill=_GREEN)
    for view in reversed(range(len(center))):  # the input, view 0, on top
        color, width = (_RED, 3) if view == 0 else (_BLUE, 1)
        apex, ends = place(center[view]), [place(corner) for corner in corners[view]]
        for first, second in zip(ends, [*ends[1:], ends[0]], strict=True):
            draw.line([apex, first], fill=color)
            draw.line([first, second], fill=color)
        middle = place(center[view] * (1 - 0.8))
        if view == 0:
            draw.line([apex, middle], fill=color, width=width)
        draw.text((apex[0] + 4, apex[1] - 5), "0 input" if view == 0 else str(view), fill=color)
    draw.text((6, 6), title, fill=(0, 0, 0))


def _frusta(camera: Camera) -> tuple[Float[Tensor, "views 3"], Float[Tensor, "views 4 3"]]:
    """Centers, and the corners of what cameras see, in the file's world (z up)."""
    uv = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    views = len(camera.intrinsics)
    depth = torch.full((views, 4), _FRUSTUM)
    points = camera.unproject(uv.to(camera.intrinsics).expand(views, -1, 2), depth)
    return object_to_z_up(camera.position), object_to_z_up(points)


def _agreement(masks: Tensor, camera: Camera) -> float:
    """Mean over views; 0 where hulls are empty, and for outlines there are none to compare."""
    value = float(hull_agreement(masks, camera).nanmean())
    return 0.0 if math.isnan(value) else value


def _other_readings(camera: Camera) -> dict[str, Camera]:
    """The cameras, had the matrices been meant in another way."""
    stored = to_zero123(camera)
    turn = torch.diag(stored.new_tensor([1.0, -1.0, -1.0]))
    inverse = invert_rigid(rigid(stored[..., :3], stored[..., 3]))[..., :3, :]
    return {
        "cameras have OpenCV's axes (y down, z forward)": from_zero123(turn @ stored),
        "matrices are camera to world": from_zero123(inverse),
        "matrices are camera to world, in OpenCV's axes": from_zero123(turn @ inverse),
    }


def _off_center(masks: Tensor, camera: Camera) -> list[float]:
    """Of views with an outline and the origin ahead."""
    uv, depth = camera.project(torch.zeros(len(masks), 1, 3).to(camera.intrinsics))
    found = []
    for view, mask in enumerate(masks):
        places = torch.nonzero(mask > 0.5).float() + 0.5
        if not len(places) or float(depth[view, 0]) <= 0:
            continue
        low, high = places.amin(dim=0), places.amax(dim=0)
        size = torch.tensor(mask.shape, dtype=torch.float32)
        middle = ((low + high) / 2 / size).flip(0)  # rows and columns become u and v
        found.append(float((middle - uv[view, 0]).norm()))
    return found
