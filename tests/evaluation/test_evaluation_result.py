import json
import math

import pytest
import torch

from unflat.evaluation import Column, Evaluation, Item, Published, Table, mean_figures, write_page

PSNR = Column(key="psnr", label="PSNR dB")
ERROR = Column(key="error", label="error", form="{:.3f}", better="lower")
EMPTY = Column(key="focal", label="focal")


def item(name, psnr, error):
    return Item(name=name, figures={"mine": {"psnr": psnr, "error": error}, "copy": {"psnr": 1.0}})


@pytest.fixture
def evaluation():
    items = [item("a", [10.0, 20.0], 0.3), item("b", [30.0], math.nan), item("c", 12.0, 0.1)]
    return Evaluation(
        task="views",
        tables=[Table(title="All", columns=[PSNR, ERROR, EMPTY])],
        figures=mean_figures(items),
        protocol={"seed": 0, "text": "<b>not bold</b>"},
        items=items,
        rank=("mine", PSNR),
    )


def test_means_count_every_view_and_leave_out_what_was_not_measured(evaluation):
    assert evaluation.figures["mine"] == pytest.approx(
        {"psnr": (10 + 20 + 30 + 12) / 4, "error": 0.2}
    )


def test_items_are_ranked_by_the_mean_of_their_views_in_the_better_direction(evaluation):
    assert [evaluation.items[i].name for i in evaluation.ranked()] == ["b", "a", "c"]
    evaluation.rank = ("mine", ERROR)  # b has none
    assert [evaluation.items[i].name for i in evaluation.ranked()] == ["c", "a"]
    evaluation.rank = None
    assert evaluation.ranked() == []


def test_tables_leave_out_columns_without_figures_and_mark_missing_cells(evaluation):
    head, better, mine, other = evaluation.lines()[1:]
    assert head.split() == ["PSNR", "dB", "error"]
    assert better.split() == ["(higher)", "(lower)"]
    assert mine.split() == ["mine", "18.00", "0.200"]
    assert other.split() == ["copy", "1.00", "-"]


def test_published_figures_stand_below_with_their_source(evaluation):
    known = Published(
        title="the set",
        source="arXiv 1",
        columns=[PSNR],
        rows={"theirs": {"psnr": 20.05}},
        comparable="not comparable: other objects",
    )
    evaluation.published = [known]
    text = "\n".join(evaluation.lines())
    assert "published: the set (arXiv 1); not comparable: other objects" in text
    assert "20.05" in text


def test_the_report_is_plain_json_without_numbers_that_are_none(evaluation):
    report = evaluation.json(per_item=True)
    text = json.dumps(report, allow_nan=False)
    assert report["items"][1]["figures"]["mine"]["error"] is None
    assert "items" not in evaluation.json()
    assert json.loads(text)["protocol"]["seed"] == 0


def test_the_page_escapes_words_and_shows_best_median_and_worst(evaluation, tmp_path):
    shown = []

    def sheet(index):
        shown.append(index)
        return torch.full((3, 8, 8), index / 3)

    evaluation.sheet = sheet
    evaluation.items += [item(f"d{n}", float(n), 0.5) for n in range(9)]
    write_page(tmp_path / "page.html", evaluation, ["<took> 3 s"])
    page = (tmp_path / "page.html").read_text()
    assert "&lt;b&gt;not bold" in page
    assert "&lt;took&gt;" in page
    order = evaluation.ranked()
    assert shown == [*order[:3], *order[5:8], *order[-3:]]
    assert page.count("<figure>") == 9
