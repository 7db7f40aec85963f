"""A colored box seen from several sides, as the Objaverse layout holds it, and its mesh."""

import io
import math

import numpy as np
import torch
from PIL import Image

from unflat.geometry import Camera, look_at, to_zero123
from unflat.rendering import rasterize

COLORS = torch.tensor(
    [
        [0.8, 0.2, 0.1],
        [0.1, 0.6, 0.2],
        [0.2, 0.2, 0.8],
        [0.8, 0.7, 0.1],
        [0.6, 0.1, 0.6],
        [0.1, 0.6, 0.7],
    ]
)
FACES = torch.tensor(
    [
        *([0, 4, 6], [0, 6, 2], [1, 3, 7], [1, 7, 5], [0, 1, 5], [0, 5, 4]),
        *([2, 6, 7], [2, 7, 3], [0, 2, 3], [0, 3, 1], [4, 5, 7], [4, 7, 6]),
    ]
)
FOV = 2 * math.atan(16 / 35)


def box(extents):
    corners = torch.tensor([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], dtype=torch.float32)
    return (corners - 0.5) * torch.tensor(extents)


def cameras_around(count, seed):
    generator = torch.Generator().manual_seed(seed)
    positions = torch.randn(count, 3, generator=generator)
    positions *= (1.6 + 0.5 * torch.rand(count, 1, generator=generator)) / positions.norm(
        dim=1, keepdim=True
    )
    poses = torch.stack([look_at(position, torch.zeros(3)) for position in positions])
    return Camera.from_fov(FOV, poses)


def views_of(vertices, cameras, side):
    """RGBA pictures by exact rasterization at twice the size, area-averaged."""
    seen = rasterize(vertices, FACES, cameras, 2 * side, 2 * side).face
    alpha = (seen >= 0).float()
    rgb = COLORS[seen.clamp_min(0) // 2].permute(0, 3, 1, 2) * alpha[:, None]
    both = torch.cat([rgb, alpha[:, None]], dim=1)
    both = torch.nn.functional.avg_pool2d(both, 2)
    straight = both[:, :3] / both[:, 3:].clamp_min(1e-6)
    return torch.cat([straight, both[:, 3:]], dim=1)


def write_objects(folder, train=3, val=2, views=5, side=48):
    """Boxes of several proportions; also <folder>-meshes with one PLY each of the val split."""
    import trimesh

    folder.mkdir(parents=True)
    meshes = folder.parent / f"{folder.name}-meshes"
    meshes.mkdir()
    names = {"train": [f"t{i}" for i in range(train)], "val": [f"v{i}" for i in range(val)]}
    for split, members in names.items():
        (folder / f"{split}.txt").write_text("\n".join(members) + "\n")
        for number, name in enumerate(members):
            vertices = box((1.0, 0.5 + 0.1 * number, 0.7 - 0.1 * number))
            cameras = cameras_around(views, 10 * number + len(split))
            place = folder / name
            place.mkdir()
            for view, picture in enumerate(views_of(vertices, cameras, side)):
                pixels = (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
                file = io.BytesIO()
                Image.fromarray(pixels).save(file, "PNG")
                (place / f"{view:03d}.png").write_bytes(file.getvalue())
                matrix = to_zero123(cameras[view])
                np.save(place / f"{view:03d}.npy", np.asarray(matrix, dtype=np.float64))
            if split == "val":
                made = trimesh.Trimesh(vertices.numpy(), FACES.numpy(), process=False)
                made.export(meshes / f"{name}.ply")
    return folder
