"""From a file that others have published to a generator that makes objects."""

from pathlib import Path

from unflat.errors import UserError
from unflat.hub.generator_files import EG3D, NERF_FROM_IMAGE, read_generator_file
from unflat.systems.gan.generator import Generator
from unflat.systems.gan.published import eg3d
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


def open_eg3d(
    path: str | Path, data: str | None = None, third_plane: eg3d.ThirdPlane = "zx"
) -> Generator:
    """The generator in a converted file of EG3D.

    Args:
        path: of the file.
        data: name of the data set ("ffhq", "afhq", "shapenet"), where the file does not tell what
            rays do.
        third_plane: where the third plane is looked up; "zx" for all that EG3D's authors published.

    Raises:
        UserError: the file cannot be read, holds something else, or does not tell what rays do.
    """
    file = read_generator_file(path)
    if file.system != EG3D:
        raise UserError(f"{path}: holds {file.system}, no EG3D; give EG3D's weights as .pth.")
    known = ", ".join(eg3d.SCENES)
    if data is not None and data not in eg3d.SCENES:
        raise UserError(f"{data}: is no data set of EG3D's; give one of {known}.")
    if data is not None:
        scene = eg3d.SCENES[data]
    else:
        try:
            scene = eg3d.scene_of(file.config.get("rendering_kwargs", {}))
        except KeyError as error:
            raise UserError(
                f"{path}: does not tell {error.args[0]}, on which rays depend; convert it as "
                f"docs/formats.md shows, or name the data set: {known}."
            ) from error
    config, weights = eg3d.generator_from_published(
        file.state, file.config, scene, third_plane, str(path)
    )
    return eg3d.build(config, weights, str(path))
