"""From a file that others have published to a generator that makes objects."""

from pathlib import Path

from unflat.errors import UserError
from unflat.hub.generator_files import NERF_FROM_IMAGE, read_generator_file
from unflat.systems.gan.generator import Generator
from unflat.systems.gan.published.nerf_from_image import (
    build,
    data_set_of,
    generator_from_published,
)


def open_nerf_from_image(path: str | Path, data: str | None = None) -> Generator:
    """The generator in a checkpoint of nerf-from-image.

    Args:
        path: of the file, in a folder named as published (``g_p3d_car_pretrained``).
        data: name of the data set, where the folder has another name.

    Raises:
        UserError: the file cannot be read, holds something else, or its data set is not told.
    """
    file = read_generator_file(path)
    if file.system != NERF_FROM_IMAGE:
        raise UserError(
            f"{path}: holds {file.system}, no generator of nerf-from-image; give its "
            "checkpoint_latest.pth."
        )
    config, weights = generator_from_published(file.state, data_set_of(path, data), str(path))
    return build(config, weights, str(path))
