"""How much less a field is asked, and what that does to the picture.

    python -m benchmarks.skipping              # some minutes: results/skipping.json and the page
    python -m benchmarks.skipping --quick      # 32 px, one view each; writes nothing
    python -m benchmarks.skipping --page       # fills docs/rendering.md from the results again

Questions are counted, so the figures do not depend on the machine. Times are the process's CPU time
with one thread, by the reference backend.
"""

import argparse
import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import unflat
from unflat import report
from unflat.fields import (
    Bounded,
    DetailField,
    FeatureDecoder,
    Field,
    FieldOutput,
    TriplaneField,
    ray_limits,
)
from unflat.geometry import Camera, image_rays, look_at, turn_about_pivot
from unflat.hub import example_picture
from unflat.rendering import Guide, OccupancyGrid, RenderOptions, RenderOutput, backends, render

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "skipping.json"
PAGE = ROOT / "docs" / "rendering.md"
REFERENCE = 96  # intervals of the picture that others are compared to
TRUTH = 768  # intervals of what that picture itself is compared to
ANGLES = (0, 8, 20)  # degrees from the canonical view
BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


class Counting(nn.Module):
    """A field that counts the points it is asked at; with the abilities of the one it asks."""

    def __init__(self, field: Field):
        super().__init__()
        self.field, self.count = field, 0
        for ability in ("bounds", "warp"):
            if hasattr(field, ability):
                setattr(self, ability, getattr(field, ability))

    def forward(self, points: Tensor, directions: Tensor | None = None) -> FieldOutput:
        self.count += points[..., 0].numel()
        return self.field(points, directions)


@dataclass(frozen=True)
class View:
    """A field, seen from somewhere."""

    name: str
    field: Field
    camera: Camera
    options: RenderOptions


@dataclass(frozen=True)
class Way:
    """A way to ask less."""

    name: str
    options: RenderOptions
    guide: Guide | None = None


def views(angles: tuple[int, ...]) -> list[View]:
    """The bundled photo's scenes from several sides, and objects in tri-planes."""
    found: list[View] = []
    for mode in ("detail", "tokens"):
        scene = unflat.reconstruct(example_picture(), detail=mode == "detail")
        near, far = ray_limits(scene.field.frame)
        for angle in angles:
            right = torch.tensor(math.radians(angle))
            pose = turn_about_pivot(right, torch.zeros(()), scene.pivot_depth)
            camera = Camera(camera_to_world=pose[None], intrinsics=scene.camera.intrinsics)
            options = RenderOptions(samples=REFERENCE, near=near, far=far)
            found.append(View(f"{mode}, {angle} degrees", scene.field, camera, options))
    eye = torch.tensor([1.0, 0.8, 2.2])
    camera = Camera.from_fov(0.7, look_at(eye, torch.zeros(3))[None])
    options = RenderOptions(
        samples=REFERENCE,
        near=0.5,
        far=5.0,
        spacing="distance",
        opaque_last=False,
        background=(1.0, 1.0, 1.0),
    )
    for name, shape in (("a ball in a tri-plane", ball), ("a thin ring in a tri-plane", ring)):
        found.append(View(name, fitted(shape), camera, options))
    return found


def ball(points: Tensor) -> Tensor:
    """Signed distance to a ball of radius 0.6."""
    return points.norm(dim=-1) - 0.6


def ring(points: Tensor) -> Tensor:
    """Signed distance to a ring of radius 0.7, 0.2 thick."""
    around = points[..., [0, 2]].norm(dim=-1) - 0.7
    return (around.square() + points[..., 1].square()).sqrt() - 0.1


def fitted(shape: Callable[[Tensor], Tensor], steps: int = 400) -> TriplaneField:
    """A tri-plane in a box that has learned a solid and its colors, as a generator has."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    planes = nn.Parameter(0.1 * torch.randn(1, 3, 16, 64, 64, generator=generator))
    field = TriplaneField(planes, FeatureDecoder(16, hidden=32), BOX)
    optimizer = torch.optim.Adam(field.parameters(), 1e-2)
    for _ in range(steps):
        points = 2 * torch.rand(1, 8192, 3, generator=generator) - 1
        distance = shape(points)
        found = field(points)
        solid = 60 * torch.sigmoid(-distance / 0.02)
        # Transparency over a tenth: how empty the empty parts are matters as much as the inside.
        error = (torch.exp(-found.density) - torch.exp(-solid)).square().mean()
        error = error + 0.1 * (found.density.sqrt() - solid.sqrt()).square().mean()
        near = (distance.abs() < 0.1)[..., None]
        color = 0.5 + 0.5 * torch.sin(6 * points)
        error = error + ((found.features - color).square() * near).mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    return field.requires_grad_(False)


def ways(view: View, side: int) -> list[Way]:
    """What is compared, from the reference on."""
    options = view.options
    coarse = replace(options, samples=48, fine_samples=12, coarse=4)
    found = [
        Way("96 even", options),
        Way("96 even, every ray to its end", replace(options, least_light=0.0)),
        Way("48 even", replace(options, samples=48)),
        Way("16 even", replace(options, samples=16)),
        Way("8 guided by 1/4 of the side", replace(coarse, fine_samples=8)),
        Way("12 guided by 1/4 of the side", coarse),
        Way("16 guided by 1/4 of the side", replace(coarse, fine_samples=16)),
    ]
    if isinstance(view.field, DetailField) and view.name.startswith("detail, 0"):
        guided = replace(options, fine_samples=12)
        found.append(Way("12 around the photo's own depth", guided, own_guide(view, side)))
    if isinstance(view.field, Bounded):
        grid = OccupancyGrid.of(view.field)
        some = f"grid, {100 * grid.fraction:.0f} % full"
        boxed = replace(options, fit_box=True)
        found += [
            Way(f"96 even, {some}", replace(options, occupancy=grid)),
            Way(f"12 guided, {some}", replace(coarse, occupancy=grid)),
            Way("96 in the box", boxed),
            Way("48 in the box", replace(boxed, samples=48)),
            Way(f"48 in the box, {some}", replace(boxed, samples=48, occupancy=grid)),
        ]
    return found


def own_guide(view: View, side: int) -> Guide:
    """The distance at which the photo's sheet stands on canonical rays."""
    field = view.field
    assert isinstance(field, DetailField)
    frame = field.frame
    disparity = nn.functional.interpolate(field.disparity, (side, side), mode="nearest")[:, 0]
    assumed = frame.d_far + (frame.d_near - frame.d_far) * disparity
    depth = frame.a / (assumed - frame.b)
    forward = image_rays(view.camera, side, side).directions[..., 2]
    spread = 0.15 * depth / forward
    return Guide.of_distance(depth / forward, spread, view.options.near, view.options.far)


def measure(view: View, side: int, repetitions: int) -> list[dict[str, Any]]:
    """Questions, decibels and seconds of every way to make one picture."""
    rows: list[dict[str, Any]] = []
    endless = replace(view.options, samples=TRUTH, least_light=0.0)
    truth = render(view.field, view.camera, side, side, endless)
    reference: RenderOutput | None = None
    for way in ways(view, side):
        counting = Counting(view.field)
        seconds: list[float] = []
        picture = None
        for _ in range(repetitions):
            counting.count = 0
            begun = time.process_time()
            picture = render(counting, view.camera, side, side, way.options, way.guide)
            seconds.append(time.process_time() - begun)
        assert picture is not None
        reference = reference or picture
        rows.append(
            {
                "way": way.name,
                "asked": counting.count / side**2,
                "to_reference": None if picture is reference else decibels(picture, reference),
                "to_truth": decibels(picture, truth),
                "most": float((picture.rgb - reference.rgb).abs().max()),
                "seconds": min(seconds),
            }
        )
        print(f"  {rows[-1]}", flush=True)
    return rows


def decibels(one: RenderOutput, two: RenderOutput) -> float:
    error = (one.rgb - two.rgb).square().mean().item()
    return -10 * math.log10(max(error, 1e-12))


def block(result: dict[str, Any]) -> str:
    """The page's table."""
    lines: list[str] = []
    for name, rows in result["views"].items():
        full = rows[0]["asked"]
        lines += [
            f"**{name}**",
            "",
            "| samples | asked | times fewer | dB to 96 | dB to 768 | most apart | seconds |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            reference = "" if row["to_reference"] is None else f"{row['to_reference']:.1f}"
            fewer = full / row["asked"]
            cells = [row["way"], f"{row['asked']:.1f}", f"{fewer:.1f}", reference]
            cells += [f"{row['to_truth']:.1f}", f"{row['most']:.3f}", f"{row['seconds']:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    versions = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    command = f"`python -m benchmarks.skipping`, {result['date']}, {result['side']} px"
    return "\n".join([*lines, f"{command}, {versions}."])


def write_page(result: dict[str, Any]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    marks = re.compile(r"(<!-- skipping -->\n).*?(<!-- end -->)", re.DOTALL)
    text = block(result)
    page = marks.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page)
    PAGE.write_text(page, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.skipping", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small pictures; writes nothing")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    options = parser.parse_args()
    if options.page:
        write_page(json.loads(RESULT.read_text(encoding="utf-8")))
        return
    torch.set_num_threads(1)
    side = 32 if options.quick else 128
    result = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "side": side,
        "versions": report.versions(),
        "views": {},
    }
    for view in views((20,) if options.quick else ANGLES):
        print(view.name, flush=True)
        with backends.use("reference"):
            result["views"][view.name] = measure(view, side, 1 if options.quick else 3)
    print(block(result))
    if not options.quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        write_page(result)


if __name__ == "__main__":
    main()
