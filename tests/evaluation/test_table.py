from oracles import Oracle

from unflat.data.posed import PosedScenes
from unflat.evaluation import evaluate_reconstructor, table_lines


def test_the_table_shows_figures_in_columns(scenes_folder, photos_tar):
    oracle = Oracle(list(PosedScenes(scenes_folder)), modes=("tokens", "detail"))
    result = evaluate_reconstructor(oracle, [scenes_folder], photos=photos_tar)
    lines = table_lines(result)
    assert lines[0] == "oracle: 3 scenes at 48 px, 6 novel and 3 far views, 5 photos"
    row = next(line for line in lines if line.startswith("novel views within 20 deg"))
    figures = result["figures"]
    assert row.split()[-2:] == [f"{figures[m]['novel_psnr']:.2f}" for m in ("tokens", "detail")]
    usage = next(line for line in lines if line.startswith("codes used"))
    assert usage.split()[-1] == "50.0%"
    assert any(line.startswith("the input unchanged") for line in lines)
    assert len({len(line) for line in lines[2:] if "warped by" in line}) == 1
    without = table_lines(evaluate_reconstructor(Oracle(oracle.scenes), [scenes_folder]))
    assert not any("photos of the free" in line for line in without)
