"""The bytes of GLB, PLY and OBJ files with vertex colours.

All take vertices and normals in the file's world (y up); ``mesh.write_mesh`` turns them.
"""

import json
import struct
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int, UInt8

# Constants of the glTF 2.0 specification.
_GLTF_MAGIC, _JSON_CHUNK, _BIN_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
_FLOAT, _UNSIGNED_SHORT, _UNSIGNED_INT = 5126, 5123, 5125
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963

_GENERATOR = "unflat"
_UNITS_UNKNOWN = "unknown"


def write_glb(
    path: Path,
    vertices: Float32[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    colors: UInt8[np.ndarray, "vertices 3"],
    normals: Float32[np.ndarray, "vertices 3"],
    describe: str = "",
) -> None:
    """Write a binary glTF 2.0: one mesh, one material, vertex colours in linear light.

    glTF takes vertex colours as linear; sixteen bits keep the dark tones of 8-bit sRGB apart.
    The material is unlit (KHR_materials_unlit), since the colours hold the photo's own light;
    readers without that extension show it as rough and not metallic, from both sides.
    """
    linear = np.full((len(colors), 4), 65535, dtype="<u2")
    linear[:, :3] = _srgb_to_linear_16()[colors]
    parts = [
        (faces.astype("<u4"), _INDEX_BUFFER),
        (vertices.astype("<f4"), _VERTEX_BUFFER),
        (normals.astype("<f4"), _VERTEX_BUFFER),
        (linear, _VERTEX_BUFFER),
    ]
    views, start = [], 0
    for values, target in parts:
        views.append(
            {"buffer": 0, "byteOffset": start, "byteLength": values.nbytes, "target": target}
        )
        start += values.nbytes
    document = _gltf_document(vertices, faces, describe)
    document["bufferViews"] = views
    document["buffers"] = [{"byteLength": start}]
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    with path.open("wb") as file:
        file.write(struct.pack("<III", _GLTF_MAGIC, 2, 12 + 8 + len(text) + 8 + start))
        file.write(struct.pack("<II", len(text), _JSON_CHUNK) + text)
        file.write(struct.pack("<II", start, _BIN_CHUNK))
        for values, _ in parts:
            file.write(values.tobytes())


def _gltf_document(vertices: np.ndarray, faces: np.ndarray, describe: str) -> dict[str, object]:
    count = len(vertices)
    extras = {"units": _UNITS_UNKNOWN, "note": "units unknown"}
    if describe:
        extras["description"] = describe
    low, high = vertices.min(0).tolist(), vertices.max(0).tolist()
    material = {
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
        "doubleSided": True,
        "extensions": {"KHR_materials_unlit": {}},
    }
    primitive = {
        "attributes": {"POSITION": 1, "NORMAL": 2, "COLOR_0": 3},
        "indices": 0,
        "material": 0,
    }
    return {
        "asset": {"version": "2.0", "generator": _GENERATOR, "extras": extras},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0], "extras": extras}],
        "nodes": [{"mesh": 0, "name": describe or "scene"}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [material],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": _UNSIGNED_INT,
                "count": faces.size,
                "type": "SCALAR",
            },
            {
                "bufferView": 1,
                "componentType": _FLOAT,
                "count": count,
                "type": "VEC3",
                "min": low,
                "max": high,
            },
            {"bufferView": 2, "componentType": _FLOAT, "count": count, "type": "VEC3"},
            {
                "bufferView": 3,
                "componentType": _UNSIGNED_SHORT,
                "normalized": True,
                "count": count,
                "type": "VEC4",
            },
        ],
    }


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
) -> None:
    """Write an OBJ; colours stand behind the coordinates of ``v`` as sRGB in [0, 1]."""
    colored = np.concatenate([vertices, colors / 255], axis=1)
    corners = np.repeat(faces + 1, 2, axis=1)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"# {_GENERATOR}: y up, units unknown, colours sRGB\n")
        if describe:
            file.write(f"# {describe}\n")
        _write_rows(file, "v %.6g %.6g %.6g %.4f %.4f %.4f\n", colored)
        _write_rows(file, "vn %.4f %.4f %.4f\n", normals)
        _write_rows(file, "f %d//%d %d//%d %d//%d\n", corners)


def _write_rows(file, line: str, rows: np.ndarray) -> None:
    """Write one line per row; whole blocks are formatted at once, which is much faster."""
    block = 20_000
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        file.write((line * len(part)) % tuple(part.ravel().tolist()))


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
