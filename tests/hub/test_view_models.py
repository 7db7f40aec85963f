import json

import pytest

from unflat.cli.main import main
from unflat.errors import UserError
from unflat.hub import MODELS, PUBLISHED_VIEWS, describe_views, find_views


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Files of `tmp_path`, and what was asked for."""
    asked = []

    def hub_file(hub_id, names, *, offline):
        asked.append((hub_id, tuple(names), offline))
        for name in names:
            if (tmp_path / name).is_file():
                return tmp_path / name
        raise UserError(f"{hub_id}: lacks a file that is needed; choose another model.")

    monkeypatch.setattr("unflat.hub.view_models.hub_file", hub_file)
    return asked


def made(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def test_a_name_is_a_file_of_the_hub(tmp_path, hub):
    made(tmp_path, "105000.ckpt")
    found = find_views("zero123-105000")
    assert found.path == tmp_path / "105000.ckpt"
    assert found.known is PUBLISHED_VIEWS["zero123-105000"]
    assert hub == [("cvlab/zero123-weights", ("105000.ckpt",), False)]


def test_a_hub_id_with_a_file_is_that_file(tmp_path, hub):
    made(tmp_path, "165000.ckpt", "stable_zero123.ckpt")
    assert find_views("cvlab/zero123-weights/165000.ckpt").known is None
    known = find_views("stabilityai/stable-zero123/stable_zero123.ckpt").known
    assert known is PUBLISHED_VIEWS["stable-zero123"]


def test_of_a_folder_only_what_is_used_is_fetched(tmp_path, hub):
    index = {"unet": [], "clip_camera_projection": [], "scheduler": [], "safety_checker": []}
    parts = ("unet", "vae", "clip_camera_projection")
    made(tmp_path, *(f"{part}/diffusion_pytorch_model.safetensors" for part in parts))
    made(tmp_path, "image_encoder/pytorch_model.bin", "scheduler/scheduler_config.json")
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    found = find_views("zero123-xl", offline=True)
    assert found.path == tmp_path
    assert all(offline for _, _, offline in hub)
    first = [names[0].split("/")[0] for _, names, _ in hub]
    assert first == [
        "model_index.json",
        "unet",
        "vae",
        "image_encoder",
        *index.keys() - {"unet", "safety_checker", "scheduler"},
        "scheduler",
    ]
    assert "image_encoder/pytorch_model.bin" in hub[3][1]
    assert find_views("kxhit/other").known is None


def test_a_path_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made(tmp_path, "zero123-xl")
    found = find_views("zero123-xl")
    assert found.path.is_file()
    assert found.known is None


def test_what_is_neither_is_met_with_the_nearest():
    with pytest.raises(UserError, match=r"there is no such model; did you mean zero123-105000\?"):
        find_views("zero123-10500")
    with pytest.raises(UserError, match="there is no such model; see unflat models list"):
        find_views("qqqq")
    for path in ("runs/x.pth", "a/b/c/d", "x.ckpt", "../x"):
        with pytest.raises(UserError, match="there is no such model"):
            find_views(path)


def test_published_models_are_listed_with_licences(capsys):
    assert not PUBLISHED_VIEWS.keys() & MODELS.keys()
    assert main(["models", "list"]) == 0
    said = capsys.readouterr().out
    for name, known in PUBLISHED_VIEWS.items():
        assert f"{name}  (published by others" in said
        assert known.licence in said


@pytest.mark.parametrize("name", PUBLISHED_VIEWS)
def test_a_published_model_can_be_shown(name, capsys):
    assert main(["models", "show", name]) == 0
    said = capsys.readouterr().out
    assert said.strip() == describe_views(name)
    for word in (PUBLISHED_VIEWS[name].hub_id, PUBLISHED_VIEWS[name].licence, "not shipped"):
        assert word in said
