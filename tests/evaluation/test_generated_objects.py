import pytest
import torch
from made_solids import Balls, cameras, posed_views

from unflat.data.procedural_objects import write_procedural_objects
from unflat.errors import UserError
from unflat.evaluation import FieldMaker, ObjectMaker
from unflat.evaluation.generated_objects import GeneratedObjects
from unflat.evaluation.load_objects import TRUE_OBJECTS, load_objects, true_objects
from unflat.evaluation.object_surface import surface_figures
from unflat.evaluation.view_maker import as_batch
from unflat.fields.field import Bounded, Distanced
from unflat.geometry import Camera
from unflat.systems.gan.pipeline import ObjectModel, header_of, weights_of
from unflat.systems.gan.recipe import GanRecipe
from unflat.systems.gan.registry import SYSTEMS, build, module_of
from unflat.training import save_model


def model_of(system):
    torch.manual_seed(0)
    config = module_of(system).PRESETS["tiny"]()
    return ObjectModel(
        build(system, config).generator, system=system, config=config, camera=cameras(4), header={}
    )


@pytest.fixture(scope="module", params=list(SYSTEMS))
def maker(request):
    return GeneratedObjects(model_of(request.param), "made", facts={"bytes": 7}, seed=3)


def batch(numbers, views):
    one = cameras(views)
    return Camera(
        camera_to_world=one.camera_to_world.expand(numbers, -1, -1, -1),
        intrinsics=one.intrinsics.expand(numbers, -1, -1),
    )


def test_objects_do_not_depend_on_their_company(maker, monkeypatch):
    """All at once, one by one, view by view, and in pieces: the same pictures."""
    assert isinstance(maker, ObjectMaker)
    assert isinstance(maker, FieldMaker)
    side = maker.model.resolution
    whole = maker.make([4, 9], batch(2, 2), side)
    assert whole.images.shape == (2, 2, 3, side, side)
    assert whole.depth.shape == whole.opacity.shape == (2, 2, side, side)
    assert 0 <= whole.images.min() <= whole.images.max() <= 1
    assert not whole.opacity[0].equal(whole.opacity[1])
    single = maker.make([9], batch(2, 2)[1:, 1:], side)
    for name in ("images", "opacity", "depth"):
        torch.testing.assert_close(
            getattr(single, name)[0, 0], getattr(whole, name)[1, 1], atol=2e-3, rtol=1e-3
        )
    monkeypatch.setattr("unflat.evaluation.generated_objects._RAYS", 1)
    pieces = maker.make([4, 9], batch(2, 2), side)
    torch.testing.assert_close(pieces.images, whole.images, atol=2e-3, rtol=1e-3)


def test_what_a_report_keeps(maker):
    facts = maker.describe()
    assert facts["system"] == maker.model.system
    assert (facts["truncation"], facts["seed"], facts["bytes"]) == (1.0, 3, 7)


def test_fields_are_those_of_the_pictures(maker):
    """Colored fields in a box, of one object; with a distance where the system learns one."""
    field = maker.field(4)
    assert isinstance(field, Bounded)
    points = torch.rand(1, 50, 3) - 0.5
    seen = field(points)
    assert seen.features.shape == (1, 50, 3)
    assert isinstance(field, Distanced) == (maker.model.system in ("sdf_triplane", "siren_sdf"))
    figures = surface_figures(maker, [0], resolution=12)
    assert "with_surface" in figures


def test_numbers_and_seed_name_the_objects():
    model = model_of("sdf_triplane")
    one, other = (GeneratedObjects(model, "made", seed=seed) for seed in (0, 1))
    camera = as_batch(cameras(1))
    again = one.make([5], camera, 16).images
    torch.testing.assert_close(again, one.make([5], camera, 16).images)
    assert not again.allclose(other.make([5], camera, 16).images)
    mean = [
        GeneratedObjects(model, "made", truncation=0.0).make([n], camera, 16).images for n in (5, 6)
    ]
    torch.testing.assert_close(*mean)


def test_fewer_rays_than_pixels_are_repeated():
    maker = GeneratedObjects(model_of("eg3d"), "made")
    scale, side = maker.model.generator.scale, maker.model.resolution
    assert scale > 1
    made = maker.make([0], as_batch(cameras(1)), side)
    blocks = made.opacity[0, 0].unflatten(0, (-1, scale)).unflatten(2, (-1, scale))
    assert blocks.eq(blocks[:, :1, :, :1]).all()
    assert posed_views(Balls(1), 1, side).resolution == made.images.shape[-1]


@pytest.mark.parametrize("system", list(SYSTEMS))
def test_a_model_file_is_evaluated(system, tmp_path):
    """Written as a run writes it, read by path and by folder; the file is named in the report."""
    config = module_of(system).PRESETS["tiny"]()
    torch.manual_seed(0)
    recipe = GanRecipe(system, config, build(system, config), objects=2)
    weights = weights_of(recipe.networks.state_dict())
    (tmp_path / "cars").mkdir()
    header = header_of(recipe, cameras(4))
    save_model(tmp_path / "cars/model.safetensors", weights, header, dtype="float32")
    maker = load_objects(tmp_path / "cars", seed=3)
    assert maker.name == "cars"
    assert maker.describe()["bytes"] == (tmp_path / "cars/model.safetensors").stat().st_size
    side = maker.model.resolution
    direct = GeneratedObjects(model_of(system), "made", seed=3)
    camera = as_batch(cameras(1))
    torch.testing.assert_close(
        maker.make([1], camera, side).images, direct.make([1], camera, side).images
    )


def test_only_made_up_sets_have_true_objects(tmp_path):
    write_procedural_objects(tmp_path / "carts", count=1, resolution=4, views=1)
    for path in (tmp_path / "carts", tmp_path / "carts/objects.tar"):
        assert true_objects(path).count == TRUE_OBJECTS
        assert true_objects(path, 3).count == 3
        assert true_objects(path, 0) is None
    (tmp_path / "other").mkdir()
    (tmp_path / "other/depth.json").write_text('{"unit": 0.001}')
    assert true_objects(tmp_path / "other") is None
    with pytest.raises(UserError, match=r"^--true-objects 3: nobody knows those of .*other; "):
        true_objects(tmp_path / "other", 3)
