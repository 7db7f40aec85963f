"""Which systems there are, and where each one's file is; listing them imports none of them."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from unflat.errors import UserError

if TYPE_CHECKING:
    from unflat.systems.gan.recipe import Parts


@dataclass(frozen=True, kw_only=True)
class System:
    """One system that can be trained."""

    module: str
    """Its file: ``Config``, ``PRESETS``, ``training`` and ``build``."""
    title: str
    """As its paper calls it."""
    needs_cameras: bool
    """Whether pictures must come with cameras."""
    needs_masks: bool = False
    """Whether they must come with masks."""


SYSTEMS: dict[str, System] = {
    "sdf_triplane": System(
        module="unflat.systems.gan.sdf_triplane",
        title="the generator of bootstrapped radiance field inversion",
        needs_cameras=True,
        needs_masks=True,
    ),
    "eg3d": System(module="unflat.systems.gan.eg3d", title="EG3D", needs_cameras=True),
    "pigan": System(module="unflat.systems.gan.pigan", title="pi-GAN", needs_cameras=False),
    "siren_sdf": System(
        module="unflat.systems.gan.siren_sdf",
        title="pi-GAN's field with a signed distance, EG3D's critic: nobody's",
        needs_cameras=True,
    ),
}
"""By the name of their file."""


def module_of(name: str) -> ModuleType:
    """The file of a system, imported.

    Raises:
        UserError: there is no such system.
    """
    if name not in SYSTEMS:
        raise UserError(f"--system {name}: there is no such system; choose {', '.join(SYSTEMS)}.")
    return importlib.import_module(SYSTEMS[name].module)


def config_of(values: Mapping[str, Any]) -> tuple[str, Any]:
    """Name and config of a system, from what a model file says.

    Raises:
        UserError: no such system, or a config that it does not know.
    """
    name = str(values.get("system", ""))
    module = module_of(name)
    known = {field.name for field in fields(module.Config)}
    own = {key: value for key, value in values.items() if key != "system"}
    unknown = sorted(set(own) - known)
    if unknown:
        raise UserError(f"{name}: its config has {unknown[0]}, which this version does not know.")
    default = module.Config()
    return name, module.Config(**{k: _restored(getattr(default, k), v) for k, v in own.items()})


def build(name: str, config: Any) -> "Parts":
    """Networks and objective of a system."""
    return module_of(name).build(config)


def _restored(default: Any, value: Any) -> Any:
    """A config's value from JSON, where tuples are lists and dataclasses are objects."""
    if is_dataclass(default) and isinstance(value, Mapping):
        own = {key: _restored(getattr(default, key), each) for key, each in value.items()}
        return replace(default, **own)  # pyright: ignore[reportArgumentType]  an instance
    return tuple(_restored(None, each) for each in value) if isinstance(value, list) else value
