"""Flat pictures into 3D.

import unflat

scene = unflat.reconstruct("photo.jpg")
scene.orbit().save("orbit.webp")
"""

import importlib
from typing import TYPE_CHECKING, Any

from unflat.errors import UserError

if TYPE_CHECKING:
    from unflat.object_scene import ObjectScene, load_scene
    from unflat.scene import Scene
    from unflat.systems.vq3d.pipeline import reconstruct_picture as reconstruct

__all__ = ["ObjectScene", "Scene", "UserError", "load_scene", "reconstruct"]

# Imported when first asked for, so that ``import unflat`` and the command's help stay instant.
_PLACES = {
    "ObjectScene": ("unflat.object_scene", "ObjectScene"),
    "Scene": ("unflat.scene", "Scene"),
    "load_scene": ("unflat.object_scene", "load_scene"),
    "reconstruct": ("unflat.systems.vq3d.pipeline", "reconstruct_picture"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'unflat' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
