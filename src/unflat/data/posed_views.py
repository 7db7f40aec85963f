"""Pictures with their cameras, and the training batches made of them.

::

    views = open_views("cars-srn.tar", 64)          # any layout of `unflat.data.view_layouts`
    source = PosedBatches(views, batch_size=32)
    batch = source.batch(step)                      # image, camera_to_world, fake_camera_to_world

A view takes 4 bytes a pixel (3 of the picture, 1 of the mask): 16 kB at 64 pixels, so 100,000 views
1.6 GB. Large sets lie in a file, see `unflat.data.view_store`.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64, UInt8
from torch import Tensor

from unflat.data.dataset import decode, open_source
from unflat.data.posed_objects import PosedObjects
from unflat.data.sample import Reject, reason_of
from unflat.data.view_plan import ItemViews, ViewPlan, read_item
from unflat.data.view_store import IN_MEMORY, ViewStore, find_stored, slot_of
from unflat.errors import UserError
from unflat.geometry import Camera, mirrored_camera

Progress = Callable[[int, int], None]
"""Told (done, all)."""

_ORDER_STREAM, _CHANGE_STREAM = 1, 2  # keeps shuffling and the other draws independent
_ORTHOGRAPHIC = "is_orthographic"  # in a batch whose cameras are


class PosedViews:
    """All pictures of a data set, at one resolution; made of posed objects, `read` or given.

    Args:
        path: a tar or folder that `PosedObjects` reads.
        split: as in `PosedObjects.splits`; all objects if not given.
        resolution: side in pixels.
        limit: keep only the first so many objects.
        progress: told after each object.

    Raises:
        UserError: no such file, no objects in it, no such split, or no object can be read.
    """

    name: str
    """The data set, for messages."""
    images: UInt8[Tensor, "n 3 side side"]
    """Pictures over white, in 255ths."""
    masks: UInt8[Tensor, "n side side"] | None
    """Share of each pixel that the object covers, in 255ths; None where the files do not tell."""
    camera: Camera | None
    """One camera for each picture; None where the files hold none."""
    objects: Int64[Tensor, " n"]
    """Which of `names` each picture shows."""
    names: list[str]
    """Of the objects; where nobody knows which pictures show the same one, of the pictures."""
    rejects: list[Reject]
    """What was left out, and why."""

    notes: list[str]
    """What is worth telling of how they are kept."""
    folder: Path | None
    """Where the pictures are mapped from; None if they are in memory."""

    def __init__(
        self,
        path: str | Path,
        split: str | None = None,
        *,
        resolution: int,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        plan = ObjectPlan(path, split, resolution=resolution, limit=limit)
        vars(self).update(vars(PosedViews.read(plan, resolution, progress=progress)))

    @classmethod
    def read(
        cls,
        plan: ViewPlan,
        resolution: int,
        *,
        progress: Progress | None = None,
        in_memory: int = IN_MEMORY,
    ) -> "PosedViews":
        """The pictures of a plan; what cannot be used is left out and listed.

        Args:
            plan: of any layout.
            resolution: side in pixels.
            progress: told after each item.
            in_memory: bytes of pictures and masks up to which they are kept in memory, and not in
                a file of the user's cache folder.

        Raises:
            UserError: nothing of it can be used.
        """
        slot = slot_of(plan.path, [plan.layout, plan.part, resolution], plan.files())
        stored = find_stored(slot)
        if stored is None:
            with ViewStore(slot, resolution, in_memory) as store:
                stored = store.finish(*_gathered(plan, resolution, store, progress))
        elif progress is not None:
            progress(len(plan), len(plan))
        about, tables, views = stored.about, stored.tables, cls.__new__(cls)
        views._keep(
            str(plan.path),
            stored.images,
            stored.masks,
            batch_camera(tables) if "intrinsics" in tables else None,
            tables["objects"],
            about["names"],
            [Reject(name=name, reason=reason) for name, reason in about["rejects"]],
        )
        views.notes, views.folder = stored.notes, stored.folder
        return views

    @classmethod
    def of(
        cls,
        images: UInt8[Tensor, "n 3 side side"],
        *,
        name: str,
        masks: UInt8[Tensor, "n side side"] | None = None,
        camera: Camera | None = None,
        objects: Int64[Tensor, " n"] | None = None,
        names: Sequence[str] | None = None,
        rejects: Sequence[Reject] = (),
    ) -> "PosedViews":
        """Views that are in memory already.

        Args:
            images: over white, in 255ths.
            name: of the data set, for messages.
            masks: in 255ths.
            camera: one for each picture.
            objects: which of `names` each picture shows; each its own if not given.
            names: of the objects; their numbers if not given.
            rejects: what was left out.

        Raises:
            ValueError: the counts differ.
        """
        if objects is None:
            objects = torch.arange(len(images))
        if names is None:
            names = [str(number) for number in range(int(objects.max()) + 1)]
        counts = [len(images), len(objects)]
        counts += [] if masks is None else [len(masks)]
        counts += [] if camera is None else [len(camera.camera_to_world)]
        if len(set(counts)) > 1 or not 0 <= int(objects.min()) <= int(objects.max()) < len(names):
            raise ValueError(f"{counts} pictures, objects, masks and cameras; {len(names)} names")
        views = cls.__new__(cls)
        views._keep(name, images, masks, camera, objects, list(names), list(rejects))
        return views

    def _keep(
        self,
        name: str,
        images: Tensor,
        masks: Tensor | None,
        camera: Camera | None,
        objects: Tensor,
        names: list[str],
        rejects: list[Reject],
    ) -> None:
        self.name, self.images, self.masks, self.camera = name, images, masks, camera
        self.objects, self.names, self.rejects = objects, names, rejects
        self.notes, self.folder = [], None

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.images)

    @property
    def resolution(self) -> int:
        """Side of the pictures in pixels."""
        return self.images.shape[-1]

    @property
    def has_cameras(self) -> bool:
        """Whether the cameras are known."""
        return self.camera is not None

    @property
    def has_masks(self) -> bool:
        """Whether the objects' silhouettes are known."""
        return self.masks is not None

    @property
    def counts(self) -> dict[str, int]:
        """``pictures, objects, rejected``."""
        return {
            "pictures": len(self),
            "objects": len(self.names),
            "rejected": len(self.rejects),
        }

    @property
    def summary(self) -> str:
        """What there is, in a few words."""
        return ", ".join(f"{count} {kind}" for kind, count in self.counts.items())


class PosedBatches:
    """Training batches as a pure function of seed and step; shuffled anew in every epoch.

    Beside each picture's own camera stands one for a generated picture: that of any picture of the
    set, drawn independently of the real one, as EG3D's training code does (arXiv 2112.07945).

    Args:
        views: pictures; batches of views without cameras hold nothing but ``image``.
        batch_size: over all processes.
        seed: of order, mirroring and the cameras of generated pictures.
        rank: which part of a batch this process takes.
        world_size: how many processes share a batch.
        mirror: mirror half of the pictures left to right with their cameras, and half of the
            cameras of generated pictures: the world's x changes its sign. Only for categories
            whose mirror images belong to them.
        together: how many pictures in a row show the same object; of an object whose pictures
            cannot be shared by that number, some are left out of each epoch.

    Raises:
        ValueError: the processes can not share a batch equally, or no object has so many pictures.
    """

    def __init__(
        self,
        views: PosedViews,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        *,
        mirror: bool = False,
        together: int = 1,
    ) -> None:
        share = world_size * together
        if batch_size < 1 or batch_size % share or not 0 <= rank < world_size:
            raise ValueError(f"{batch_size} pictures cannot be shared by {share}")
        counts = torch.bincount(views.objects) // together * together
        if not int(counts.sum()):
            raise ValueError(f"no object of {views.name} has {together} pictures")
        self.together, self.epoch_size = together, int(counts.sum())
        self.views, self.batch_size, self.seed = views, batch_size, seed
        self.rank, self.world_size, self.mirror = rank, world_size, mirror
        self._orders: dict[int, np.ndarray] = {}

    def batch(self, step: int) -> dict[str, Tensor]:
        """This process's part of the batch of a step.

        ``image`` "batch 3 side side" in [0, 1]; with cameras also ``camera_to_world`` "batch 4 4",
        ``intrinsics`` "batch 4", ``fake_camera_to_world``, ``fake_intrinsics``, ``object`` "batch";
        with masks ``mask`` "batch 1 side side" in [0, 1]. `batch_camera` makes cameras of them.
        """
        views, chosen = self.views, torch.from_numpy(self.indices(step))
        fake, flips, fake_flips = self._draws(step)
        batch = {"image": _unit(views.images[chosen], flips)}
        if views.masks is not None:
            batch["mask"] = _unit(views.masks[chosen][:, None], flips)
        if views.camera is not None:
            batch |= camera_keys("", _some_mirrored(views.camera[chosen], flips))
            batch |= camera_keys("fake_", _some_mirrored(views.camera[fake], fake_flips))
            batch["object"] = views.objects[chosen]
        return batch

    def indices(self, step: int) -> Int[np.ndarray, " share"]:
        """Which pictures this process's part of the batch of a step holds."""
        share = self.batch_size // self.world_size
        start = step * self.batch_size + self.rank * share
        epochs, places = np.divmod(np.arange(start, start + share), self.epoch_size)
        pairs = zip(epochs.tolist(), places.tolist(), strict=True)
        return np.asarray([self._order(epoch)[place] for epoch, place in pairs])

    def epoch(self, step: int) -> float:
        """How often all pictures have been gone through before this step."""
        return step * self.batch_size / self.epoch_size

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            generator = np.random.default_rng([self.seed, _ORDER_STREAM, epoch])
            order = generator.permutation(len(self.views))
            self._orders[epoch] = order if self.together == 1 else self._bundled(order, generator)
            for old in [number for number in self._orders if number < epoch - 1]:
                del self._orders[old]
        return self._orders[epoch]

    def _bundled(self, order: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The order with pictures of one object side by side, and bundles shuffled."""
        objects = self.views.objects.numpy()[order]
        bundles = []
        for number in range(len(self.views.names)):
            own = order[objects == number]
            count = len(own) // self.together
            bundles.append(own[: count * self.together].reshape(count, self.together))
        return generator.permutation(np.concatenate(bundles)).reshape(-1)

    def _draws(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures whose cameras the generated ones get; which real, which of these to mirror."""
        # Drawn for the whole batch, so that the number of processes changes nothing.
        generator = np.random.default_rng([self.seed, _CHANGE_STREAM, step])
        fake = generator.integers(len(self.views), size=self.batch_size)
        flips = generator.random((2, self.batch_size)) < (0.5 if self.mirror else 0.0)
        share = self.batch_size // self.world_size
        part = slice(self.rank * share, (self.rank + 1) * share)
        mirrored = torch.from_numpy(flips[:, part])
        return torch.from_numpy(fake[part]), mirrored[0], mirrored[1]


class ObjectPlan:
    """Posed objects as items: the plan of `PosedObjects`, whose arguments it takes."""

    items = "objects"

    def __init__(
        self,
        path: str | Path,
        split: str | None = None,
        *,
        resolution: int | None = None,
        limit: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.objects = PosedObjects(path, split, resolution=resolution, limit=limit)
        self.layout, self.rejects = self.objects.layout, list(self.objects.rejects)
        self.part = f"{split} {limit}"
        names = self.objects.names
        alike = len(set(names)) < len(names)
        self._names = [self.objects.folder(i) if alike else name for i, name in enumerate(names)]

    def __len__(self) -> int:
        """How many objects."""
        return len(self.objects)

    def label(self, index: int) -> str:
        """See `ViewPlan`."""
        return self.objects.label(index)

    def name_of(self, index: int) -> str:
        """See `ViewPlan`; with its folder where two splits have an object of the same name."""
        return self._names[index]

    def read(self, index: int, resolution: int) -> ItemViews:
        """See `ViewPlan`."""
        item = self.objects[index]
        masks = None if item.masks is None else _bytes(item.masks)
        return ItemViews(images=_bytes(item.images), masks=masks, camera=item.camera)

    def files(self) -> Iterator[Path]:
        """See `ViewPlan`."""
        yield from sorted(self.path.rglob("*")) if self.path.is_dir() else (self.path,)


class PicturePlan:
    """Pictures without cameras: of a folder or a tar, as `unflat.data.dataset` reads them.

    Args:
        path: as `open_source` takes.
        limit: keep only the first so many.

    Raises:
        UserError: no data set.
    """

    layout, items = "pictures", "pictures"

    def __init__(self, path: str | Path, limit: int | None = None) -> None:
        self.path, self.part = Path(path), f"{limit}"
        self.source = open_source(path)
        self.rejects = list(self.source.rejects)
        self.count = min(len(self.source), limit or len(self.source))
        self._names: dict[int, str] = {}

    def __len__(self) -> int:
        """How many pictures."""
        return self.count

    def label(self, index: int) -> str:
        """See `ViewPlan`; its number until it is read."""
        return self._names.get(index, f"{self.source.prefix}:{index}")

    def name_of(self, index: int) -> str:
        """See `ViewPlan`: each is its own."""
        return self.label(index)

    def read(self, index: int, resolution: int) -> ItemViews:
        """See `ViewPlan`."""
        sample = self.source.read(index)
        self._names[index] = sample.name
        image = torch.from_numpy(decode(sample, resolution).image.copy())[None]
        return ItemViews(images=image, masks=None, camera=None)

    def files(self) -> Iterator[Path]:
        """See `ViewPlan`."""
        yield from sorted(self.path.rglob("*")) if self.path.is_dir() else (self.path,)


def _gathered(
    plan: ViewPlan, resolution: int, store: ViewStore, progress: Progress | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Brings all pictures into the store; what goes beside them."""
    rejects, cameras = list(plan.rejects), []
    numbers: dict[str, int] = {}
    objects: list[int] = []
    for index in range(len(plan)):
        try:
            item = read_item(plan, index, resolution)
            _require_same_kind(cameras, item.camera)
        except UserError as error:
            label = plan.label(index)
            rejects.append(Reject(name=label, reason=reason_of(str(error), label)))
        else:
            store.add(item.images, item.masks)
            cameras.append(item.camera)
            number = numbers.setdefault(plan.name_of(index), len(numbers))
            objects += [number] * len(item.images)
        if progress is not None:
            progress(index + 1, len(plan))
    if not objects:
        raise UserError(nothing_left(plan.path, plan.items, rejects))
    about = {
        "names": list(numbers),
        "rejects": [(reject.name, reject.reason) for reject in rejects],
    }
    known = [camera for camera in cameras if camera is not None]
    tables = {"objects": torch.tensor(objects)}
    if known:
        joined = Camera(
            camera_to_world=torch.cat([camera.camera_to_world for camera in known]),
            intrinsics=torch.cat([camera.intrinsics for camera in known]),
            kind=known[0].kind,
        )
        tables |= camera_keys("", joined)
    return about, tables


def _require_same_kind(cameras: Sequence[Camera | None], camera: Camera | None) -> None:
    """Refuses pictures whose camera is of another kind than the first one's."""
    kinds = [one.kind if one is not None else "unknown" for one in (*cameras[:1], camera)]
    if len(set(kinds)) > 1:
        raise UserError(f"its camera is {kinds[-1]}, that of the first picture {kinds[0]}")


def camera_keys(prefix: str, camera: Camera) -> dict[str, Tensor]:
    """What a batch holds of cameras: numbers, and a mark that is there if they are orthographic."""
    keys = {
        f"{prefix}camera_to_world": camera.camera_to_world,
        f"{prefix}intrinsics": camera.intrinsics,
    }
    if camera.kind == "orthographic":
        keys[f"{prefix}{_ORTHOGRAPHIC}"] = torch.ones_like(camera.intrinsics[..., 0]).bool()
    return keys


def batch_camera(batch: dict[str, Tensor], prefix: str = "") -> Camera:
    """The cameras of a batch: the way back from `camera_keys`."""
    return Camera(
        camera_to_world=batch[f"{prefix}camera_to_world"],
        intrinsics=batch[f"{prefix}intrinsics"],
        kind="orthographic" if f"{prefix}{_ORTHOGRAPHIC}" in batch else "perspective",
    )


def _some_mirrored(camera: Camera, flips: Bool[Tensor, " batch"]) -> Camera:
    other = mirrored_camera(camera)
    return Camera(
        camera_to_world=torch.where(
            flips[:, None, None], other.camera_to_world, camera.camera_to_world
        ),
        intrinsics=torch.where(flips[:, None], other.intrinsics, camera.intrinsics),
        kind=camera.kind,
    )


def _unit(
    values: UInt8[Tensor, "batch channels side side"], flips: Bool[Tensor, " batch"]
) -> Float[Tensor, "batch channels side side"]:
    """255ths as numbers in [0, 1], some of them mirrored."""
    flipped = torch.where(flips[:, None, None, None], values.flip(-1), values)
    return flipped.float() / 255.0


def _bytes(values: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    return (values * 255.0).round().to(torch.uint8)


def nothing_left(path: str | Path, kind: str, rejects: Sequence[Reject]) -> str:
    """The sentence for a data set of which nothing can be used."""
    first = f" ({rejects[0].name}: {rejects[0].reason})" if rejects else ""
    return f"{path}: none of its {len(rejects)} {kind} can be used{first}."
