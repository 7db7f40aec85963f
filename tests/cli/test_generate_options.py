from dataclasses import replace
from pathlib import Path

import pytest

from unflat.cli.evaluate_generation import Options as EvaluationOptions
from unflat.cli.generate import Options
from unflat.cli.main import main
from unflat.cli.reconstruct import Options as ReconstructOptions
from unflat.errors import UserError


def test_usual_numbers_pass() -> None:
    Options().require_sampling()
    options = replace(Options(), temperature=0.7, guidance_scale=0.0, top_k=1, top_p=1.0, steps=64)
    options.require_sampling()
    EvaluationOptions(data=(Path("x.tar"),)).require_sampling()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"temperature": 0.0},
            "--temperature 0: must be above 0 and at most 100 (1 is as learned).",
        ),
        ({"temperature": float("nan")}, "--temperature nan: must be above 0 and at most 100"),
        ({"guidance_scale": -1.0}, "--guidance-scale -1: must be from 0 to 100 (1 is as learned)."),
        ({"guidance_scale": float("inf")}, "--guidance-scale inf: must be from 0 to 100"),
        ({"top_p": 1.5}, "--top-p 1.5: must be above 0 and at most 1."),
        ({"top_p": 0.0}, "--top-p 0: must be above 0 and at most 1."),
        ({"top_k": 0}, "--top-k 0: must be at least 1 codes."),
        ({"steps": 0}, "--steps 0: must be at least 1 passes."),
    ],
)
def test_numbers_out_of_their_range(changes: dict, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        replace(Options(), **changes).require_sampling()
    assert str(error.value).startswith(sentence)


def test_the_class_is_spelled_class(
    tiny_prior: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", str(tiny_prior), "--count", "2", "--dry-run", "--out", str(tmp_path / "x")]
    assert main(["generate", "--class", "1", *words]) == 0
    said = capsys.readouterr().out
    assert "would make 2 scenes" in said
    assert "photo/fruit -> " in said
    assert "x/photo-fruit-01/" in said
    assert main(["generate", *words]) == 0
    assert "x/car-00/" in capsys.readouterr().out
    assert main(["generate", "--class", "fruit", *words]) == 2
    assert "did you mean photo/fruit or scene/fruit?" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_prior_is_named_for_completing_alone() -> None:
    assert ReconstructOptions().completed_by() is None
    assert ReconstructOptions(complete=True).completed_by() == "vq3d-prior"
    assert ReconstructOptions(complete=True, prior="p").completed_by() == "p"
    with pytest.raises(UserError, match=r"^--prior: draws for --complete, which is not given"):
        ReconstructOptions(prior="p").completed_by()


def test_completing_goes_with_detail(
    tiny_model: Path, tiny_prior: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reconstruct", "x.png", "--model", str(tiny_model), "--complete", "--prior"]
    assert main([*words, str(tiny_prior), "--mode", "tokens"]) == 2
    assert "use it with --mode detail" in capsys.readouterr().err
    assert main([*words, "nowhere.safetensors"]) == 2
    assert "nowhere.safetensors: there is no such model file" in capsys.readouterr().err
