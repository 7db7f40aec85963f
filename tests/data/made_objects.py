"""A box seen by known cameras, written in each layout of posed objects by that layout's formulas.

The box stands off the middle and has three lengths, so that any swap, mirror or turn of axes
moves its silhouette. All here is in the files' world: z up, front -y.
"""

import csv
import io
import json
import math

import numpy as np
from made_pictures import png

LOW, HIGH = np.array([-0.35, -0.2, -0.1]), np.array([0.15, 0.1, 0.4])
SIDE = 32
COLOR = (200, 40, 255)  # one channel is as bright as the background


def position(azimuth, elevation, radius):
    """Azimuth 0 is +x; degrees."""
    a, e = math.radians(azimuth), math.radians(elevation)
    return radius * np.array([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])


def looking_at_origin(center, roll=0.0):
    """Columns right, down, forward and position of a camera, 4x4."""
    forward = -center / np.linalg.norm(center)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = math.cos(roll), math.sin(roll)
    matrix = np.eye(4)
    matrix[:3] = np.stack([c * right + s * down, c * down - s * right, forward, center], axis=1)
    return matrix


def silhouette(matrix, focal, cx, cy, side=SIDE):
    """True where the ray of a pixel's centre meets the box; focal length and centre in pixels."""
    found = np.zeros((side, side), dtype=bool)
    for row in range(side):
        for column in range(side):
            local = [(column + 0.5 - cx) / focal, (row + 0.5 - cy) / focal, 1.0]
            ray = matrix[:3, :3] @ local
            first, second = (LOW - matrix[:3, 3]) / ray, (HIGH - matrix[:3, 3]) / ray
            enter, leave = np.minimum(first, second).max(), np.maximum(first, second).min()
            found[row, column] = 0.0 < enter < leave
    return found


def picture(mask, alpha=False):
    """The box in its color, on white or on nothing."""
    pixels = np.where(mask[..., None], np.uint8(COLOR), np.uint8([255, 255, 255]))
    if alpha:
        pixels = np.where(mask[..., None], pixels, np.uint8([0, 0, 0]))
        pixels = np.concatenate([pixels, np.uint8(255) * mask[..., None]], axis=-1)
    return png(pixels.astype(np.uint8))


def srn_instance(folder, views=4, focal=40.0, seed=0):
    """Files of one instance; the intrinsics are of a picture twice as large as the stored one."""
    generator = np.random.default_rng(seed)
    files = {f"{folder}/intrinsics.txt": _intrinsics(focal)}
    for view in range(views):
        matrix = looking_at_origin(
            position(generator.uniform(0, 360), generator.uniform(-40, 60), 1.5)
        )
        numbers = " ".join(f"{value:.8g}" for value in matrix.ravel())
        files[f"{folder}/rgb/{view:06d}.png"] = picture(silhouette(matrix, focal, 15.0, 17.0))
        files[f"{folder}/pose/{view:06d}.txt"] = numbers.encode()
    return files


def _intrinsics(focal):
    return f"{2 * focal} 30.0 34.0 0.\n0. 0. 0.\n1.\n{2 * SIDE} {2 * SIDE}\n".encode()


def zero123_object(folder, views=4, seed=0):
    """Files of one object: world-to-camera of a camera with x right, y up, z backward."""
    generator = np.random.default_rng(seed)
    files = {}
    for view in range(views):
        matrix = looking_at_origin(
            position(generator.uniform(0, 360), generator.uniform(-60, 60), 1.8)
        )
        rotation = (matrix[:3, :3] * [1.0, -1.0, -1.0]).T
        stored = np.concatenate([rotation, -rotation @ matrix[:3, 3:]], axis=1)
        buffer = io.BytesIO()
        np.save(buffer, stored)
        mask = silhouette(matrix, SIDE * 35 / 32, SIDE / 2, SIDE / 2)
        files[f"{folder}/{view:03d}.png"] = picture(mask, alpha=True)
        files[f"{folder}/{view:03d}.npy"] = buffer.getvalue()
    return files


def turntable_object(folder, views=4):
    """Files of one object in two sizes, rolled cameras and a principal point off the middle."""
    files, described = {}, []
    for view in range(views):
        matrix = looking_at_origin(position(70.0 * view, 20.0, 1.2), roll=0.2 * view)
        focal, cx, cy = 34.0, 14.0 + view, 17.0
        for scale, name in ((1, f"{view:03d}.webp"), (2, f"{view:03d}_{2 * SIDE}.webp")):
            mask = silhouette(matrix, scale * focal, scale * cx, scale * cy, scale * SIDE)
            files[f"{folder}/{name}"] = picture(mask)
        described.append(
            {
                "file": f"{view:03d}.webp",
                "K": [[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]],
                "cam2world_opencv": matrix.tolist(),
            }
        )
    meta = {"object": folder, "views": described}
    return {**files, f"{folder}/meta.json": json.dumps(meta).encode()}


def table(rows):
    """A csv with every value quoted."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue().encode()
