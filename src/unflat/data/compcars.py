"""CompCars (Yang et al. 2015): web photographs of cars, each with a box around the car.

::

    CompCars/data/image/78/1/2014/3ac218.jpg     make, model, year
    CompCars/data/label/78/1/2014/3ac218.txt     viewpoint; how many boxes; x1 y1 x2 y2, from 1
    CompCars/data/misc/make_model_name.mat       names of makes and models, optional

Either of the two upper folders is the data set. Pictures are cut to the smallest square around the
box; a car is wider than high, so the square holds some of what is above and below it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from unflat.data.folder import disparity_beside, read_file
from unflat.data.pictures import DECODE_ERRORS, PICTURE_SUFFIXES
from unflat.data.sample import Reject, Sample
from unflat.errors import UserError

_BOX_LINE = 2  # below the viewpoint and the number of boxes
_NAMES = "make_model_name.mat"


def is_compcars(path: Path) -> bool:
    """Whether a folder is laid out as CompCars: four levels of pictures beside their labels."""
    root = _root(path)
    return root is not None and next(root.glob("label/*/*/*/*.txt"), None) is not None


class CompCarsSource:
    """Pictures of CompCars in the order of their paths, each with its box.

    A picture without a label, or with one that cannot be read, is left out and listed.

    Args:
        path: the folder that holds ``image/`` and ``label/``, or the one above it.
        by: what a class is: the make (``BMW``), or the make and the model (``BMW/BMW X5``).

    Raises:
        UserError: the folder has another layout, or holds no picture; the list of names is
            damaged.
    """

    def __init__(self, path: str | Path, by: Literal["make", "model"] = "make") -> None:
        root = _root(Path(path))
        if root is None:
            raise UserError(f"{path}: has no folders image and label as CompCars has them.")
        self.root, self.by, self.prefix = root, by, "compcars"
        self.rejects: list[Reject] = []
        self.files: list[Path] = []
        self._boxes: list[tuple[int, int, int, int]] = []
        found = (root / "image").glob("*/*/*/*")
        for file in sorted(f for f in found if f.suffix.lower() in PICTURE_SUFFIXES):
            if file.name.lower().endswith(".disparity.png"):
                continue
            label = root / "label" / file.relative_to(root / "image").with_suffix(".txt")
            try:
                self._boxes.append(read_box(label))
                self.files.append(file)
            except UserError as error:
                self.rejects.append(Reject(name=str(file), reason=str(error).rstrip(".")))
        if not self.files:
            raise UserError(f"{path}: holds no picture of a car with a label.")
        self._makes, self._models = _names(root)

    def __len__(self) -> int:
        """How many pictures have a box."""
        return len(self.files)

    def read(self, index: int) -> Sample:
        """The files of one picture, its box and its class."""
        file = self.files[index]
        make, model = file.relative_to(self.root / "image").parts[:2]
        named = self._makes.get(make, make)
        if self.by == "model":
            named = f"{named}/{self._models.get(model, model)}"
        return Sample(
            name=str(file),
            image=read_file(file),
            disparity=disparity_beside(file),
            class_name=named,
            box=self._boxes[index],
        )


def read_box(label: Path) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the car; right and bottom are beyond its last pixel.

    Args:
        label: a file whose third line is ``x1 y1 x2 y2``, counted from 1, the last included.

    Raises:
        UserError: no such file, or no box in it.
    """
    try:
        lines = label.read_text(encoding="utf-8", errors="replace").splitlines()
        left, top, right, bottom = (int(float(text)) for text in lines[_BOX_LINE].split())
    except FileNotFoundError as error:
        raise UserError(f"{label}: there is no such label.") from error
    except (OSError, IndexError, ValueError) as error:
        raise UserError(f"{label}: holds no box in its third line.") from error
    if left < 1 or top < 1 or right <= left or bottom <= top:
        raise UserError(f"{label}: its box {left} {top} {right} {bottom} is empty or outside.")
    return left - 1, top - 1, right, bottom


def _root(path: Path) -> Path | None:
    """The folder that holds image/ and label/."""
    for folder in (path, path / "data"):
        if (folder / "image").is_dir() and (folder / "label").is_dir():
            return folder
    return None


def _names(root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Makes and models by folder, as far as the list names them."""
    places = (root / "misc" / _NAMES, root.parent / "misc" / _NAMES)
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        return {}, {}
    from scipy.io import loadmat  # comes with scikit-image
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(file, simplify_cells=True)
        return _by_place(content["make_names"]), _by_place(content["model_names"])
    except (*DECODE_ERRORS, MatReadError) as error:
        raise UserError(
            f"{file}: the list of makes and models cannot be read; mend it, or take it away."
        ) from error


def _by_place(names: Iterable[Any]) -> dict[str, str]:
    """Folders are named by places in the list, from 1; some places are empty."""
    texts = (str(name).strip() if isinstance(name, str) else "" for name in names)
    return {str(place): text for place, text in enumerate(texts, start=1) if text}
