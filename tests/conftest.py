"""What every test may lean on: quiet randomness, optional data, an optional browser."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("unflat", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("unflat")

# Workers share the cores; and one thread makes sums come out in one order.
torch.set_num_threads(1)

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def _browser() -> str | None:
    return next((found for name in _BROWSERS if (found := shutil.which(name))), None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, each with its one sentence."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if item.get_closest_marker("browser") and _browser() is None:
        pytest.skip("needs a chromium on PATH")
    if item.get_closest_marker("weights") and "UNFLAT_WEIGHTS" not in os.environ:
        pytest.skip("needs published weights in the folder UNFLAT_WEIGHTS")
    if item.get_closest_marker("network") and "UNFLAT_NETWORK" not in os.environ:
        pytest.skip("needs a network; set UNFLAT_NETWORK=1")


@pytest.fixture(scope="session")
def browser_path() -> str:
    """The chromium that browser tests drive."""
    found = _browser()
    if found is None:
        pytest.skip("needs a chromium on PATH")
    return found


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Larger data, where this machine has it (environment variable UNFLAT_DATA)."""
    folder = os.environ.get("UNFLAT_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the data sets in the folder UNFLAT_DATA")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def kernels_at_once() -> None:
    """Fused kernels are tested whether or not they were compiled here before."""
    from unflat.rendering import backends  # not earlier: its types are to be checked

    backends.compile_at_once()


@pytest.fixture
def no_backend_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if UNFLAT_BACKEND, under which all tests can be run, were not set."""
    monkeypatch.delenv("UNFLAT_BACKEND", raising=False)


@pytest.fixture
def generator() -> torch.Generator:
    """Random numbers that are the same in every run."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of the tiny preset, untrained: for tests that ask how, not how well."""
    from unflat.systems.vq3d.config import tiny
    from unflat.systems.vq3d.recipe import Vq3dRecipe
    from unflat.training import save_model

    torch.manual_seed(0)
    recipe = Vq3dRecipe(tiny())
    recipe.start(torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    header = {**recipe.config_json(), "card": {"name": "untrained", "licence": "Apache-2.0"}}
    save_model(path, recipe.networks, header)
    return path


@pytest.fixture(scope="session")
def tiny_prior(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained prior over the tokens of `tiny_model`, with three classes."""
    from unflat.systems.vq3d import load
    from unflat.systems.vq3d.prior_config import PriorConfig
    from unflat.systems.vq3d.prior_recipe import PriorRecipe
    from unflat.systems.vq3d.tokens import fingerprint
    from unflat.training import save_model

    torch.manual_seed(0)
    model = load(tiny_model)
    config = PriorConfig(
        grid=model.config.grid,
        codebook_sizes=model.codebook_sizes,
        levels=model.config.levels,
        classes=3,
        width=32,
        depth=1,
    )
    recipe = PriorRecipe(
        config,
        classes=["car", "photo/fruit", "scene/fruit"],
        fingerprint=fingerprint(model),
        autoencoder=str(tiny_model),
    )
    path = tmp_path_factory.mktemp("prior") / "model.safetensors"
    save_model(path, recipe.networks, {**recipe.config_json(), "card": {"licence": "CC0-1.0"}})
    return path
