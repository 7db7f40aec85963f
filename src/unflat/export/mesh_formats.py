"""The bytes of GLB, PLY and OBJ files with vertex colours, of GLB and OBJ with a texture.

All take vertices and normals in the file's world (y up); ``mesh.write_mesh`` turns them.
"""

import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt8
from PIL import Image

# Constants of the glTF 2.0 specification.
_GLTF_MAGIC, _JSON_CHUNK, _BIN_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
_FLOAT, _UNSIGNED_SHORT, _UNSIGNED_INT = 5126, 5123, 5125
_COMPONENTS = {"<f4": _FLOAT, "<u2": _UNSIGNED_SHORT, "<u4": _UNSIGNED_INT}
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071

_GENERATOR = "unflat"
_UNITS_UNKNOWN = "unknown"
_MATERIAL = "surface"


@dataclass(frozen=True)
class Texture:
    """Colours in a picture, and where each vertex lies in it.

    Attributes:
        uv: in [0, 1], to the right and down: (0, 0) is the picture's upper left corner, as in glTF.
        image: sRGB, 8 bit.
    """

    uv: Float32[np.ndarray, "vertices 2"]
    image: UInt8[np.ndarray, "height width 3"]


def write_glb(
    path: Path,
    vertices: Float32[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    colors: UInt8[np.ndarray, "vertices 3"],
    normals: Float32[np.ndarray, "vertices 3"],
    describe: str = "",
    texture: Texture | None = None,
) -> None:
    """Write a binary glTF 2.0: one mesh, one material, vertex colours or a texture.

    glTF takes vertex colours as linear; sixteen bits keep the dark tones of 8-bit sRGB apart. A
    texture is a PNG in sRGB, and the colours are left out, since readers multiply the two. The
    material is unlit (KHR_materials_unlit), since the colours hold the photo's own light; readers
    without that extension show it as rough and not metallic, from both sides.
    """
    binary = _Binary()
    indices = binary.accessor(faces.astype("<u4").ravel(), "SCALAR", _INDEX_BUFFER)
    low, high = vertices.min(0).tolist(), vertices.max(0).tolist()
    attributes = {
        "POSITION": binary.accessor(vertices.astype("<f4"), "VEC3", min=low, max=high),
        "NORMAL": binary.accessor(normals.astype("<f4"), "VEC3"),
    }
    base: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    document: dict[str, Any] = {}
    if texture is None:
        linear = np.full((len(colors), 4), 65535, dtype="<u2")
        linear[:, :3] = _srgb_to_linear_16()[colors]
        attributes["COLOR_0"] = binary.accessor(linear, "VEC4", normalized=True)
    else:
        attributes["TEXCOORD_0"] = binary.accessor(texture.uv.astype("<f4"), "VEC2")
        base["baseColorTexture"] = {"index": 0}
        document = {
            "images": [{"bufferView": binary.view(_png(texture)), "mimeType": "image/png"}],
            "samplers": [
                {
                    "magFilter": _LINEAR,
                    "minFilter": _LINEAR_MIPMAP_LINEAR,
                    "wrapS": _CLAMP_TO_EDGE,
                    "wrapT": _CLAMP_TO_EDGE,
                }
            ],
            "textures": [{"source": 0, "sampler": 0}],
        }
    extras = {"units": _UNITS_UNKNOWN, "note": "units unknown"}
    if describe:
        extras["description"] = describe
    material = {
        "pbrMetallicRoughness": base,
        "doubleSided": True,
        "extensions": {"KHR_materials_unlit": {}},
    }
    document |= {
        "asset": {"version": "2.0", "generator": _GENERATOR, "extras": extras},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0], "extras": extras}],
        "nodes": [{"mesh": 0, "name": describe or "scene"}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [material],
        "accessors": binary.accessors,
        "bufferViews": binary.views,
        "buffers": [{"byteLength": len(binary.content)}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), _JSON_CHUNK) + text
    chunks += struct.pack("<II", len(binary.content), _BIN_CHUNK) + bytes(binary.content)
    path.write_bytes(struct.pack("<III", _GLTF_MAGIC, 2, 12 + len(chunks)) + chunks)


class _Binary:
    """A GLB's buffer as it grows, with the views and accessors that describe it."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, content: bytes, **about: Any) -> int:
        """Number of a new view of the buffer; each begins and ends at a multiple of 4 bytes."""
        view = {"buffer": 0, "byteOffset": len(self.content), "byteLength": len(content)}
        self.views.append({**view, **about})
        self.content += content + bytes(-len(content) % 4)
        return len(self.views) - 1

    def accessor(
        self, values: np.ndarray, kind: str, target: int = _VERTEX_BUFFER, **about: Any
    ) -> int:
        """Number of a new accessor: an array, one element for each row."""
        view = self.view(values.tobytes(), target=target)
        self.accessors.append(
            {
                "bufferView": view,
                "componentType": _COMPONENTS[values.dtype.str],
                "count": len(values),
                "type": kind,
                **about,
            }
        )
        return len(self.accessors) - 1


def _png(texture: Texture) -> bytes:
    content = io.BytesIO()
    Image.fromarray(texture.image).save(content, "png")
    return content.getvalue()


def _srgb_to_linear_16() -> np.ndarray:
    """Table from 8-bit sRGB to 16-bit linear light (IEC 61966-2-1)."""
    value = np.arange(256) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.round(linear * 65535).astype("<u2")


def write_ply(
    path: Path,
    vertices: Float32[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    colors: UInt8[np.ndarray, "vertices 3"],
    normals: Float32[np.ndarray, "vertices 3"],
    describe: str = "",
) -> None:
    """Write a binary little-endian PLY with normals and 8-bit sRGB vertex colours."""
    names = ["x", "y", "z", "nx", "ny", "nz"]
    vertex = np.empty(
        len(vertices), dtype=[(name, "<f4") for name in names] + [("rgb", "u1", (3,))]
    )
    for axis in range(3):
        vertex[names[axis]] = vertices[:, axis]
        vertex[names[axis + 3]] = normals[:, axis]
    vertex["rgb"] = colors
    face = np.empty(len(faces), dtype=[("count", "u1"), ("corners", "<i4", (3,))])
    face["count"] = 3
    face["corners"] = faces
    header = ["ply", "format binary_little_endian 1.0", f"comment {_GENERATOR}"]
    header += ["comment y up, units unknown, colours sRGB"]
    if describe:
        header += [f"comment {_ascii(describe)}"]
    header += [f"element vertex {len(vertices)}"]
    header += [f"property float {name}" for name in names]
    header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    header += ["end_header", ""]
    with path.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(vertex.tobytes())
        file.write(face.tobytes())


def write_obj(
    path: Path,
    vertices: Float32[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    colors: UInt8[np.ndarray, "vertices 3"],
    normals: Float32[np.ndarray, "vertices 3"],
    describe: str = "",
    texture: Texture | None = None,
    library: str = "",
) -> None:
    """Write an OBJ; colours stand behind the coordinates of ``v`` as sRGB in [0, 1].

    With a texture they are left out: its material is the one that `write_material` writes into the
    file ``library`` beside this one.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"# {_GENERATOR}: y up, units unknown, colours sRGB\n")
        if describe:
            file.write(f"# {describe}\n")
        if texture is None:
            colored = np.concatenate([vertices, colors / 255], axis=1)
            _write_rows(file, "v %.6g %.6g %.6g %.4f %.4f %.4f\n", colored)
            _write_rows(file, "vn %.4f %.4f %.4f\n", normals)
            _write_rows(file, "f %d//%d %d//%d %d//%d\n", np.repeat(faces + 1, 2, axis=1))
            return
        file.write(f"mtllib {library}\nusemtl {_MATERIAL}\n")
        _write_rows(file, "v %.6g %.6g %.6g\n", vertices)
        _write_rows(file, "vt %.6f %.6f\n", texture.uv * [1, -1] + [0, 1])  # its v is upwards
        _write_rows(file, "vn %.4f %.4f %.4f\n", normals)
        _write_rows(file, "f %d/%d/%d %d/%d/%d %d/%d/%d\n", np.repeat(faces + 1, 3, axis=1))


def write_material(path: Path, image: str) -> None:
    """Write an OBJ's material library: one that shows a picture and does not shine.

    Args:
        path: ends in .mtl.
        image: name of the picture beside it.
    """
    lines = [f"# {_GENERATOR}", f"newmtl {_MATERIAL}", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0"]
    lines += ["illum 1", f"map_Kd {image}", ""]
    path.write_text("\n".join(lines), encoding="utf-8", newline="\n")


def _write_rows(file, line: str, rows: np.ndarray) -> None:
    """Write one line per row; whole blocks are formatted at once, which is much faster."""
    block = 20_000
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        file.write((line * len(part)) % tuple(part.ravel().tolist()))


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
