import json
import tarfile

import pytest
from made_pictures import add_member, disparity_of, picture_of, png


@pytest.fixture(scope="session")
def scenes_tar(tmp_path_factory):
    """Seven pictures with disparity, three classes by number."""
    path = tmp_path_factory.mktemp("scenes") / "scenes-train.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(7):
            add_member(archive, f"{number:06d}.png", png(picture_of(number)))
            add_member(archive, f"{number:06d}.disparity.png", png(disparity_of(number)))
            add_member(archive, f"{number:06d}.cls", str(number % 3).encode())
    names = {"classes": ["car", "tree", "boat"]}
    path.with_name("scenes-train-ranges.json").write_text(json.dumps(names))
    return path


@pytest.fixture(scope="session")
def photos_tar(tmp_path_factory):
    """Five pictures without disparity, classes by name; car is a class of the scenes too."""
    path = tmp_path_factory.mktemp("photos") / "photos-train.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(5):
            add_member(archive, f"{number:06d}.cls", ["car", "cat"][number % 2].encode())
            add_member(archive, f"{number:06d}.png", png(picture_of(100 + number)))
    return path
