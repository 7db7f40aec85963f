"""Draws docs/pictures/axes.png: `python docs/pictures/axes.py`.

Every arrow and camera is computed with unflat.geometry, so that the picture cannot disagree with
the code.
"""

import math
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from mpl_toolkits.mplot3d.axes3d import Axes3D

from unflat.geometry import Camera, flip_camera_axes, orbit, orbit_pose, pixel_grid, to_pytorch3d

RED, GREEN, BLUE, GRAY = "#c8372d", "#2e8b57", "#2f5fc4", "#8a8a8a"
COLORS = (RED, GREEN, BLUE)


def panel(figure: plt.Figure, place: int, title: str, view: tuple[float, float]) -> Axes3D:
    """A 3-D drawing without its box; `view` is matplotlib's elevation and azimuth in degrees."""
    axes = figure.add_subplot(2, 3, place, projection="3d")
    axes.set_axis_off()
    axes.set_title(title, fontsize=10, pad=-2)
    axes.view_init(*view)
    axes.set_proj_type("ortho")
    return axes


def y_up(points: torch.Tensor) -> np.ndarray:
    """Object world to matplotlib's own z-up axes."""
    x, y, z = points.unbind(-1)
    return torch.stack([x, -z, y], dim=-1).numpy()


def y_down(points: torch.Tensor) -> np.ndarray:
    """Scene world to matplotlib's own z-up axes, seen from behind the camera."""
    x, y, z = points.unbind(-1)
    return torch.stack([x, z, -y], dim=-1).numpy()


def arrow(axes: Axes3D, start: np.ndarray, end: np.ndarray, color: str, label: str = "") -> None:
    axes.quiver(*start, *(end - start), color=color, linewidth=1.8, arrow_length_ratio=0.14)
    if label:
        axes.text(*(start + 1.17 * (end - start)), label, color=color, fontsize=8.5, ha="center")


def draw_camera(axes: Axes3D, pose: torch.Tensor, turn, size: float = 0.28, color=GRAY) -> None:
    camera = Camera.from_fov(math.radians(50.0), pose)
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    frame = turn(camera.unproject(corners, torch.full((4,), size)))
    center = turn(camera.position)
    loop = np.concatenate([frame, frame[:1]])
    axes.plot(*loop.T, color=color, linewidth=1.1)
    for corner in frame:
        axes.plot(*np.stack([center, corner]).T, color=color, linewidth=0.7)


def camera_axes(axes: Axes3D) -> None:
    """The same camera in three conventions, side by side."""
    pose = torch.eye(4)
    opengl = flip_camera_axes(pose)[:3, :3]
    pytorch3d = to_pytorch3d(Camera.from_fov(1.0, pose)).R
    rows = [
        ("OpenCV, COLMAP,\nEG3D: unflat's", torch.eye(3)),
        ("OpenGL, Blender,\nzero123,\nnerf-from-image", opengl),
        ("PyTorch3D", pytorch3d),
    ]
    for k, (name, rotation) in enumerate(rows):
        offset = torch.tensor([2.4 * k, 0.0, 0.0])
        moved = pose.clone()
        moved[:3, 3] = offset
        draw_camera(axes, moved, y_down, size=0.75)
        for letter, direction, color in zip("xyz", rotation.mT, COLORS, strict=True):
            arrow(axes, y_down(offset), y_down(offset + 0.8 * direction), color, letter)
        axes.text(2.4 * k, 0.0, -1.75, name, fontsize=7.5, ha="center", va="center")
    axes.set_xlim(-0.2, 5.4)
    axes.set_ylim(-1.4, 1.6)
    axes.set_zlim(-1.6, 1.4)
    axes.set_box_aspect((5.6, 3.0, 3.0), zoom=1.15)


def draw_axes(axes: Axes3D, turn, size: float, labels: tuple[str, str, str]) -> None:
    for direction, color, label in zip(torch.eye(3), COLORS, labels, strict=True):
        arrow(axes, turn(torch.zeros(3)), turn(size * direction), color, label)


def object_world(axes: Axes3D) -> None:
    draw_axes(axes, y_up, 0.55, ("x", "y up", "z front"))
    circle = orbit_pose(0.0, torch.linspace(0.0, 2.0 * math.pi, 90), 1.0)[:, :3, 3]
    axes.plot(*y_up(circle).T, color=GRAY, linewidth=0.7, linestyle=":")
    azimuth, elevation = math.radians(55.0), math.radians(35.0)
    sweep = orbit_pose(0.0, torch.linspace(0.0, azimuth, 30), 1.0)[:, :3, 3]
    axes.plot(*y_up(sweep).T, color="black", linewidth=1.3)
    rise = orbit_pose(torch.linspace(0.0, elevation, 30), azimuth, 1.0)[:, :3, 3]
    axes.plot(*y_up(rise).T, color="black", linewidth=1.3)
    axes.text(*y_up(1.3 * sweep[16]), "azimuth", fontsize=8, ha="center")
    axes.text(*y_up(1.06 * rise[18] + torch.tensor([0.06, 0.0, 0.0])), "elevation", fontsize=8)
    draw_camera(axes, orbit_pose(0.0, 0.0, 1.0), y_up, size=0.22)
    draw_camera(axes, orbit_pose(elevation, azimuth, 1.0), y_up, color="black")
    axes.text(*y_up(torch.tensor([0.0, -0.3, 1.05])), "azimuth 0", fontsize=8, ha="center")
    axes.set_xlim(-0.9, 0.9)
    axes.set_ylim(-0.9, 0.9)
    axes.set_zlim(-0.75, 1.05)
    axes.set_box_aspect((1, 1, 1), zoom=1.4)


def scene_world(axes: Axes3D) -> None:
    draw_axes(axes, y_down, 0.45, ("x", "y down", "z"))
    poses = orbit(72, math.radians(20.0), 1.6)
    axes.plot(*y_down(poses[:, :3, 3]).T, color="black", linewidth=1.0)
    for k in (24, 36):
        draw_camera(axes, poses[k], y_down, size=0.16)
    draw_camera(axes, poses[0], y_down, size=0.25, color="black")
    pivot = torch.tensor([0.0, 0.0, 1.6])
    axes.plot(*np.stack([y_down(torch.zeros(3)), y_down(pivot)]).T, color=GRAY, linestyle=":")
    axes.scatter(*y_down(pivot), color="black", s=14)
    axes.text(*y_down(pivot + torch.tensor([0.0, -0.12, 0.0])), "pivot", fontsize=8)
    label = torch.tensor([-0.15, 0.72, -0.2])
    axes.text(*y_down(label), "canonical camera\n= identity", fontsize=8, ha="center")
    axes.set_xlim(-0.8, 0.8)
    axes.set_ylim(-0.2, 1.7)
    axes.set_zlim(-0.8, 0.8)
    axes.set_box_aspect((1.6, 1.9, 1.6), zoom=1.2)


def pixels(axes: Axes) -> None:
    grid = pixel_grid(3, 4).reshape(-1, 2).numpy()
    axes.scatter(*grid.T, color="black", s=12)
    axes.vlines(np.arange(5) / 4, 0.0, 1.0, color=GRAY, linewidth=0.6)
    axes.hlines(np.arange(4) / 3, 0.0, 1.0, color=GRAY, linewidth=0.6)
    axes.text(*(grid[0] + [0.0, 0.09]), "(0.125, 0.167)", fontsize=7, ha="center")
    axes.annotate("", (0.5, -0.06), (0.0, -0.06), arrowprops={"color": RED, "arrowstyle": "->"})
    axes.annotate("", (-0.045, 0.5), (-0.045, 0.0), arrowprops={"color": GREEN, "arrowstyle": "->"})
    axes.text(0.53, -0.06, "u", color=RED, fontsize=9, va="center")
    axes.text(-0.045, 0.57, "v", color=GREEN, fontsize=9, ha="center")
    axes.text(-0.02, -0.11, "(0, 0)", fontsize=8, ha="center")
    axes.text(1.02, 1.08, "(1, 1)", fontsize=8, ha="center")
    axes.set_title("Picture coordinates (4 x 3 pixels)", fontsize=10, pad=10)
    axes.set(xlim=(-0.14, 1.14), ylim=(1.14, -0.16), aspect=0.75)
    axes.set_axis_off()


def planes(axes: Axes3D) -> None:
    """Plane, what its column follows and what its row follows."""
    square = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]])
    for name, first, second, shift in (("XY", 0, 1, 2), ("XZ", 0, 2, 1), ("YZ", 1, 2, 0)):
        corners = torch.zeros(5, 3)
        corners[:, first], corners[:, second] = square.unbind(-1)
        corners[:, shift] = -1.25
        axes.plot(*y_up(corners).T, color=COLORS[shift], linewidth=1.0)
        axes.text(*y_up(corners[:4].mean(0)), name, color=COLORS[shift], fontsize=10, ha="center")
        for axis, text in ((first, "column"), (second, "row")):
            end = corners[0].clone()
            end[axis] += 0.9
            arrow(axes, y_up(corners[0]), y_up(end), COLORS[axis])
            axes.text(*y_up((corners[0] + end) / 2.0), text, fontsize=6.5, color=COLORS[axis])
    draw_axes(axes, y_up, 0.7, ("x", "y", "z"))
    axes.set_xlim(-1.3, 1.1)
    axes.set_ylim(-1.1, 1.3)
    axes.set_zlim(-1.3, 1.1)
    axes.set_box_aspect((1, 1, 1), zoom=1.1)


def worlds(axes: Axes3D) -> None:
    """A z-up world with front -y beside the object world."""
    for k, (name, turn, labels) in enumerate(
        [
            ("z up, front -y\n(Blender, Objaverse, SRN)", lambda p: p.numpy(), "xyz"),
            ("object world\n(x, y, z) -> (x, z, -y)", y_up, "xyz"),
        ]
    ):
        offset = np.array([2.5 * k, 0.0, 0.0])
        front = torch.tensor([0.0, -1.0, 0.0]) if k == 0 else torch.tensor([0.0, 0.0, 1.0])
        for direction, color, label in zip(torch.eye(3), COLORS, labels, strict=True):
            arrow(axes, offset, offset + 0.9 * turn(direction), color, label)
        place = offset + 1.3 * turn(front)
        axes.text(*place, "front", fontsize=8, ha="center", va="top")
        axes.text(
            *(offset + np.array([0.1, 0.0, -1.35])), name, fontsize=7.5, ha="center", va="center"
        )
    axes.set_xlim(-0.6, 3.4)
    axes.set_ylim(-1.2, 1.2)
    axes.set_zlim(-1.3, 1.2)
    axes.set_box_aspect((4.0, 2.4, 2.5), zoom=1.2)


def main() -> None:
    mpl.use("Agg")
    figure = plt.figure(figsize=(10.2, 6.6), dpi=90)
    camera_axes(panel(figure, 1, "Camera axes (from behind the camera)", (18.0, -74.0)))
    object_world(panel(figure, 2, "Object world", (22.0, -58.0)))
    scene_world(panel(figure, 3, "Scene world", (24.0, -58.0)))
    pixels(figure.add_subplot(2, 3, 4))
    worlds(panel(figure, 5, "Two ways up", (20.0, -62.0)))
    planes(panel(figure, 6, "Tri-plane: order XY, XZ, YZ", (20.0, -50.0)))
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.02, top=0.94, wspace=0.06, hspace=0.1)
    figure.savefig(Path(__file__).with_suffix(".png"), pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
