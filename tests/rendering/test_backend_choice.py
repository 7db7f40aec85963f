"""Which backend marches rays, and what is said about it."""

import importlib.util
import logging
import subprocess
import sys

import pytest
import torch

from unflat.cli.main import main
from unflat.errors import UserError
from unflat.fields import FeatureDecoder, TriplaneField
from unflat.rendering import backends
from unflat.rendering.backends import Rays
from unflat.rendering.backends.check import disagreement

pytestmark = pytest.mark.usefixtures("no_backend_named")


def scene() -> TriplaneField:
    return TriplaneField(torch.zeros(1, 3, 4, 8, 8), FeatureDecoder(4, 8))


def rays() -> Rays:
    line = torch.tensor([[[0.0, 0.0, 1.0]]])
    return Rays(torch.zeros(1, 1, 3), line, torch.linspace(1, 2, 5)[None, None])


@pytest.fixture
def without_numba(monkeypatch):
    """As if the extra were not installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "numba" else find(name))
    backends._fused.cache_clear()
    yield
    backends._fused.cache_clear()


def test_without_the_extra_the_reference_marches_and_says_so_once(without_numba, caplog):
    with caplog.at_level(logging.INFO, logger="unflat"):
        names = [backends.pick(scene(), rays()).name for _ in range(3)]
    assert names == ["reference"] * 3
    remarks = [record.getMessage() for record in caplog.records]
    assert len(remarks) == 1
    assert 'pip install "unflat[fast]"' in remarks[0]
    with backends.use("fused"), pytest.raises(UserError, match=r"none is installed for cpu"):
        backends.pick(scene(), rays())


def test_a_forced_backend_that_is_not_there_is_a_mistake(without_numba, capsys, tmp_path):
    code = main(["render", str(tmp_path / "scene.safetensors"), "--backend", "fused"])
    assert code == 2
    assert 'pip install "unflat[fast]"' in capsys.readouterr().err


def test_a_verb_leaves_no_listener_behind(capsys):
    main(["doctor", "--backend", "reference"])
    log = logging.getLogger("unflat")
    assert not log.handlers
    assert log.propagate
    capsys.readouterr()


def test_a_verb_forces_a_backend_for_itself_alone(monkeypatch, tmp_path):
    from unflat.cli import doctor

    seen = []

    def run(options, terminal):
        seen.append(backends.current())
        return 0

    monkeypatch.setattr(doctor, "run", run)
    main(["doctor", "--backend", "reference"])
    main(["doctor"])
    assert seen == ["reference", "auto"]


def test_nothing_of_numba_is_imported_before_rays_are_marched():
    program = (
        "import sys, unflat.rendering, unflat.systems.vq3d;"
        "assert not {'numba', 'triton', 'llvmlite'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


class Almost(backends.Reference):
    """The reference with one thing wrong."""

    def __init__(self, wrong):
        self.wrong = wrong

    def march(self, field, rays, how):
        marched = super().march(field, rays, how)
        if self.wrong == "crash":
            raise RuntimeError("no kernel image\nfor this device")
        if self.wrong == "picture":
            return marched._replace(features=marched.features + 2e-4)
        if self.wrong == "nan":
            return marched._replace(weights=marched.weights * torch.nan)
        if self.wrong == "gradient":
            wrong = 1.01 * marched.features - 0.01 * marched.features.detach()
            return marched._replace(features=wrong)
        return marched


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("nothing", None),
        ("crash", "RuntimeError: no kernel image"),
        ("picture", "off by 0.0002"),
        ("nan", "off by nan"),
        ("gradient", "off by"),
    ],
)
def test_a_backend_is_tried_before_it_is_trusted(wrong, said):
    found = disagreement(Almost(wrong), "cpu")
    assert (found is None) if said is None else (said in found)


def test_the_cpu_backend_would_be_trusted():
    pytest.importorskip("numba", reason="needs the [fast] extra")
    from unflat.rendering.backends.cpu.backend import Cpu

    assert disagreement(Cpu(), "cpu") is None


@pytest.fixture
def never_compiled(monkeypatch, tmp_path):
    """As on a computer where nothing has been compiled yet."""
    pytest.importorskip("numba", reason="needs the [fast] extra")
    from unflat.rendering.backends.cpu import patience

    monkeypatch.setattr(patience, "machine_code", lambda: tmp_path / "kernels")
    monkeypatch.setattr(patience, "_given", patience.Counter())
    monkeypatch.setattr(patience, "_ready", set())
    monkeypatch.setattr(backends, "_at_once", False)
    return patience


def test_little_work_does_not_wait_for_a_compiler(never_compiled, monkeypatch):
    monkeypatch.setattr(never_compiled, "SAMPLES", 14)  # of 4 a call
    with torch.no_grad():
        names = [backends.pick(scene(), rays()).name for _ in range(5)]
    assert names == ["reference"] * 3 + ["cpu"] * 2
    assert backends.pick(scene(), rays()).name == "cpu"  # a training step


def test_what_was_compiled_once_is_taken_at_once(never_compiled, monkeypatch):
    with torch.no_grad():
        assert backends.pick(scene(), rays()).name == "reference"
        with backends.use("fused"):
            backends.pick(scene(), rays()).march(scene(), rays(), backends.Marching())
        assert backends.pick(scene(), rays()).name == "cpu"
        monkeypatch.setattr(never_compiled, "_ready", set())  # another process
        assert backends.pick(scene(), rays()).name == "cpu"


def test_figures_do_not_depend_on_what_was_compiled(never_compiled):
    with torch.no_grad():
        backends.compile_at_once()
        assert backends.pick(scene(), rays()).name == "cpu"
