"""Small random pictures and the tars that hold them."""

import io
import tarfile

import numpy as np
from PIL import Image


def png(values):
    stream = io.BytesIO()
    Image.fromarray(np.asarray(values)).save(stream, "PNG")
    return stream.getvalue()


def add_member(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def picture_of(number, side=32):
    generator = np.random.default_rng(number)
    return generator.integers(0, 256, (side, side, 3), dtype=np.uint8)


def disparity_of(number, side=16):
    generator = np.random.default_rng(1000 + number)
    values = generator.integers(0, 256, (side, side), dtype=np.uint8)
    values.flat[:2] = (0, 255)  # the whole range is used, as the layout says
    return values
