"""Three coloured balls, drawn analytically, in the words of each published layout.

Every writer is told the truth in the published world and projects with the publication's own
formula, written out here again in plain numpy: where the balls are on the pictures owes nothing to
the readers.
"""

import json
import math

import numpy as np
import scipy.io
import torch
from PIL import Image

CENTERS = np.array([[0.5, 0.1, 0.0], [-0.2, 0.55, 0.1], [0.0, -0.1, 0.6]])
"""In half sides of 0.8 of the published box; no symmetry maps them on each other."""
RADIUS = 0.14
COLORS = np.array([[220, 30, 30], [30, 180, 30], [30, 30, 220]], np.uint8)


def drawn(spots, radii, width, height):
    """Discs on a grey photo, and where they are. Spots are (x, y, depth), pixels."""
    picture = np.full((height, width, 3), 120, np.uint8)
    mask = np.zeros((height, width), bool)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    for ball in np.argsort([-depth for *_, depth in spots]):
        inside = (x - spots[ball][0]) ** 2 + (y - spots[ball][1]) ** 2 <= radii[ball] ** 2
        picture[inside], mask = COLORS[ball], mask | inside
    return picture, mask


def turn_about(axis, angle):
    """Rotation matrix, right-handed, in degrees."""
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    i, j = [(1, 2), (2, 0), (0, 1)]["xyz".index(axis)]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def upright_rotation(azimuth, elevation, up):
    """World to camera (x right, y down, z forward) of a level camera in a world with that up."""
    facing = turn_about("x", elevation) @ turn_about("y", azimuth)  # in a world whose y is down
    to_y_down = {"-y": np.eye(3), "y": turn_about("x", 180), "z": turn_about("x", 90)}[up]
    return facing @ to_y_down


def object_points(half_side, up):
    """The balls in our object world, and in a published world of that up axis."""
    here = torch.from_numpy(CENTERS).float() * 0.55 * 0.8
    y_up = CENTERS * half_side * 0.8
    back = {
        "y": np.eye(3),
        "-y": turn_about("x", 180),
        "z": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    }
    return here, y_up @ back[up].T


def save_png(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def write_carla(root, count=3, side=48):
    """GRAF's: 3x4 camera to world in OpenGL's axes, z up."""
    here, world = object_points(3.0, "z")
    focal = side * 1.9
    poses = root / "carla_poses"
    poses.mkdir(parents=True)
    inner = np.zeros((1, 1, 4, 4))
    inner[0, 0, :2, :2], inner[0, 0, :2, 2] = np.eye(2) * focal, side / 2
    np.save(poses / "intrinsics.npy", inner)
    for number in range(count):
        angle, height = 1.1 * number + 0.3, 0.2 + 0.25 * number
        position = 10 * np.array(
            [
                math.cos(angle) * math.cos(height),
                math.sin(angle) * math.cos(height),
                math.sin(height),
            ]
        )
        back = position / 10
        right = np.cross([0, 0, 1.0], back)
        right /= np.linalg.norm(right)
        pose = np.stack([right, np.cross(back, right), back, position], axis=1)
        np.save(poses / f"{number:06}_extrinsics.npy", pose)
        local = (world - position) @ pose[:, :3]  # x right, y up, z back
        spots = [(side / 2 + focal * x / -z, side / 2 - focal * y / -z, -z) for x, y, z in local]
        radii = [focal * RADIUS * 2.4 / depth for *_, depth in spots]
        picture, mask = drawn(spots, radii, side, side)
        picture[~mask] = 255
        save_png(root / f"{number:06}.png", picture)
    return here


def cub_rows(root, count, up, width, height):
    """Annotations of CMR and pictures."""
    here, world = object_points(2.0, up)
    pictures, poses = [], []
    for number in range(count):
        rotation = upright_rotation(70.0 * number + 20, 10.0 * number - 15, up)
        scale, trans = (
            0.22 * max(width, height) + number,
            np.array([width * 0.55 + number, height * 0.45]),
        )
        local = world @ rotation.T
        spots = [(scale * x + trans[0], scale * y + trans[1], z) for x, y, z in local]
        picture, mask = drawn(spots, [scale * RADIUS * 1.6] * 3, width, height)
        name = f"001.Bird/bird_{number}.png"
        save_png(root / "CUB_200_2011/images" / name, picture)
        pictures.append(
            {
                "rel_path": name,
                "bbox": {"x1": 1.0, "y1": 1.0, "x2": float(width), "y2": float(height)},
                "mask": mask.astype(np.uint8),
            }
        )
        poses.append({"rot": rotation, "trans": trans, "scale": scale})
    return here, pictures, poses


def save_cub(root, split, pictures, poses):
    for folder, name, key, rows in (
        ("data", f"{split}_cub_cleaned", "images", pictures),
        ("sfm", f"anno_{split}", "sfm_anno", poses),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        array = np.empty(len(rows), object)
        array[:] = rows
        fields = list(rows[0])
        records = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
        for place, row in enumerate(rows):
            records[0, place] = tuple(row[field] for field in fields)
        scipy.io.savemat(root / folder / f"{name}.mat", {key: records}, do_compression=True)


def write_cub(root, split="train", count=3, up="-y", width=60, height=40):
    """CMR's: weak perspective in pixels of the whole photo."""
    here, pictures, poses = cub_rows(root, count, up, width, height)
    save_cub(root, split, pictures, poses)
    return here


def run_lengths(mask, is_text=True):
    """COCO's encoding of a mask, by its definition."""
    flat = mask.T.reshape(-1).astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [len(flat)]])).tolist()
    counts = [0, *counts] if flat[0] else counts
    if not is_text:
        return {"size": list(mask.shape), "counts": counts}
    text = bytearray()
    for place, count in enumerate(counts):
        left = count - (counts[place - 2] if place > 2 else 0)
        while True:
            bits, left = left & 31, left >> 5
            is_last = left == (-1 if bits & 16 else 0)
            text.append(48 + bits + (0 if is_last else 32))
            if is_last:
                break
    return {"size": list(mask.shape), "counts": bytes(text)}


def quaternion_about(axis, angle):
    half = math.radians(angle) / 2
    return np.array([math.cos(half), *(math.sin(half) * np.eye(3)["xyz".index(axis)])])


def product(a, b):
    (w, x, y, z), (p, q, r, s) = a, b
    return np.array(
        [
            w * p - x * q - y * r - z * s,
            w * q + x * p + y * s - z * r,
            w * r - x * s + y * p + z * q,
            w * s + x * r - y * q + z * p,
        ]
    )


def detections_and_poses(data, kind, count=3, width=60, height=40):
    """Detections and poses of textured-3d-gan, in a world whose y is down; pictures are written."""
    here, world = object_points(1.4, "-y")
    detections, rows = [], {"z0": [], "s": [], "t": [], "R": []}
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    for number in range(count):
        elevation, azimuth = 8.0 * number - 5, 75.0 * number + 15
        turn = turn_about("x", elevation) @ turn_about("y", azimuth)
        quaternion = product(quaternion_about("x", elevation), quaternion_about("y", azimuth))
        z0, s, t = 0.9 + 0.2 * number, 0.45 + 0.02 * number, np.array([0.08, -0.05 * number])
        strength = 1 + math.exp(z0)
        local = world @ turn.T + np.array([*(t / s), strength / s])
        spots = [
            ((strength * x / z + 1) * side / 2 - left, (strength * y / z + 1) * side / 2 - top, z)
            for x, y, z in local
        ]
        radii = [strength * RADIUS * 1.1 / z * side / 2 for *_, z in spots]
        picture, mask = drawn(spots, radii, width, height)
        name = f"{kind}/images/n01/{number}.png"
        save_png(data / name, picture)
        detections.append(
            {
                "image_path": f"datasets/{name}",
                "mask": run_lengths(mask, is_text=number != 1),
                "bbox": np.array([[0.0, 0.0, width - 1.0, height - 1.0]]),
            }
        )
        for key, value in (("z0", [z0]), ("s", [s]), ("t", t), ("R", 1.7 * quaternion)):
            rows[key].append(np.asarray(value))
    poses = {key: torch.from_numpy(np.stack(value)).float() for key, value in rows.items()}
    # One detection in between has no pose.
    detections.insert(1, {"image_path": "datasets/none.png", "mask": None, "bbox": None})
    indices = torch.tensor([0, *range(2, count + 1)])
    return here, detections, {"indices": indices, **poses}


def save_detections(folder, detections, poses, name="poses_estimated_singletpl_perspective.bin"):
    folder.mkdir(parents=True, exist_ok=True)
    array = np.empty(len(detections), object)
    array[:] = detections
    np.save(folder / "detections.npy", array, allow_pickle=True)
    torch.save(poses, folder / name)


def write_textured3d(data, kind="p3d", category="p3d_car", **options):
    """Below a folder of data sets; gives the balls in our world."""
    here, detections, poses = detections_and_poses(data, kind, **options)
    many = "multi" if kind == "imagenet" else "single"
    name = f"poses_estimated_{many}tpl_perspective.bin"
    save_detections(data / kind / category, detections, poses, name)
    return here


def write_transforms(
    root, count=3, width=60, height=40, lens="angle", file="transforms.json", **extra
):
    """NeRF's: camera to world in Blender's axes, z up, front -y."""
    centers = CENTERS * 0.6
    here = torch.from_numpy(centers).float()
    world = np.stack([centers[:, 0], -centers[:, 2], centers[:, 1]], axis=1)
    frames, angle_x = [], 0.9
    for number in range(count):
        turn, up = 1.3 * number + 0.2, 0.1 + 0.3 * number
        position = 2.5 * np.array(
            [math.cos(turn) * math.cos(up), math.sin(turn) * math.cos(up), math.sin(up)]
        )
        back = position / 2.5
        right = np.cross([0, 0, 1.0], back)
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3] = np.stack([right, np.cross(back, right), back, position], axis=1)
        local = (world - position) @ pose[:3, :3]
        if lens == "ortho":
            pixels = width / 2.2
            spots = [(width / 2 + pixels * x, height / 2 - pixels * y, -z) for x, y, z in local]
            radii = [pixels * RADIUS] * 3
        else:
            focal = 0.5 * width / math.tan(0.5 * angle_x)
            cx, cy = (width / 2, height / 2) if lens == "angle" else (width * 0.48, height * 0.53)
            spots = [(cx + focal * x / -z, cy - focal * y / -z, -z) for x, y, z in local]
            radii = [focal * RADIUS / depth for *_, depth in spots]
        picture, mask = drawn(spots, radii, width, height)
        save_png(root / f"images/{number}.png", np.dstack([picture, np.uint8(255) * mask]))
        named = f"./images/{number}" if number else f"images/{number}.png"
        frames.append({"file_path": named, "transform_matrix": pose.tolist()})
    if lens == "ortho":
        shared = {"ortho_scale": 2.2}
    elif lens == "angle":
        shared = {"camera_angle_x": angle_x}
    else:  # in the pixels of a picture of twice the size, for each frame
        values = {"fl_x": focal, "fl_y": focal, "cx": cx, "cy": cy, "w": width, "h": height}
        shared = {}
        frames = [{**frame, **{k: 2 * v for k, v in values.items()}} for frame in frames]
    (root / file).write_text(json.dumps({**shared, **extra, "frames": frames}))
    return here
