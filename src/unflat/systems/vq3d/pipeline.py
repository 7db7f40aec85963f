"""From a picture to a Scene with a VQ3D model."""

import copy
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unflat.data.depth_maps import DepthSource
from unflat.data.prepare import prepare_picture
from unflat.errors import UserError
from unflat.fields.detail import DetailField
from unflat.fields.viewspace import ViewSpaceField
from unflat.hub.registry import find
from unflat.nn.quantize import code_usage
from unflat.report import Report
from unflat.scene import Scene, SceneHeader
from unflat.systems.vq3d.autoencoder import Autoencoder, Encoded, SceneField, build
from unflat.systems.vq3d.config import Config
from unflat.systems.vq3d.given_depth import agreement, given_surface
from unflat.systems.vq3d.refiner import Refined
from unflat.systems.vq3d.surface import (
    hidden_sheet,
    refine_surface,
    token_surface,
    true_focal,
)
from unflat.systems.vq3d.views import render_canonical
from unflat.training.model_file import load_weights, model_hash, read_header

# Logistic weights: offset, expected error of depth, canonical PSNR of the tokens. Fitted by
# benchmarks/confidence.py to the disparity correlation on scenes, upside-down scenes and noise.
CONFIDENCE = (1.4, -39.513, 0.06)
# A photo does not tell how much nearer the nearest is than the farthest. With the model's own
# disparity it would be tenfold; the training scenes with walls have a median of 5.3.
USUAL_SHIFT = -0.12
TURNED_ROUND = (
    "the given depth is near where the model sees far; if its values grow with distance, "
    "say --depth-from depth"
)
FRONT_SIDE = 256
"""Pixels of the front view that a scene without a photo carries; its field is smooth."""
_FRONT_SAMPLES = 64
LEAST_SPREAD = 0.002  # softness of a sheet whose depth is sure, units of normalised disparity
GIVEN_SPREAD = 0.006  # softness of a surface that a depth map gives
# The least squared error wants softer sheets than the eye: a share of that, and no more than the
# most, cost 0.1 dB on scenes and keep photographs from blurring.
SOFTENED, MOST_SPREAD = 0.7, 0.04


@torch.no_grad()
def scene_with_front(model: Autoencoder, field: ViewSpaceField, header: SceneHeader) -> Scene:
    """A scene without a photo: it carries its own front view instead.

    Args:
        model: of the field.
        field: of one scene.
        header: what it is; field of view and date are filled in.
    """
    front, _, _ = render_canonical(field, FRONT_SIDE, _FRONT_SAMPLES)
    today = datetime.now(UTC).date().isoformat()
    header = replace(header, fov_deg=model.config.fov_deg, created=today)
    placed = field.with_frame(replace(field.frame, b=USUAL_SHIFT))
    own = copy.deepcopy(placed).cpu()  # the decoder is the model's own
    return Scene(own, header, picture=front[0].clamp(0, 1).cpu())


def load(model: str | Path, device: str = "cpu", offline: bool = False) -> Autoencoder:
    """The model of a name or a file, in evaluation mode.

    Raises:
        UserError: there is no such model, or it is another system's or another version's.
    """
    path = find(model, offline=offline)
    state, header = load_weights(path)
    if header.get("system") != "vq3d":
        raise UserError(
            f"{path}: is a model of {header.get('system')}, not of vq3d; give another --model."
        )
    try:
        network = build(Config.from_json(header["config"]))
        network.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: does not fit this version of vq3d; train it again or use another unflat."
        ) from error
    return network.eval().to(device)


@torch.no_grad()
def token_field(model: Autoencoder, encoded: Encoded) -> SceneField:
    """The radiance fields that the tokens alone describe."""
    return model.field(model.decode(encoded.quantized.tokens))


@torch.no_grad()
def detail_field(
    model: Autoencoder,
    encoded: Encoded,
    image: Float[Tensor, "batch 3 side side"],
    photo: Float[Tensor, "batch 3 height width"],
    disparity: Float[Tensor, "batch 1 rows columns"] | None = None,
) -> DetailField:
    """The tokens' fields with the photo on what it shows.

    A disparity that is known from elsewhere takes the place of the model's own guesses at the
    visible surface; scale and shift are fitted to the tokens' (see `given_depth`), so that what
    is hidden stays behind it.

    Args:
        model: with a refiner, over view-space planes.
        encoded: of the images.
        image: at the model's resolution, in [0, 1].
        photo: the same pictures at any larger resolution.
        disparity: of the visible surface, in [0, 1], 1 nearest, of the same square at any
            resolution.

    Raises:
        ValueError: the model has no detail mode.
    """
    base = token_field(model, encoded)
    if model.refiner is None or not isinstance(base, ViewSpaceField):
        raise ValueError("detail needs a refiner and view-space planes")
    if disparity is not None:
        rendered = token_surface(base, image.shape[-1])
        surface = given_surface(disparity.to(photo), rendered.to(photo), photo, GIVEN_SPREAD)
    else:
        surface = visible_surface(model, base, encoded, image)
        surface = surface._replace(disparity=surface.disparity.clamp(0, 1.05))
        if photo.shape[-1] != image.shape[-1]:  # it has finer edges to follow
            surface = refine_surface(surface, photo)
        soft = (SOFTENED * surface.softness).clamp(LEAST_SPREAD, MOST_SPREAD)
        surface = surface._replace(softness=soft)
    hidden = hidden_sheet(surface.disparity, photo)
    return DetailField(base, photo, surface.disparity, surface.softness, hidden)


@torch.no_grad()
def visible_surface(
    model: Autoencoder,
    base: SceneField,
    encoded: Encoded,
    image: Float[Tensor, "batch 3 side side"],
) -> Refined:
    """What the refiner sees, at the model's resolution: where the surface is and how surely.

    Args:
        model: with a refiner.
        base: the tokens' fields.
        encoded: of the images.
        image: at the model's resolution, in [0, 1].
    """
    assert model.refiner is not None  # asked of models with a detail mode only
    return model.refiner(image, token_surface(base, image.shape[-1]), encoded.features)


def has_detail(model: Autoencoder) -> bool:
    """Whether the model can carry the photo's own detail."""
    return model.refiner is not None and model.config.field == "viewspace"


def with_fov(field: SceneField | DetailField, focal_true: float) -> SceneField | DetailField:
    """The field under another true focal length (half-widths)."""
    return field.with_frame(replace(field.frame, focal_true=focal_true))


@torch.no_grad()
def reconstruct_picture(
    picture: str | Path | Image.Image,
    *,
    model: str | Path | Autoencoder = "vq3d-small",
    fov_deg: float | None = None,
    device: str = "cpu",
    seed: int = 0,
    detail: bool = True,
    depth: DepthSource | None = None,
    offline: bool = False,
    report: Report | None = None,
) -> Scene:
    """A scene made from one picture, without its camera.

    Args:
        picture: a file, or a picture that is already open; its centre square is used.
        model: a name, a file, or a loaded model (its name is then "given").
        fov_deg: across the square, degrees; from EXIF, else the model's assumption, if absent.
        device: where the network runs; the scene is on the CPU.
        seed: kept in the header; nothing here is random.
        detail: the photo gives what is seen (the default), or everything comes from the tokens.
        depth: knows the visible surface better than the model does; for detail only.
        offline: use no network.
        report: gets stages, figures and warnings.

    Raises:
        UserError: picture, model or depth cannot be used, the picture is too small, or detail is
            asked of a model that has none.
        ValueError: depth without detail.
    """
    if depth is not None and not detail:
        raise ValueError("depth is of the visible surface, which tokens alone do not have")
    report = report or Report("reconstruct", inputs=[], seed=seed, device=device)
    with report.stage("prepare"):
        name, sha, licence = "given", "", "not stated"
        if not isinstance(model, Autoencoder):
            path = find(model, offline=offline)
            name, sha = str(model), model_hash(path)
            licence = str(read_header(path).get("card", {}).get("licence", licence))
            model = load(path, device)
        if detail and not has_detail(model):
            raise UserError(f"--mode detail: {name} has no depth refiner; use --mode tokens.")
        prepared = prepare_picture(picture, model.config.resolution)
    given = None
    if depth is not None:
        with report.stage("depth"):
            given = depth.of(prepared).to(device)
    with report.stage("scene"):
        image, photo = prepared.model_image[None].to(device), prepared.image[None].to(device)
        encoded = model.encode(image)
        base = token_field(model, encoded)
        if not isinstance(base, ViewSpaceField):
            raise UserError(f"{name}: scenes in contracted space cannot be saved yet; use another.")
        chosen = detail_field(model, encoded, image, photo, disparity=given) if detail else base
        fov, fov_from = model.config.fov_deg, "default"
        if fov_deg is not None:
            fov, fov_from = fov_deg, "option"
        elif prepared.fov is not None:
            fov, fov_from = math.degrees(prepared.fov), "exif"
        frame = replace(chosen.frame, focal_true=true_focal(fov), b=USUAL_SHIFT)
        chosen = copy.deepcopy(chosen.with_frame(frame)).cpu()  # the decoder is the model's own
        rebuilt, rendered, _ = render_canonical(base, model.config.resolution)
        psnr = float(-10 * (rebuilt.clamp(0, 1) - image).square().mean().log10())
        confidence = estimate_confidence(model, base, encoded, image, psnr)
    report.confidence = confidence
    report.figures["canonical_psnr"] = round(psnr, 2)
    settings = {"seed": seed, "mode": "detail" if detail else "tokens"}
    if depth is not None and given is not None:
        settings |= {"depth": depth.name, "depth_sha256": depth.sha256}
        agreed = agreement(given, rendered.to(given))
        report.figures["depth_correlation"] = round(agreed, 4)
        if agreed < 0:
            report.warn(TURNED_ROUND, about=depth.name)
    if model.codebook_sizes:
        usage = code_usage(encoded.quantized.indices, model.codebook_sizes)
        report.figures["codes_used"] = round(usage.usage, 4)
    report.settings |= {"preprocessing": list(prepared.notes), "fov_deg": fov, "fov_from": fov_from}
    header = SceneHeader(
        system="vq3d",
        model=name,
        model_sha256=sha,
        licence=licence,
        source=Path(picture).name if isinstance(picture, str | Path) else "picture",
        fov_deg=fov,
        fov_from=fov_from,
        confidence=confidence,
        created=datetime.now(UTC).date().isoformat(),
        settings=settings,
    )
    scene_picture = None if detail else prepared.model_image
    return Scene(chosen, header, picture=scene_picture)


def estimate_confidence(
    model: Autoencoder,
    base: ViewSpaceField,
    encoded: Encoded,
    image: Float[Tensor, "1 3 side side"],
    psnr: float,
) -> float:
    """How far the geometry may be trusted, in [0, 1]; see CONFIDENCE."""
    error = 0.2
    if model.refiner is not None:
        error = float(visible_surface(model, base, encoded, image).spread.mean())
    offset, of_error, of_psnr = CONFIDENCE
    return float(torch.sigmoid(torch.tensor(offset + of_error * error + of_psnr * psnr)))
