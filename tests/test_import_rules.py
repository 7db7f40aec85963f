"""Who may import whom: rooms look only downwards, and the training path stays light.

Read from the source, so that imports inside functions count as well.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unflat"

# Lower first. Rooms of one level may use each other as long as no circle arises.
LEVELS = (
    (
        "errors",
        "files",
        "device",
        "report",
        "terminal",
        "tensor_file",
        "torch_file",
        "stored_tensors",
        "pretrained",
    ),
    ("geometry", "nn"),
    ("fields",),
    ("rendering",),
    ("training", "data", "export", "metrics", "losses"),
    ("insertion", "scene", "object_scene", "object_result", "result", "collection"),
    ("hub", "systems"),
    ("evaluation",),
    ("cli", "app", "__main__"),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

# Rooms of which a training run is made, and what they may need at import.
TRAINING_PATH = ("geometry", "nn", "fields", "rendering", "losses", "training", "data", "systems")
TRAINING_PACKAGES = {
    *("torch", "numpy", "PIL", "safetensors", "accelerate", "jaxtyping", "rich", "tyro"),
}
OPTIONAL_PACKAGES = {
    *("accelerate", "webdataset", "tensorboard", "diffusers", "transformers", "huggingface_hub"),
    *("xatlas", "fast_simplification", "embreex", "av", "gradio", "viser", "rembg", "numba"),
    *("skimage", "scipy", "trimesh", "matplotlib"),
}

# Kernels are written in an optional package; nothing imports them before it is found.
KERNELS = {
    "unflat.rendering.backends.cpu.": {"numba", "llvmlite"},
    "unflat.rendering.backends.triton.": {"triton"},
}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = ("unflat", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str | None:
    """The room of a dotted name, None for the package itself and for other packages."""
    parts = module.split(".")
    return parts[1] if parts[0] == "unflat" and len(parts) > 1 else None


def imports(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Dotted names that a file imports, and whether that happens when the file is imported."""

    def walk(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_import) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "relative imports are not used here"
                assert child.module is not None
                # "from unflat import scene" names a room only in its second half.
                named = child.module == "unflat"
                yield from (
                    (f"unflat.{alias.name}" if named else child.module, at_import)
                    for alias in child.names
                )
            yield from walk(child, at_import and not inside and not for_types)

    yield from walk(tree, True)


def file_imports(path: Path) -> list[tuple[str, bool]]:
    return list(imports(ast.parse(path.read_text(encoding="utf-8"))))


def test_every_room_has_a_level() -> None:
    found = {found for path in modules() if (found := room(module_name(path)))}
    assert found <= set(LEVEL), f"give these a level: {sorted(found - set(LEVEL))}"


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_a_room_imports_only_downwards(path: Path) -> None:
    own = room(module_name(path))
    if own is None:
        pytest.skip("the package's own file hands names out lazily; it has its own test")
    for name, _ in file_imports(path):
        other = room(name)
        if other is None or other == own:
            continue
        assert LEVEL[other] <= LEVEL[own], f"{own} may not import {name}"
        assert not (own == "nn" and other == "geometry"), "nn knows no 3D"


def test_rooms_make_no_circles() -> None:
    uses: dict[str, set[str]] = {}
    for path in modules():
        own = room(module_name(path))
        if own is not None:
            others = {other for name, _ in file_imports(path) if (other := room(name))}
            uses.setdefault(own, set()).update(others - {own})
    try:
        TopologicalSorter(uses).prepare()
    except CycleError as error:
        pytest.fail(f"rooms import each other in a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_nothing_below_systems_names_a_system(path: Path) -> None:
    own = room(module_name(path))
    if own is not None and LEVEL[own] < LEVEL["systems"]:
        names = [name for name, _ in file_imports(path) if room(name) == "systems"]
        assert not names


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_torchvision_is_nowhere(path: Path) -> None:
    assert not [name for name, _ in file_imports(path) if name.split(".")[0] == "torchvision"]


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_optional_packages_wait_until_they_are_used(path: Path) -> None:
    early = {name.split(".")[0] for name, at_import in file_imports(path) if at_import}
    for package, written_in in KERNELS.items():
        if module_name(path).startswith(package):
            early -= written_in
    assert not early & OPTIONAL_PACKAGES, "import it inside the function that uses it"
    if room(module_name(path)) in TRAINING_PATH:
        foreign = early - TRAINING_PACKAGES - set(sys.stdlib_module_names) - {"unflat"}
        assert not foreign, f"a bare training machine has no {sorted(foreign)}"


def test_the_package_itself_imports_nothing_heavy() -> None:
    early = {name for name, at_import in file_imports(SOURCE / "__init__.py") if at_import}
    heavy = {name for name in early if name.split(".")[0] not in sys.stdlib_module_names}
    assert heavy <= {"unflat.errors"}


def test_training_imports_on_a_bare_machine() -> None:
    """With everything optional blocked, the training rooms still import."""
    blocked = sorted(OPTIONAL_PACKAGES | {"torchvision"} - {"accelerate"})
    rooms = [name for name in ("training", "data") if (SOURCE / name).is_dir()]
    systems = [f"systems.{p.name}" for p in (SOURCE / "systems").glob("[a-z]*") if p.is_dir()]
    program = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in blocked)
    program += "".join(f"import unflat.{name}\n" for name in (*rooms, *systems))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
