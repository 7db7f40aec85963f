from pathlib import Path

import pytest
from command import Run, draw, run_in


@pytest.fixture
def unflat(tmp_path: Path) -> Run:
    return run_in(tmp_path)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return draw(tmp_path / "cat.png")
