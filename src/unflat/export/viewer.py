"""A page to look at a scene: one HTML file that asks nothing of the network.

    write_viewer(scene.layers(), scene.camera, "cat/viewer.html", title="cat.jpg",
                 info={"model": "vq3d-small"}, max_angle_deg=12.0, pivot_depth=2.0)

The layers go in as pictures and as grids of disparity; viewer_grid.js makes triangles of
them, viewer_scene.js draws these with WebGL2, viewer_nearby.js says how far one may turn, viewer.js
is the page around them.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from unflat.errors import UserError
from unflat.export.layer import Layer, disparity_jumps, surface_mask
from unflat.export.picture import Picture, disparity_table, to_uint8
from unflat.export.viewer_page import at_most, deflated, image_uri, pack_words, page
from unflat.files import atomic_path
from unflat.geometry.camera import Camera

_LARGEST_PICTURE = 1024
"""Pixels along the longer side of an embedded picture."""
_LARGEST_GRID = 512
"""Points along the longer side of an embedded grid of disparities."""
_LARGEST_FRAME = 384
_FARTHEST = 1e4
"""In pivot depths: what lies beyond moves no more than infinity does."""
_SCRIPTS = (
    *("viewer_unpack.js", "viewer_gl.js", "viewer_grid.js", "viewer_scene.js"),
    "viewer_nearby.js",
)
_VALID, _CUT_RIGHT, _CUT_DOWN = 1, 2, 4


def write_viewer(
    layers: list[Layer],
    camera: Camera,
    path: str | Path,
    *,
    title: str,
    info: Mapping[str, object],
    max_angle_deg: float | int,
    pivot_depth: float | int,
    jump: float = 0.1,
    frames: Sequence[Picture] = (),
    describe: str = "",
) -> Path:
    """The path of the page written.

    Its first frame is the canonical view. Open it by double click; scripts on other pages and
    tests steer it by ``window.unflat.setCamera(yawDeg, pitchDeg)``, degrees by which the camera
    moves to its right and up, as ``geometry.trajectory.turn_about_pivot`` does.

    Args:
        layers: front first, as ``Scene.layers`` gives them; the first is what the camera sees.
        camera: the canonical camera.
        path: of the page, as in ``viewer.html``.
        title: shown above the scene, as in the name of the picture.
        info: what the scene is (model, picture, licence, confidence, date), shown behind "i".
        max_angle_deg: the honest range: beyond it the view fades behind words that say so.
        pivot_depth: depth of the point that the camera turns about, world units.
        jump: relative step in disparity at which a surface is cut.
        frames: views made beforehand, shown where WebGL2 is missing; none: the picture is shown.
        describe: the scene in words for people who do not see it; from the title if not given.

    Raises:
        UserError: no layer has a surface, or ``path`` can not be written.
    """
    path = Path(path)
    if not any(surface_mask(layer).any() for layer in layers):
        raise UserError(f"{path}: the scene has no surface to show; check the picture.")
    describe = " ".join(describe.split()) or f"3D scene of {title}"
    data = _scene_data(layers, camera, float(max_angle_deg), float(pivot_depth), jump)
    data["info"] = {str(name): value for name, value in info.items()}
    data["describe"] = describe
    data["fileStem"] = path.stem
    data["frames"] = [image_uri(at_most(to_uint8(frame), _LARGEST_FRAME), 80) for frame in frames]
    text = page(title, describe, [_layer_uri(layer) for layer in layers], data, _SCRIPTS)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


def _scene_data(
    layers: list[Layer], camera: Camera, max_angle_deg: float, pivot_depth: float, jump: float
) -> dict[str, object]:
    height, width = layers[0].depth.shape
    limit = 1 / (_FARTHEST * pivot_depth)
    grids, ranges = [], []
    seen = np.zeros((0, 0))
    for layer in layers:
        mask = surface_mask(layer)
        depth = layer.depth.detach().cpu().numpy().astype(np.float64)
        disparity = np.where(mask, 1 / np.where(mask, depth, 1), 0.0)
        disparity[mask] = disparity[mask].clip(min=limit)
        if seen.shape == disparity.shape:
            # A hidden layer that came forward would hide a part of the picture.
            disparity = np.where(seen > 0, np.minimum(disparity, seen), disparity)
        elif seen.size == 0:
            seen = disparity
        grids.append(_pack_grid(disparity, mask, jump))
        if mask.any():
            ranges.append((disparity[mask].min(), disparity[mask].max()))
    return {
        "layers": grids,
        "intrinsics": camera.intrinsics.detach().cpu().double().reshape(4).tolist(),
        "orthographic": camera.kind == "orthographic",
        "aspect": width / height,
        "disparityRange": [float(ranges[0][0]), float(ranges[0][1])],
        "nearest": float(1 / max(high for _, high in ranges)),
        "farthest": float(1 / min(low for low, _ in ranges)),
        "maxAngleDeg": max_angle_deg,
        "pivotDepth": pivot_depth,
        "table": base64.b64encode(disparity_table().tobytes()).decode(),
    }


def _pack_grid(
    disparity: Float[np.ndarray, "height width"],
    mask: Bool[np.ndarray, "height width"],
    jump: float,
) -> dict[str, object]:
    """A layer's disparities as 16-bit words between its own limits, with marks for its edges."""
    height, width = disparity.shape
    step = -(-max(height, width) // _LARGEST_GRID)
    first = step // 2
    disparity, mask = disparity[first::step, first::step], mask[first::step, first::step]
    right, down = disparity_jumps(disparity, mask, jump)
    flags = np.where(mask, _VALID, 0).astype(np.uint8)
    flags[:, :-1] |= np.where(right, _CUT_RIGHT, 0).astype(np.uint8)
    flags[:-1] |= np.where(down, _CUT_DOWN, 0).astype(np.uint8)
    known = disparity[mask] if mask.any() else np.ones(1)
    low, high = float(known.min()), float(known.max())
    filled = np.where(mask, disparity, low)
    words = np.round((filled - low) / max(high - low, 1e-12) * 65535).astype(np.uint16)
    return {
        "width": disparity.shape[1],
        "height": disparity.shape[0],
        "u0": (first + 0.5) / width,
        "v0": (first + 0.5) / height,
        "du": step / width,
        "dv": step / height,
        "low": low,
        "high": high,
        "words": deflated(pack_words(words)),
        "flags": deflated(flags.tobytes()),
    }


def _layer_uri(layer: Layer) -> str:
    mask = surface_mask(layer)
    picture = to_uint8(layer.rgb.permute(2, 0, 1))
    return image_uri(at_most(_spread(picture, mask), _LARGEST_PICTURE), 92)


def _spread(
    picture: UInt8[np.ndarray, "height width 3"], mask: Bool[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """The picture with its colours spread to where there is no surface.

    Else the compression of the picture, and its smaller copies in the graphics card, would
    bleed foreign colours over the edge.
    """
    if mask.all() or not mask.any():
        return picture
    filled = _spread_level(picture.astype(np.float64), mask.astype(np.float64))
    return np.where(mask[..., None], picture, np.round(filled)).astype(np.uint8)


def _spread_level(picture: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Holes take the mean of the pixels around them, from the coarsest level that knows them."""
    if weight.all() or max(weight.shape) <= 1:
        return picture
    height, width = weight.shape
    pad = ((0, height % 2), (0, width % 2))
    shares = np.pad(weight, pad)
    sums = np.pad(picture * weight[..., None], (*pad, (0, 0)))
    blocks = shares.reshape(shares.shape[0] // 2, 2, shares.shape[1] // 2, 2).sum((1, 3))
    sums = sums.reshape(*blocks.shape[:1], 2, blocks.shape[1], 2, 3).sum((1, 3))
    half = np.divide(sums, blocks[..., None], out=np.zeros_like(sums), where=blocks[..., None] > 0)
    coarse = _spread_level(half, (blocks > 0).astype(np.float64))
    large = coarse.repeat(2, 0).repeat(2, 1)[:height, :width]
    return np.where(weight[..., None] > 0, picture, large)
