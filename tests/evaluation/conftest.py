import io
import tarfile

import pytest
import torch
from analytic_scene import AnalyticScene, as_tar, write_scenes
from PIL import Image


@pytest.fixture(scope="session")
def analytic_scenes():
    """Three scenes of different colours and fields of view."""
    return [AnalyticScene(phase, fov) for phase, fov in ((0.0, 50), (1.5, 40), (3.0, 60))]


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory, analytic_scenes):
    """Their files, 48 pixels."""
    return write_scenes(tmp_path_factory.mktemp("posed") / "scenes", analytic_scenes, 48)


@pytest.fixture(scope="session")
def scenes_tar(scenes_folder):
    """The same in one tar."""
    return as_tar(scenes_folder)


@pytest.fixture(scope="session")
def photos_tar(tmp_path_factory):
    """Five pictures without cameras, of the classes cat and fruit in turn."""
    path = tmp_path_factory.mktemp("photos") / "photos-val.tar"
    generator = torch.Generator().manual_seed(0)
    with tarfile.open(path, "w") as archive:
        for number in range(5):
            pixels = torch.randint(0, 256, (48, 48, 3), generator=generator, dtype=torch.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels.numpy()).save(file, "PNG")
            for ending, content in (
                ("cls", ["cat", "fruit"][number % 2].encode()),
                ("png", file.getvalue()),
            ):
                info = tarfile.TarInfo(f"{number:06d}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path
