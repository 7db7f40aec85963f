import re

import pytest

from unflat.systems.gan import survey
from unflat.systems.gan.registry import SYSTEMS
from unflat.systems.gan.survey import NO_CODE, SURVEY, status, surveyed


def test_every_system_that_can_be_trained_is_surveyed() -> None:
    assert set(SYSTEMS) <= set(SURVEY)
    assert {name for name in SURVEY if status(name) == "here"} == set(SYSTEMS)


def test_the_status_follows_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "SYSTEMS", {"graf": None})
    assert status("graf") == "here"
    assert status("eg3d") == "not yet"
    assert next(iter(surveyed())) == "graf"
    assert len(surveyed()) == len(SURVEY)


def test_the_list_is_whole() -> None:
    published = {name: system for name, system in SURVEY.items() if system.arxiv}
    assert len(published) == 40
    assert set(SURVEY) - set(published) == {"siren_sdf"}
    assert len({system.arxiv for system in published.values()}) == 40
    assert len({system.title for system in SURVEY.values()}) == len(SURVEY)


@pytest.mark.parametrize("name", [name for name in SURVEY if name != "siren_sdf"])
def test_a_row_agrees_with_itself(name: str) -> None:
    system = SURVEY[name]
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)  # the name of a file
    found = re.fullmatch(r"(\d\d)(0[1-9]|1[0-2])\.\d{5}", system.arxiv or "")
    assert found
    conference, year = system.venue.rsplit(" ", 1)
    years_after = int(year) - 2000 - int(found[1])
    assert years_after == 0 if conference == "arXiv" else 0 <= years_after <= 2
    assert (system.code is None) == (system.licence == NO_CODE)
    assert system.code is None or re.fullmatch(r"[\w.-]+/[\w.-]+", system.code)
    assert system.figures is None or system.protocol  # no figure without how it was measured
