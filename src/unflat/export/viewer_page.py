"""The page around a viewer, filled: one HTML file that asks nothing of the network.

What scenes of photos (`viewer.py`) and objects (`viewer_mesh.py`) share: template, policy,
pictures and packed numbers.
"""

import base64
import hashlib
import html
import io
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

_LOSSLESS_UP_TO = 160
"""Smaller pictures are kept as PNG: JPEG would show at the size they are enlarged to."""


def page(
    title: str,
    describe: str,
    pictures: Sequence[str],
    data: Mapping[str, object],
    scripts: Sequence[str],
) -> str:
    """The template, filled; its Content-Security-Policy allows these scripts and styles only.

    Args:
        title: shown above.
        describe: alternative text of the pictures.
        pictures: as addresses (`image_uri`); the first is shown where scripts are off.
        data: JSON values for the scripts.
        scripts: names of files in this room, run as one in this order, before ``viewer.js``.
    """
    folder = resources.files("unflat.export")
    template = folder.joinpath("viewer.html").read_text(encoding="utf-8")
    script = "\n".join(
        folder.joinpath(name).read_text(encoding="utf-8") for name in (*scripts, "viewer.js")
    )
    styles = re.findall(r"<style>(.*?)</style>", template, re.DOTALL)
    images = "\n    ".join(
        f'<img id="layer-{number}" src="{uri}" alt="{html.escape(describe)}" hidden>'
        for number, uri in enumerate(pictures)
    )
    policy = (
        "default-src 'none'; img-src data: blob:; "
        f"script-src {_hash(script)}; style-src {' '.join(_hash(style) for style in styles)}; "
        "base-uri 'none'; form-action 'none'"
    )
    # "<" would let a title or a licence end the script element early.
    text = json.dumps(data, default=str, allow_nan=False).replace("<", "\\u003c")
    parts = {
        "@POLICY@": policy,
        "@TITLE@": html.escape(title),
        "@DESCRIBE@": html.escape(describe),
        "@IMAGES@": images,
        "@DATA@": text,
        "@SCRIPT@": script,
    }
    # In one pass, so that a title that reads like a slot of the page stays a title.
    return re.sub("@[A-Z]+@", lambda found: parts[found.group()], template)


def pack_words(words: UInt16[np.ndarray, "height width"]) -> bytes:
    """High bytes, then low bytes, of each word's difference from what its neighbours foretell.

    Foretold is left + up - upper left; differences are taken modulo 65536 and zigzagged, so that
    small ones of either sign have a high byte of 0. Smooth depth then deflates well.
    """
    signed = words.astype(np.int64)
    across = np.diff(signed, axis=1, prepend=0)
    residual = np.diff(across, axis=0, prepend=0).astype(np.uint16).astype(np.int16)
    wide = residual.astype(np.int32)
    zigzag = ((wide << 1) ^ (wide >> 15)).astype(np.uint16)
    return (zigzag >> 8).astype(np.uint8).tobytes() + (zigzag & 255).astype(np.uint8).tobytes()


def at_most(
    picture: UInt8[np.ndarray, "height width 3"], longest: int
) -> UInt8[np.ndarray, "rows columns 3"]:
    """The picture, made smaller if a side is longer than that many pixels."""
    image = Image.fromarray(picture)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.asarray(image)


def image_uri(picture: UInt8[np.ndarray, "height width 3"], quality: int) -> str:
    """The picture as an address that holds it: PNG if it is small, else JPEG."""
    file = io.BytesIO()
    if max(picture.shape[:2]) <= _LOSSLESS_UP_TO:
        Image.fromarray(picture).save(file, format="PNG", optimize=True)
        kind = "png"
    else:
        # Colour at full resolution: at half of it, edges would bleed.
        Image.fromarray(picture).save(file, format="JPEG", quality=quality, subsampling=0)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def deflated(data: bytes) -> str:
    """Bytes, deflated and in base64."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
