"""New scenes of a class: tokens from the prior (stage 2), scenes from the tokens (stage 1).

maker = open_maker("vq3d-prior")
indices = maker.draw("car", seed=0, number=3)
maker.scene(indices, class_name="car", seed=0).save("car.safetensors")
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from unflat.errors import UserError
from unflat.fields.viewspace import ViewSpaceField
from unflat.hub.registry import find
from unflat.scene import Scene, SceneHeader
from unflat.systems.vq3d.autoencoder import Autoencoder, SceneField
from unflat.systems.vq3d.pipeline import load, scene_with_front
from unflat.systems.vq3d.prior import NO_CLASS, Prior, load_prior
from unflat.systems.vq3d.tokens import fingerprint
from unflat.training.model_file import model_hash, read_header


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn; see `unflat.systems.vq3d.prior.Prior.sample`."""

    steps: int = 32
    """Passes of masked decoding; raster order takes one for every code, whatever is said here."""
    temperature: float = 1.0
    """Divides the logits; above 0."""
    guidance_scale: float = 1.3
    """Unconditional + scale (conditional - unconditional) logits; at least 0."""
    top_k: int | None = None
    """Only the so many likeliest codes."""
    top_p: float | None = None
    """Only the fewest codes that together have this probability, in (0, 1]."""


def sampling_of(options: object) -> Sampling:
    """The `Sampling` in the fields of the same names of something else, as a verb's options."""
    return Sampling(**{field.name: getattr(options, field.name) for field in fields(Sampling)})


class SceneMaker:
    """A prior with the stage-1 model whose tokens it draws.

    Args:
        prior: stage 2.
        model: stage 1.
        name: of the prior, for the scenes' headers.
        sha256: of its file.
        licence: of both.
        sampling: how tokens are drawn.

    Raises:
        UserError: the prior was trained on another tokenizer's tokens, the number of passes does
            not fit its tokens, or the model's scenes cannot be saved.
    """

    def __init__(
        self,
        prior: Prior,
        model: Autoencoder,
        *,
        name: str = "given",
        sha256: str = "",
        licence: str = "not stated",
        sampling: Sampling | None = None,
    ) -> None:
        require_tokenizer(prior, model, name)
        if model.config.field != "viewspace":
            raise UserError(f"{name}: scenes in contracted space cannot be saved yet; use another.")
        self.prior, self.model = prior.eval(), model.eval()
        self.name, self.sha256, self.licence = name, sha256, licence
        self.sampling = sampling or Sampling()
        most = prior.config.codes * prior.config.tokens
        steps = self.sampling.steps
        if prior.config.order == "masked" and not prior.config.codes <= steps <= most:
            raise UserError(
                f"--steps {steps}: {name} takes from {prior.config.codes} (a pass for each code of "
                f"a token) to {most} (a pass for each code of a picture)."
            )

    @property
    def classes(self) -> list[str]:
        """Names of the classes there are."""
        return self.prior.classes

    @property
    def device(self) -> torch.device:
        """Where both networks run."""
        return next(self.prior.parameters()).device

    def draw(
        self, class_name: str | None, *, seed: int, number: int
    ) -> Int[Tensor, "1 tokens codes"]:
        """The codes of one scene; the same seed and number give the same ones.

        Args:
            class_name: one of `classes`; None leaves the class open.
            seed: of a series of scenes.
            number: within the series.
        """
        label = NO_CLASS if class_name is None else self.classes.index(class_name)
        state = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0]
        generator = torch.Generator(self.device).manual_seed(int(state >> np.uint64(1)))
        way = self.sampling
        return self.prior.sample(
            torch.tensor([label], device=self.device),
            generator,
            steps=way.steps,
            temperature=way.temperature,
            guidance_scale=way.guidance_scale,
            top_k=way.top_k,
            top_p=way.top_p,
        )

    def scene(
        self, indices: Int[Tensor, "1 tokens codes"], *, class_name: str | None, seed: int
    ) -> Scene:
        """The scene of some codes; it carries its own front view.

        Args:
            indices: of one scene.
            class_name: what it was drawn as, for the header.
            seed: kept in the header.
        """
        field = field_of_codes(self.model, indices)
        assert isinstance(field, ViewSpaceField)  # checked at the beginning
        header = SceneHeader(
            system="vq3d",
            model=self.name,
            model_sha256=self.sha256,
            licence=self.licence,
            settings={"seed": seed, "mode": "generated", "class": class_name or "any"},
        )
        return scene_with_front(self.model, field, header)


@torch.no_grad()
def field_of_codes(model: Autoencoder, indices: Int[Tensor, "batch tokens codes"]) -> SceneField:
    """The radiance fields that some codes describe, in the model's own frame.

    Raises:
        ValueError: the model has no quantiser.
    """
    if model.quantizer is None:
        raise ValueError("a model without a quantiser has no codes")
    return model.field(model.decode(model.quantizer.decode(indices)))


def require_tokenizer(prior: Prior, model: Autoencoder, name: str = "the prior") -> None:
    """Refuse a stage-1 model whose tokens the prior has never seen.

    Raises:
        UserError: it is one.
    """
    if prior.fingerprint != fingerprint(model):
        raise UserError(
            f"{name}: was trained on tokens of {prior.autoencoder or 'another model'} "
            f"({prior.fingerprint or 'unknown'}), not of this one ({fingerprint(model)}); give "
            "its own model with --autoencoder."
        )


def open_maker(
    prior: str | Path,
    autoencoder: str | Path | None = None,
    *,
    device: str = "cpu",
    offline: bool = False,
    sampling: Sampling | None = None,
) -> SceneMaker:
    """Prior and stage-1 model of a name or a file.

    Args:
        prior: name or file.
        autoencoder: name or file; the one that the prior's file names if not given.
        device: where both run.
        offline: use no network.
        sampling: how tokens are drawn.

    Raises:
        UserError: there are no such models, or they do not belong together.
    """
    path = find(prior, offline=offline)
    loaded = load_prior(path).to(device)
    first = find_autoencoder(loaded, path, autoencoder, offline=offline)
    licences = {str(read_header(p).get("card", {}).get("licence", "")) for p in (path, first)}
    return SceneMaker(
        loaded,
        load(first, device),
        name=str(prior),
        sha256=model_hash(path),
        licence=" and ".join(sorted(licences - {""})) or "not stated",
        sampling=sampling,
    )


def find_autoencoder(
    prior: Prior, path: Path, given: str | Path | None = None, *, offline: bool = False
) -> Path:
    """The file of the stage-1 model that belongs to a prior.

    Args:
        prior: loaded from `path`.
        path: its file; a relative path in it may be meant from there.
        given: what a person names instead.
        offline: use no network.

    Raises:
        UserError: there is none where the prior's file says.
    """
    if given is not None:
        return find(given, offline=offline)
    if not prior.autoencoder:
        raise UserError(f"{path}: names no model of stage 1; give it with --autoencoder.")
    beside = path.parent / prior.autoencoder
    try:
        return find(beside if beside.exists() else prior.autoencoder, offline=offline)
    except UserError as error:
        raise UserError(
            f"{path}: its tokens are of {prior.autoencoder}, which is not here; give that model "
            "with --autoencoder."
        ) from error


def find_class(text: str, classes: Sequence[str], option: str = "--class") -> str:
    """The class that a person means by its name or its number.

    Args:
        text: as in "car", "scene/car" or "3".
        classes: names in the order of their numbers.
        option: for the message.

    Raises:
        UserError: there is no such class; the nearest names are offered.
    """
    if text in classes:
        return text
    if text.isdecimal() and int(text) < len(classes):
        return classes[int(text)]
    alone = [name for name in classes if name.rpartition("/")[2] == text]
    if len(alone) == 1:
        return alone[0]
    lower = {name.lower(): name for name in classes}
    near = alone or [lower[n] for n in difflib.get_close_matches(text.lower(), lower, 3, 0.5)]
    if text.lstrip("-").isdecimal():
        advice = f"numbers are from 0 to {len(classes) - 1}."
    elif near:
        advice = f"did you mean {' or '.join(near)}?"
    else:
        advice = f"choose from {', '.join(classes)}."
    raise UserError(f"{option} {text}: there is no such class; {advice}")


def classes_in_turn(chosen: str | None, classes: Sequence[str], count: int) -> list[str | None]:
    """The class of each of ``count`` scenes: the chosen one, or all in turn."""
    if chosen is not None or not classes:
        return [chosen] * count
    return [classes[number % len(classes)] for number in range(count)]
