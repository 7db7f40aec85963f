"""Pictures as files and as sheets: PNG, 16-bit depth, contact sheets, coloured disparity.

A picture is a float tensor ``3 height width`` in [0, 1] or a uint8 array ``height width 3``,
both sRGB; sheets are uint8 arrays.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unflat.files import atomic_path

# Axes without names, since pictures of one sheet may differ in size.
Picture = Float[Tensor, "3 _ _"] | UInt8[np.ndarray, "_ _ 3"]

_PAPER, _INK = (250, 250, 248), (30, 30, 34)


def to_uint8(picture: Picture) -> UInt8[np.ndarray, "height width 3"]:
    """The picture as 8-bit values, rounded, clipped to [0, 255]."""
    if isinstance(picture, np.ndarray):
        return picture
    scaled = picture.detach().float().cpu().clamp(0, 1) * 255
    return scaled.round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def write_png(picture: Picture, path: str | Path) -> Path:
    """The path of the PNG written.

    Raises:
        UserError: ``path`` can not be written.
    """
    with atomic_path(path) as temporary:
        Image.fromarray(to_uint8(picture)).save(temporary, format="PNG")
    return Path(path)


def write_depth(depth: Float[Tensor, "height width"], path: str | Path) -> float:
    """Depth as a 16-bit grey PNG, and exactly as float32 in a .npy beside it.

    Args:
        depth: at least 0, world units. Values that are not finite are written as 0: no depth.
        path: of the PNG.

    Returns:
        World units of one grey level: depth = level * scale.

    Raises:
        UserError: ``path`` can not be written.
    """
    exact = depth.detach().cpu().numpy().astype(np.float32)
    known = np.where(np.isfinite(exact), exact, 0.0).clip(min=0).astype(np.float64)
    farthest = float(known.max(initial=0.0))
    scale = farthest / 65535 if farthest > 0 else 1.0
    levels = np.round(known / scale).clip(0, 65535).astype(np.uint16)
    with atomic_path(Path(path).with_suffix(".npy")) as temporary:
        np.save(temporary, exact)
    with atomic_path(path) as temporary:
        Image.fromarray(levels).save(temporary, format="PNG")
    return scale


def colorize_disparity(
    disparity: Float[Tensor, "height width"],
    low: float | int | None = None,
    high: float | int | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Disparity in colours: near is bright yellow, far is dark violet; lightness rises evenly.

    Args:
        disparity: values that are not finite are painted grey.
        low: shown darkest; the smallest finite value if not given.
        high: shown brightest; the largest finite value if not given.
    """
    values = disparity.detach().cpu().numpy().astype(np.float64)
    known = np.isfinite(values)
    finite = values[known] if known.any() else np.zeros(1)
    low = float(finite.min()) if low is None else low
    high = float(finite.max()) if high is None else high
    share = (np.where(known, values, low) - low) / max(high - low, 1e-12)
    colored = disparity_table()[np.round(share.clip(0, 1) * 255).astype(int)]
    colored[~known] = 128
    return colored


def colorize_normals(
    normals: Float[Tensor, "3 height width"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Normals in colours: red grows to the right (+x), green upwards (+y), blue to the front (+z).

    Args:
        normals: unit vectors in world axes; white where they are 0.
    """
    values = normals.detach().float().cpu().permute(1, 2, 0).numpy()
    colored = np.round((0.5 + 0.5 * values).clip(0, 1) * 255).astype(np.uint8)
    colored[(values == 0).all(-1)] = 255
    return colored


def contact_sheet(
    images: Sequence[Picture], columns: int = 4, gap: int = 4
) -> UInt8[np.ndarray, "height width 3"]:
    """Pictures side by side in rows, on paper white, each centred in a cell of the largest size.

    Args:
        images: at least one.
        columns: pictures in a row.
        gap: pixels between pictures.
    """
    if not images:
        raise ValueError("contact_sheet: no pictures")
    pictures = [to_uint8(image) for image in images]
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    cell_height = max(picture.shape[0] for picture in pictures)
    cell_width = max(picture.shape[1] for picture in pictures)
    sheet = np.empty(
        (rows * (cell_height + gap) - gap, columns * (cell_width + gap) - gap, 3), dtype=np.uint8
    )
    sheet[:] = _PAPER
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        top = row * (cell_height + gap) + (cell_height - picture.shape[0]) // 2
        left = column * (cell_width + gap) + (cell_width - picture.shape[1]) // 2
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def preview_strip(
    pictures: Sequence[tuple[str, Picture]], width: int = 1024, gap: int = 4
) -> UInt8[np.ndarray, "height width 3"]:
    """Pictures in one row of equal height, ``width`` pixels wide, a label below each.

    Args:
        pictures: label and picture, left to right; at least one.
        width: of the strip.
        gap: pixels between pictures.
    """
    if not pictures:
        raise ValueError("preview_strip: no pictures")
    arrays = [to_uint8(picture) for _, picture in pictures]
    aspects = np.array([array.shape[1] / array.shape[0] for array in arrays])
    room = width - gap * (len(arrays) - 1)
    height = max(1, round(room / aspects.sum()))
    edges = np.round(np.cumsum([0, *aspects]) / aspects.sum() * room).astype(int)
    label_height = 24
    sheet = Image.new("RGB", (width, height + label_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for number, (label, _) in enumerate(pictures):
        left = int(edges[number]) + number * gap
        size = (max(1, int(edges[number + 1] - edges[number])), height)
        picture = Image.fromarray(arrays[number])
        enlarged = size[0] >= picture.width * 2
        method = Image.Resampling.BICUBIC if enlarged else Image.Resampling.LANCZOS
        sheet.paste(picture.resize(size, method), (left, 0))
        text = _shortened(draw, label, font, size[0])
        draw.text((left + 2, height + 4), text, fill=_INK, font=font)
    return np.asarray(sheet).copy()


def _shortened(draw: ImageDraw.ImageDraw, text: str, font, room: int) -> str:
    """The text, cut with "..." to fit into ``room`` pixels."""
    if draw.textlength(text, font=font) <= room - 4:
        return text
    while text and draw.textlength(text + "...", font=font) > room - 4:
        text = text[:-1]
    return text + "..." if text else ""


def disparity_table() -> UInt8[np.ndarray, "256 3"]:
    """256 colours of even steps in OKLab lightness, from dark violet over red to light yellow.

    The OKLab to linear sRGB matrices are Björn Ottosson's (public domain).
    """
    t = np.linspace(0, 1, 256)
    lightness = 0.16 + 0.78 * t
    hue = np.deg2rad(285 + 185 * t)
    chroma = 0.03 + 0.15 * np.sin(np.pi * (0.08 + 0.8 * t))
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    roots = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = (to_rgb @ roots**3).clip(0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(srgb.T * 255).astype(np.uint8)
