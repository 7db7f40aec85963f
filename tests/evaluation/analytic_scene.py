"""A scene whose pictures have a closed form: floor, sky and a board, seen by any camera."""

import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unflat.geometry.camera import Camera
from unflat.geometry.pose import rotation_from_vector
from unflat.geometry.rays import pixel_grid

BOARD_DEPTH = 2.5
FLOOR = 0.8  # the floor lies this far below the camera
ANGLES = (6.0, 14.0, 30.0)


class AnalyticScene:
    """A board standing on an endless floor under the sky; `phase` makes scenes differ."""

    def __init__(self, phase=0.0, fov_deg=50.0):
        self.phase = phase
        self.fov_deg = fov_deg

    def see(self, camera: Camera, side: int, supersample: int = 2):
        """Pictures (views 3 side side) and inverse depths at pixel centres (views side side)."""
        pictures, depths = [], []
        for pose, lens in zip(camera.camera_to_world, camera.intrinsics, strict=True):
            fine, _ = self._cast(pose.double(), lens.double(), side * supersample)
            pictures.append(torch.nn.functional.avg_pool2d(fine, supersample))
            depths.append(self._cast(pose.double(), lens.double(), side)[1])
        return torch.stack(pictures).float(), torch.stack(depths).float()

    def cameras(self, angles=ANGLES):
        """The canonical camera and others turned about the board, in the canonical frame."""
        poses = [torch.eye(4)]
        for index, angle in enumerate(angles):
            axis = torch.tensor([np.cos(index + self.phase), np.sin(index + self.phase), 0.0])
            turn = rotation_from_vector(np.radians(angle) * axis.float())
            pivot = torch.tensor([0.0, 0.0, BOARD_DEPTH])
            pose = torch.eye(4)
            pose[:3, :3], pose[:3, 3] = turn, pivot - turn @ pivot
            poses.append(pose)
        focal = 0.5 / np.tan(np.radians(self.fov_deg) / 2)
        lens = torch.tensor([focal, focal, 0.5, 0.5]).float().expand(len(poses), 4)
        return Camera(camera_to_world=torch.stack(poses), intrinsics=lens)

    def _cast(self, pose, lens, side):
        across = (pixel_grid(side, side).double() - lens[2:]) / lens[:2]
        rays = torch.cat([across, torch.ones_like(across[..., :1])], dim=-1) @ pose[:3, :3].T
        start = pose[:3, 3]
        board = (BOARD_DEPTH - start[2]) / rays[..., 2]
        x, y = (start[i] + board * rays[..., i] for i in (0, 1))
        on_board = (board > 0) & (x.abs() < 0.45) & (y > -0.5) & (y < FLOOR)
        floor = (FLOOR - start[1]) / rays[..., 1]
        on_floor = (floor > 0) & (floor < 60) & ~(on_board & (board < floor))
        fx, fz = (start[i] + floor * rays[..., i] for i in (0, 2))
        p = self.phase
        sky = rays / rays.norm(dim=-1, keepdim=True)
        color = torch.stack([0.4 + 0.2 * sky[..., 1], 0.6 + 0.2 * sky[..., 0], 0.9 + 0 * x])
        ground = torch.stack(
            [0.5 + 0.2 * torch.sin(2 * fx + p), 0.4 + 0.1 * torch.cos(2 * fz), 0.2 + 0 * fx]
        )
        paint = torch.stack(
            [0.5 + 0.4 * torch.sin(7 * x + p), 0.5 + 0.4 * torch.cos(6 * y), 0.3 + 0 * x]
        )
        color = torch.where(on_floor, ground, color)
        on_board = on_board & ~on_floor
        color = torch.where(on_board, paint, color)
        distance = torch.where(on_floor, floor, torch.where(on_board, board, torch.inf))
        return color.clamp(0, 1), 1 / distance


def write_scenes(folder: Path, scenes: list[AnalyticScene], side: int) -> Path:
    """The scenes in the layout of posed scene sets; pictures without loss."""
    for number, scene in enumerate(scenes):
        place = folder / f"{number:04d}"
        place.mkdir(parents=True)
        cameras = scene.cameras()
        pictures, depths = scene.see(cameras, side)
        # any rigid motion of the whole world changes nothing
        world = torch.eye(4, dtype=torch.float64)
        world[:3, 3] = torch.tensor([0.3, -2.0, 5.0])
        world[:3, :3] = rotation_from_vector(torch.tensor([0.0, 0.4, 0.6]).double())
        views = []
        for index, (picture, depth) in enumerate(zip(pictures, depths, strict=True)):
            pixels = (picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
            Image.fromarray(pixels).save(place / f"rgb_{index}.webp", lossless=True)
            counts = (depth / 4 * 65535).round().numpy().astype(np.uint16)
            Image.fromarray(counts).save(place / f"invdepth_{index}.png")
            pose = world @ cameras.camera_to_world[index].double()
            angle = 0.0 if index == 0 else ANGLES[index - 1]
            views.append({"index": index, "angle_deg": angle, "cam2world": pose.tolist()})
        focal = cameras.intrinsics[0, 0].item() * side
        meta = {
            "cls": "board",
            "width": side,
            "height": side,
            "fl_x": focal,
            "fl_y": focal,
            "cx": side / 2,
            "cy": side / 2,
            "pivot": (world[:3, :3] @ torch.tensor([0, 0, BOARD_DEPTH]).double() + world[:3, 3])
            .float()
            .tolist(),
            "median_depth": BOARD_DEPTH,
            "views": views,
        }
        (place / "meta.json").write_text(json.dumps(meta))
    return folder


def as_tar(folder: Path) -> Path:
    """The folder's scenes as an uncompressed tar beside it."""
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for file in sorted(folder.glob("*/*")):
            archive.add(file, arcname=str(file.relative_to(folder)))
    return path
