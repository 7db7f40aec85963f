import contextlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from unflat.data.pictures import (
    MAX_PIXELS,
    exif_of,
    open_picture,
    over_color,
    picture_size,
    resize_square,
)
from unflat.errors import UserError


def encode(picture, kind="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def ramp(width=40, height=30):
    values = np.zeros((height, width, 3), np.uint8)
    values[..., 0] = np.linspace(0, 250, width).astype(np.uint8)
    values[..., 1] = np.linspace(0, 250, height).astype(np.uint8)[:, None]
    return Image.fromarray(values)


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "BMP", "JPEG", "AVIF", "GIF"])
def test_reads_every_named_format(tmp_path, kind):
    path = tmp_path / "a.bin"
    path.write_bytes(encode(ramp(), kind))
    picture = open_picture(path)
    assert picture.mode == "RGB"
    assert picture.size == (40, 30)
    error = np.abs(np.asarray(picture).astype(int) - np.asarray(ramp()).astype(int))
    assert error.mean() < 12  # GIF keeps 256 colours, the others are far closer


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("at_least", [None, 10])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_rotation_is_undone(orientation, at_least, kind):
    # The eight ways of storing one upright picture: red grows to the right, green downwards.
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = ramp(80, 60) if undo is None else ramp(80, 60).transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = open_picture(encode(stored, kind, exif=exif), at_least=at_least)
    assert (picture.width > picture.height) is True
    values = np.asarray(picture).astype(int)
    assert values[:, -1, 0].mean() > values[:, 0, 0].mean() + 150
    assert values[-1, :, 1].mean() > values[0, :, 1].mean() + 150
    if at_least is not None:
        assert 10 <= picture.height < 60


def test_grey_and_cmyk_and_one_bit_become_rgb():
    for mode in ("L", "1", "CMYK", "LA", "P"):
        kind = "TIFF" if mode == "CMYK" else "PNG"
        picture = open_picture(encode(ramp().convert(mode), kind))
        assert picture.mode == ("RGBA" if mode == "LA" else "RGB")
    jpeg = open_picture(encode(ramp().convert("CMYK"), "JPEG", quality=95))
    assert np.abs(np.asarray(jpeg).astype(int) - np.asarray(ramp()).astype(int)).mean() < 6


def test_sixteen_bit_keeps_its_brightness():
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    expected = np.rint(values / 257.0)
    for kind in ("PNG", "TIFF"):
        got = np.asarray(open_picture(encode(Image.fromarray(values), kind)))
        np.testing.assert_allclose(got[..., 0], expected, atol=1)


def test_float_pictures_are_unit_or_byte_range():
    unit = Image.fromarray(np.full((4, 4), 0.5, np.float32))
    byte = Image.fromarray(np.full((4, 4), 100.0, np.float32))
    assert np.asarray(open_picture(encode(unit, "TIFF")))[0, 0, 0] == 128
    assert np.asarray(open_picture(encode(byte, "TIFF")))[0, 0, 0] == 100


def test_transparency_of_a_palette_is_kept_and_composited():
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 200, 0, 0])
    opened = open_picture(encode(picture, "PNG", transparency=1))
    assert opened.mode == "RGBA"
    assert opened.getpixel((0, 0))[3] == 0
    assert over_color(opened).getpixel((0, 0)) == (255, 255, 255)
    assert over_color(opened, (128, 128, 128)).getpixel((1, 1)) == (128, 128, 128)


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), color) for color in ((250, 0, 0), (0, 250, 0))]
    for kind in ("GIF", "WEBP", "PNG"):
        content = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        red, green, _ = open_picture(content).getpixel((4, 4))
        assert red > 200
        assert green < 60


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_cut_short_is_one_sentence(tmp_path, kind, share):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = encode(Image.fromarray(noise), kind)
    path = tmp_path / "cut.png"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError) as caught:
        open_picture(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith(".")
    assert "cut short or damaged" in message or "not a picture" in message


def test_altered_bytes_never_raise_anything_but_usererror():
    generator = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "AVIF"):
        whole = np.frombuffer(encode(ramp(), kind), np.uint8)
        for _ in range(40):
            altered = whole.copy()
            places = generator.integers(0, len(whole), 6)
            altered[places] = generator.integers(0, 256, 6)
            with contextlib.suppress(UserError):
                assert open_picture(altered.tobytes(), at_least=8).mode in ("RGB", "RGBA")


def test_zero_bytes(tmp_path):
    path = tmp_path / "empty.png"
    path.touch()
    for source in (path, b""):
        with pytest.raises(UserError, match="the file is empty"):
            open_picture(source)


def test_not_a_picture(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(UserError) as caught:
        open_picture(path)
    assert str(caught.value) == (
        f"{path}: not a picture unflat can read (png, jpg, webp, tif, bmp, avif)."
    )


def test_postscript_is_never_interpreted(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    with pytest.raises(UserError, match="not a picture"):
        open_picture(path)


def test_missing_file_suggests_a_near_name(tmp_path):
    (tmp_path / "cat.jpg").write_bytes(encode(ramp(), "JPEG"))
    with pytest.raises(UserError) as caught:
        open_picture(tmp_path / "cat.jgp")
    assert "there is no such file; did you mean" in str(caught.value)
    assert str(caught.value).endswith("cat.jpg?")
    with pytest.raises(UserError, match="check the spelling"):
        open_picture(tmp_path / "nowhere" / "zebra.png")


def test_folder_and_heic_have_their_own_sentence(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        open_picture(tmp_path)
    path = tmp_path / "cat.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(UserError, match=r"not readable; convert it to PNG or JPEG\."):
        open_picture(path)


@pytest.mark.parametrize("size", [(15_000, 12_000), (30_000, 30_000)])
def test_decompression_bomb_is_refused_before_decoding(size):
    assert size[0] * size[1] > MAX_PIXELS
    with pytest.raises(UserError, match="more than 178 megapixels; give a smaller copy"):
        open_picture(png_header(*size))


def test_large_but_legal_is_reduced_while_decoding():
    grey = Image.new("L", (12_000, 9_000), 90)  # 108 megapixels: above Pillow's own warning
    content = encode(grey, "JPEG", quality=30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = open_picture(content, at_least=128)
    assert 128 <= min(picture.size) < 256
    assert abs(picture.width / picture.height - 4 / 3) < 0.02
    assert np.abs(np.asarray(picture).astype(int) - 90).max() <= 2


def test_reduction_is_an_area_average():
    values = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    got = np.asarray(resize_square(Image.fromarray(values), 16)).astype(float)
    blocks = values.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(got, blocks, atol=0.51)


def test_exif_is_read_or_empty():
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0xA405] = 28
    tags = exif_of(encode(ramp(), "JPEG", exif=exif))
    assert tags[0xA405] == 28
    assert exif_of(encode(ramp(), "BMP")) == {}
    assert exif_of(b"nothing") == {}


@pytest.mark.parametrize(("count", "side"), [(30, 7), (33, 32), (20, 13), (90, 7)])
def test_reduction_at_odd_ratios_counts_parts_of_pixels(count, side):
    values = np.random.default_rng(2).integers(0, 256, (count, count, 3), dtype=np.uint8)
    fine = np.repeat(np.repeat(values, side, axis=0), side, axis=1).astype(float)
    expected = fine.reshape(side, count, side, count, 3).mean(axis=(1, 3))
    got = np.asarray(resize_square(Image.fromarray(values), side)).astype(float)
    atol = 0.51 if count < 8 * side else 20  # larger ones are merged first, which shifts edges
    np.testing.assert_allclose(got, expected, atol=atol)
    assert abs(got.mean() - expected.mean()) < 0.7


def test_size_is_that_of_the_upright_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert picture_size(encode(ramp(), "JPEG", exif=exif)) == (30, 40)
    assert picture_size(encode(ramp(), "PNG")) == (40, 30)
    with pytest.raises(UserError, match="not a picture"):
        picture_size(b"nothing")
