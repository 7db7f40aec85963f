import json
import shutil

import numpy as np
import pytest
import torch
from oracles import SCALE, SHIFT, Oracle

from unflat.data.posed import PosedScenes
from unflat.errors import UserError
from unflat.evaluation import write_page
from unflat.evaluation.baselines import Baseline
from unflat.evaluation.estimators import FolderDepth, ModelDepth
from unflat.evaluation.reconstruction import evaluate_reconstructor
from unflat.evaluation.reconstructor import align, true_disparity
from unflat.metrics import psnr


@pytest.fixture(scope="module")
def scenes(scenes_folder):
    return list(PosedScenes(scenes_folder))


@pytest.fixture(scope="module")
def warping(scenes, scenes_folder, photos_tar):
    """The result of an oracle that knows the depth and warps the photo."""
    oracle = Oracle(scenes, modes=("tokens", "detail"))
    return evaluate_reconstructor(oracle, [scenes_folder], photos=photos_tar)


def test_true_depth_known_up_to_scale_and_shift_reaches_the_ceiling_of_warping(warping):
    """Exact only if poses, intrinsics and the fit are all used the right way round."""
    figures = warping.figures
    ceiling = figures["true_depth_warp_input"]
    for mode in ("tokens", "detail"):
        for name in ("novel_psnr", "far_psnr"):
            assert figures[mode][name] == pytest.approx(ceiling[name], abs=0.02)
        assert figures[mode]["canonical_psnr"] == 100
        assert figures[mode]["disparity_correlation"] == pytest.approx(1, abs=1e-5)
        assert figures[mode]["termination_variance"] == 0.25
    assert ceiling["novel_psnr"] > figures["copy"]["novel_psnr"] + 3
    for item in warping.items:
        assert item.facts["alignment"]["tokens"]["scale"] == pytest.approx(SCALE, rel=1e-3)
        assert item.facts["alignment"]["tokens"]["shift"] == pytest.approx(SHIFT, rel=1e-3)


def test_exact_views_score_above_every_warp(scenes, scenes_folder, analytic_scenes):
    def seen(index, alignment, cameras, side):
        return analytic_scenes[index].see(cameras, side)[0]

    right = evaluate_reconstructor(Oracle(scenes, seen=seen), [scenes_folder]).figures
    assert right["tokens"]["novel_psnr"] > 50  # 8-bit rounding alone
    assert right["tokens"]["far_psnr"] > 50
    wrong = evaluate_reconstructor(Oracle(scenes, seen=seen, wrong=True), [scenes_folder])
    assert wrong.figures["tokens"]["novel_psnr"] < right["copy"]["novel_psnr"]


def test_a_camera_of_the_wrong_sign_costs_decibels(scenes, scenes_folder, warping):
    wrong = evaluate_reconstructor(Oracle(scenes, wrong=True), [scenes_folder]).figures
    for name in ("novel_psnr", "far_psnr"):
        assert wrong["tokens"][name] < warping.figures["tokens"][name] - 3


def test_the_baselines_are_what_they_say(warping, scenes):
    novel, far, color = [], [], []
    for scene in scenes:
        values = psnr(scene.images[:1].expand(3, -1, -1, -1), scene.images[1:])
        novel += values[:2].tolist()
        far += values[2:].tolist()
        mean = scene.images[:1].mean(dim=(2, 3), keepdim=True).expand(1, 3, 48, 48)
        color.append(psnr(mean, scene.images[:1]).item())
    figures = warping.figures
    assert figures["copy"]["novel_psnr"] == pytest.approx(sum(novel) / 6, abs=1e-4)
    assert figures["copy"]["far_psnr"] == pytest.approx(sum(far) / 3, abs=1e-4)
    assert figures["mean-color"]["canonical_psnr"] == pytest.approx(sum(color) / 3, abs=1e-4)
    # this oracle's picture is the photo and its depth is true
    for kind in ("warp_input", "warp_recon", "true_depth_warp_recon", "tokens_depth_warp_input"):
        for name in ("novel_psnr", "far_psnr"):
            expected = figures["true_depth_warp_input"][name]
            assert figures[kind][name] == pytest.approx(expected, abs=0.02)


def test_codes_and_photos_are_counted(warping):
    tokens = warping.figures["tokens"]
    assert tokens["code_usage"] == pytest.approx((2 / 4 + 1 / 2) / 2)
    # slot 0: one in three is 1, the rest 0; slot 1: all 0
    assert tokens["code_perplexity"] == pytest.approx((3 / 2 ** (2 / 3) + 1) / 2, rel=1e-5)
    assert "code_usage" not in warping.figures["detail"]
    assert tokens["photos_canonical_psnr"] == 100
    assert tokens["photos_free_canonical_psnr"] == 100
    assert list(tokens["photos_canonical_psnr_by_class"]) == ["cat", "fruit"]
    protocol = warping.protocol
    assert (protocol["scenes"], protocol["photos"]) == (3, 5)
    assert protocol["views"] == {"novel": 6, "far": 3}
    assert protocol["files"][1]["name"] == "photos-val.tar"
    assert len(protocol["files"][1]["sha256"]) == 64
    json.dumps(warping.json(per_item=True), allow_nan=False)  # plain types only


def test_per_scene_values_average_to_the_figures(warping):
    items, tokens = warping.items, warping.figures["tokens"]
    values = [value for item in items for value in item.figures["tokens"]["novel_psnr"]]
    assert tokens["novel_psnr"] == pytest.approx(sum(values) / len(values))
    worst = min(item.figures["tokens"]["disparity_correlation"] for item in items)
    assert tokens["disparity_correlation_worst"] == worst


def test_another_resolution_keeps_the_models_own_input(scenes, scenes_folder):
    oracle = Oracle(scenes, resolution=16)
    result = evaluate_reconstructor(oracle, [scenes_folder], resolution=24, limit=2)
    assert result.protocol["resolution"] == 24
    assert result.protocol["model"]["resolution"] == 16
    assert result.protocol["scenes"] == 2
    assert oracle.asked == {"tokens": 2}
    with pytest.raises(UserError, match="at most 48"):
        evaluate_reconstructor(oracle, [scenes_folder], resolution=64)


def test_progress_counts_scenes_and_photos(scenes, scenes_folder, photos_tar):
    told = []
    evaluate_reconstructor(
        Oracle(scenes),
        [scenes_folder],
        photos=photos_tar,
        limit=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(2, 4), (4, 4)]


def test_an_anti_correlated_depth_is_held_and_counted(scenes, scenes_folder):
    oracle = Oracle(scenes, sign=-1)
    result = evaluate_reconstructor(oracle, [scenes_folder], limit=1)
    assert result.protocol["alignments_raised"] == {"tokens": 1}
    assert result.figures["tokens"]["disparity_correlation"] == pytest.approx(-1, abs=1e-4)
    assert result.figures["tokens"]["novel_psnr"] < 100


def test_alignment_and_back(scenes):
    true = scenes[0].inverse_depth[0]
    alignment, raised = align(0.4 * true + 0.2, true, focal=1.1)
    assert not raised
    assert alignment == pytest.approx((0.4, 0.2, 1.1), rel=1e-5)
    torch.testing.assert_close(
        true_disparity(0.4 * true + 0.2, alignment), true, atol=1e-5, rtol=1e-5
    )
    alignment, raised = align(torch.full_like(true, 0.3), true, focal=1.1)
    assert raised
    assert alignment.scale > 0


def test_a_damaged_scene_is_left_out_and_named(scenes_folder, tmp_path):
    folder = tmp_path / "posed"
    shutil.copytree(scenes_folder, folder)
    (folder / "0001" / "rgb_2.webp").write_bytes(b"no picture")
    scenes = list(PosedScenes(folder))
    result = evaluate_reconstructor(Oracle(scenes), [folder])
    assert result.protocol["scenes"] == 2
    assert len(result.rejected) == 1
    assert "0001" in result.rejected[0].name
    for name in ("0000", "0002"):
        (folder / name / "meta.json").write_text("{}")
    with pytest.raises(UserError, match="none of its scenes"):
        evaluate_reconstructor(Oracle(scenes), [folder])


def test_no_data_is_a_persons_mistake(scenes):
    with pytest.raises(UserError, match="--data"):
        evaluate_reconstructor(Oracle(scenes), [])


@pytest.mark.slow
def test_the_baselines_of_the_validation_scenes(data_folder):
    """Known figures of the set at 64 px; about a minute for 1200 views and five warps of each."""
    file = data_folder / "scenes-val.tar"
    if not file.is_file():
        pytest.skip("needs scenes-val.tar in UNFLAT_DATA")
    scenes = list(PosedScenes(file))
    result = evaluate_reconstructor(Oracle(scenes, resolution=64), [file])
    figures = result.figures
    assert figures["copy"]["novel_psnr"] == pytest.approx(17.56, abs=0.01)
    assert figures["copy"]["far_psnr"] == pytest.approx(14.20, abs=0.01)
    assert figures["mean-color"]["canonical_psnr"] == pytest.approx(14.44, abs=0.01)
    assert figures["true_depth_warp_input"]["novel_psnr"] == pytest.approx(23.10, abs=0.03)
    assert figures["true_depth_warp_input"]["far_psnr"] == pytest.approx(17.97, abs=0.03)
    sharp = figures["true_depth_warp_input_supersampled"]
    assert sharp["novel_psnr"] == pytest.approx(23.80, abs=0.03)
    assert sharp["far_psnr"] == pytest.approx(18.34, abs=0.03)
    assert result.protocol["views"] == {"novel": 900, "far": 300}
    assert figures["tokens"]["true_non_flatness"] == pytest.approx(40, abs=2)
    assert figures["tokens"]["novel_psnr"] == pytest.approx(
        figures["true_depth_warp_input"]["novel_psnr"], abs=0.02
    )


def test_baselines_as_models_reach_what_they_reach_beside_one(warping, scenes_folder):
    for name in ("copy", "mean-color"):
        made = evaluate_reconstructor(Baseline(name, resolution=48), [scenes_folder])
        assert made.figures[name]["novel_psnr"] == warping.figures[name]["novel_psnr"]
        assert "disparity_correlation" not in made.figures[name]
    depth = ModelDepth(Oracle(list(PosedScenes(scenes_folder))))
    baseline = Baseline("depth-warp", resolution=48, depth=depth)
    made = evaluate_reconstructor(baseline, [scenes_folder])
    expected = warping.figures["warp_input"]["far_psnr"]
    assert made.figures["depth-warp"]["far_psnr"] == pytest.approx(expected, abs=1e-3)
    assert "warp_input" not in made.figures


def test_disparity_files_of_any_program_serve_the_warp(scenes, scenes_folder, tmp_path):
    """Read from files in their own scale, the true disparity reaches the true depth's figures."""
    for scene in scenes:
        values = scene.inverse_depth[0].numpy()
        np.savez(tmp_path / f"{scene.name}.npz", disparity=3 * values + 0.5)
    baseline = Baseline("depth-warp", resolution=48, depth=FolderDepth(tmp_path))
    figures = evaluate_reconstructor(baseline, [scenes_folder]).figures
    expected = figures["true_depth_warp_input"]["novel_psnr"]
    assert figures["depth-warp"]["novel_psnr"] == pytest.approx(expected, abs=0.02)
    (tmp_path / f"{scenes[0].name}.npz").unlink()
    with pytest.raises(UserError, match=f"no disparity for {scenes[0].name}; add"):
        evaluate_reconstructor(baseline, [scenes_folder])


def test_the_table_and_the_page_show_the_figures(warping, tmp_path):
    lines = warping.lines()
    row = next(line for line in lines if line.startswith("detail"))
    assert f"{warping.figures['detail']['novel_psnr']:.2f}" in row
    assert any(line.startswith("tokens") and "50.0%" in line for line in lines)
    write_page(tmp_path / "page.html", warping, ["3 scenes in 1 s"])
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img alt=") == 3 * 3
    assert "3 scenes in 1 s" in page
    assert all(item.name in page for item in warping.items)
    sheet = warping.sheet(0)
    assert sheet.shape == (3, 2 * 48, 4 * 48)
    # photo and reconstruction of this oracle are one picture; its views are near the true ones
    torch.testing.assert_close(sheet[:, :48, :48], sheet[:, :48, 48:96])
    assert psnr(sheet[None, :, 48:, :48], sheet[None, :, 48:, 48:96]).item() > 15


def test_two_runs_give_the_same_report(scenes, scenes_folder):
    reports = [
        json.dumps(evaluate_reconstructor(Oracle(scenes), [scenes_folder], seed=3).json(True))
        for _ in range(2)
    ]
    assert reports[0] == reports[1]
