"""How near a disparity or depth map is to the true one, a value for each picture.

A single photograph fixes disparity only up to d' = a d + b. Correlation and order do not see a and
b; whoever needs them fits them. A mask says which pixels count; all do where none is given, and
one that leaves a picture without pixels is refused.

>>> import torch
>>> true = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.1
>>> scale_and_shift_invariant_error(3 * true + 1, true).mean_absolute.max() < 1e-6
tensor(True)
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from unflat.metrics.checks import refuse_pictures


class ScaleAndShift(NamedTuple):
    """The best a and b in ``predicted = scale * true + shift``, per picture."""

    scale: Float[Tensor, " batch"]
    """In units of the prediction over units of the truth."""
    shift: Float[Tensor, " batch"]
    """In units of the prediction."""
    residual: Float[Tensor, " batch"]
    """Root of the mean squared rest, in units of the prediction; lower is better."""


def disparity_correlation(
    predicted: Float[Tensor, "batch height width"], true: Float[Tensor, "batch height width"]
) -> Float[Tensor, " batch"]:
    """Pearson correlation over the pixels of each picture, in [-1, 1]; higher is better.

    A constant map correlates with nothing: 0. Report the mean over pictures, and the median beside
    it, which a few failures do not move. For scale: one mean map for all of our scenes gets 0.86.

    Args:
        predicted: disparity in any unit (not depth: its sky would decide alone).
        true: 1 / depth, sky as 0.
    """
    predicted, true = predicted.double().flatten(1), true.double().flatten(1)
    predicted = predicted - predicted.mean(1, keepdim=True)
    true = true - true.mean(1, keepdim=True)
    norm = (predicted.square().sum(1) * true.square().sum(1)).sqrt()
    correlation = (predicted * true).sum(1) / norm.clamp_min(1e-300)
    # a map that is constant up to rounding has a direction, but it means nothing
    constant = (predicted.abs().amax(1) < 1e-9) | (true.abs().amax(1) < 1e-9)
    return torch.where(constant, 0.0, correlation).float()


def fit_scale_and_shift(
    predicted: Float[Tensor, "batch height width"],
    true: Float[Tensor, "batch height width"],
    mask: Bool[Tensor, "batch height width"] | None = None,
) -> ScaleAndShift:
    """Least squares of predicted on true disparity: predicted = scale true + shift.

    The closed form cov / var (specs of the projective frame call these a and b). A constant truth
    gives scale 0 and the mean as shift.

    Args:
        predicted: in the prediction's own unit.
        true: 1 / depth, sky as 0.
        mask: pixels that count; all if not given.

    Raises:
        ValueError: the mask leaves a picture without pixels.
    """
    x, y = true.double().flatten(1), predicted.double().flatten(1)
    weight = torch.ones_like(x) if mask is None else mask.flatten(1).double()
    count = weight.sum(1)
    if (count == 0).any():
        raise ValueError("a picture has no pixels to fit scale and shift on")
    mean_x, mean_y = (x * weight).sum(1) / count, (y * weight).sum(1) / count
    dx, dy = x - mean_x[:, None], y - mean_y[:, None]
    variance = (weight * dx.square()).sum(1)
    covariance = (weight * dx * dy).sum(1)
    scale = torch.where(variance > 1e-18 * count, covariance / variance.clamp_min(1e-300), 0.0)
    shift = mean_y - scale * mean_x
    rest = (weight * (dy - scale[:, None] * dx).square()).sum(1) / count
    return ScaleAndShift(
        scale.to(predicted.dtype), shift.to(predicted.dtype), rest.sqrt().to(predicted.dtype)
    )


class AlignedError(NamedTuple):
    """What is left between an aligned disparity map and the truth, over the truth's range."""

    root_mean_square: Float[Tensor, " batch"]
    """Lower is better; 0 is exact."""
    mean_absolute: Float[Tensor, " batch"]
    """Lower is better; never above the root mean square."""


def align_disparity(
    predicted: Float[Tensor, "batch height width"],
    true: Float[Tensor, "batch height width"],
    mask: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, "batch height width"]:
    """The prediction as near to the truth as scale and shift bring it, in the truth's unit.

    Least squares of true on predicted, true = scale predicted + shift, as MiDaS does (Ranftl et al.
    2020, arXiv 1907.01341); `fit_scale_and_shift` fits the other way round. The scale may be
    negative, and a constant prediction becomes the truth's mean.

    Args:
        predicted: disparity in any unit.
        true: 1 / depth, sky as 0.
        mask: pixels that the fit sees; every pixel is moved by it.

    Raises:
        ValueError: a mask without pixels, or NaN under it.
    """
    keep = _kept(mask, predicted=predicted, true=true)
    fit = fit_scale_and_shift(_filled(true, keep), _filled(predicted, keep), keep)
    moved = fit.scale[:, None, None] * predicted.double() + fit.shift[:, None, None]
    return moved.to(true.dtype)


def scale_and_shift_invariant_error(
    predicted: Float[Tensor, "batch height width"],
    true: Float[Tensor, "batch height width"],
    mask: Bool[Tensor, "batch height width"] | None = None,
) -> AlignedError:
    """Error of disparity after the best scale and shift, over the truth's range; lower is better.

    Aligned as in `align_disparity`, then divided by the largest less the smallest true disparity
    under the mask: 0.1 is a tenth of what lies between the nearest and the farthest. No map does
    worse in root mean square than a constant one. A constant truth has no range and gets NaN, which
    belongs left out of means.

    Args:
        predicted: disparity in any unit.
        true: 1 / depth, sky as 0.
        mask: pixels that count, for the fit and for the error.

    Raises:
        ValueError: a mask without pixels, or NaN under it.
    """
    keep = _kept(mask, predicted=predicted, true=true)
    aligned = align_disparity(predicted.double(), true.double(), keep)
    error = _filled(aligned - true, keep)
    high = true.double().masked_fill(~keep, -torch.inf).amax((1, 2))
    low = true.double().masked_fill(~keep, torch.inf).amin((1, 2))
    extent = torch.where(high > low, high - low, torch.nan)
    return AlignedError(
        (_mean(error.square(), keep).sqrt() / extent).float(),
        (_mean(error.abs(), keep) / extent).float(),
    )


def absolute_relative_error(
    predicted: Float[Tensor, "batch height width"],
    true: Float[Tensor, "batch height width"],
    mask: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, " batch"]:
    """Mean of |depth - true depth| / true depth of an aligned disparity map; lower is better.

    "AbsRel". Fit and error are over pixels with depth: under the mask, and not sky. The aligned
    disparity is held at the truth's smallest from below, which caps depth at the truth's largest;
    without it a single pixel near 0 would decide. At least 0.

    Args:
        predicted: disparity (not depth) in any unit.
        true: 1 / depth, sky as 0; at least 0.
        mask: pixels that count.

    Raises:
        ValueError: no pixel with depth under the mask, NaN there, or a negative truth.
    """
    ratio, keep = _depth_ratio(predicted, true, mask)
    return _mean((ratio - 1).abs(), keep).float()


def delta_accuracy(
    predicted: Float[Tensor, "batch height width"],
    true: Float[Tensor, "batch height width"],
    mask: Bool[Tensor, "batch height width"] | None = None,
    threshold: float = 1.25,
) -> Float[Tensor, " batch"]:
    """Share of pixels whose aligned depth is within a factor of the truth; higher is better.

    max(depth / true, true / depth) < threshold, in [0, 1]; "delta_1" for 1.25. Aligned and capped
    as in `absolute_relative_error`.

    Args:
        predicted: disparity (not depth) in any unit.
        true: 1 / depth, sky as 0; at least 0.
        mask: pixels that count.
        threshold: above 1.

    Raises:
        ValueError: no pixel with depth under the mask, NaN there, or a negative truth.
    """
    ratio, keep = _depth_ratio(predicted, true, mask)
    return _mean((torch.maximum(ratio, 1 / ratio) < threshold).double(), keep).float()


def standardized_depth_error(
    predicted: Float[Tensor, "batch height width"],
    true: Float[Tensor, "batch height width"],
    mask: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, " batch"]:
    """Mean squared difference of two maps, each of mean 0 and variance 1; lower is better.

    The depth figure of EG3D (Chan et al. 2022, arXiv 2112.07945). It is 2 - 2 correlation, in
    [0, 4], so that a nearly flat map of the right shape scores well: report a non-flatness score
    beside it. A constant map stays 0 and gets 1 against any other.

    Args:
        predicted: depth (or both disparity: say which), in any unit.
        true: the same of the reference.
        mask: pixels that count, for the standardization too.

    Raises:
        ValueError: a mask without pixels, or NaN under it.
    """
    keep = _kept(mask, predicted=predicted, true=true)
    difference = _standardized(predicted, keep) - _standardized(true, keep)
    return _mean(difference.square(), keep).float()


def scale_invariant_depth_error(
    predicted: Float[Tensor, "batch height width"],
    true: Float[Tensor, "batch height width"],
    mask: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, " batch"]:
    """Standard deviation of log depth - log true depth ("SIDE"), at least 0; lower is better.

    Eigen et al. 2014, arXiv 1406.2283, section 3.2, under the root as in Wu et al. 2020, arXiv
    1911.11130. It does not see a factor on depth, but a shift: for maps whose camera is
    known. 0.1 is about 10 % of depth.

    Args:
        predicted: depth, above 0 under the mask.
        true: depth, above 0 under the mask.
        mask: pixels that count.

    Raises:
        ValueError: a mask without pixels; NaN or depths that are not above 0 under it.
    """
    keep = _kept(mask, predicted=predicted, true=true)
    for name, depth in (("predicted", predicted), ("true", true)):
        refuse_pictures(
            ((depth <= 0) & keep).flatten(1).any(1), f"{name} depth is not above 0 in picture"
        )
    difference = predicted.double().where(keep, 1).log() - true.double().where(keep, 1).log()
    variance = _mean(_centered(difference, keep).square(), keep)
    return variance.sqrt().float()


def ordinal_accuracy(
    predicted: Float[Tensor, "batch height width"],
    true: Float[Tensor, "batch height width"],
    mask: Bool[Tensor, "batch height width"] | None = None,
    *,
    pairs: int = 10_000,
    threshold: float = 0.02,
    seed: int = 0,
) -> Float[Tensor, " batch"]:
    """Share of random pixel pairs that the prediction puts in the right order; higher is better.

    After Chen et al. 2016, arXiv 1604.03701. Pairs whose true disparities are within a factor of
    1 + threshold count as equal and are left out; a pair that the prediction holds for equal counts
    one half. In [0, 1], 0.5 for chance and for a constant map. A picture without unequal pairs gets
    NaN, which belongs left out of means. Standard error: at most 0.5 / sqrt(pairs).

    Args:
        predicted: disparity in any unit, greater is nearer.
        true: 1 / depth, sky as 0; at least 0.
        mask: pixels that pairs are made of.
        pairs: how many are drawn for each picture; pictures of a batch share the draws.
        threshold: relative difference up to which true disparities are equal.
        seed: of the draws.

    Raises:
        ValueError: a mask without pixels, NaN under it, or a negative truth.
    """
    keep = _kept(mask, predicted=predicted, true=true)
    refuse_pictures(((true < 0) & keep).flatten(1).any(1), "true disparity is negative in picture")
    draws = torch.rand(2, pairs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = []
    for guess, truth, inside in zip(predicted, true, keep, strict=True):
        places = inside.flatten().nonzero().flatten()
        first, second = places[(draws * len(places)).long().to(places.device)]
        guess, truth = guess.flatten().double(), truth.flatten().double()
        order = truth[first] - truth[second]
        low = torch.minimum(truth[first], truth[second])
        unequal = order.abs() > threshold * low
        agreement = (guess[first] - guess[second]).sign() * order.sign()
        values.append((0.5 + 0.5 * agreement[unequal]).mean())  # the mean of nothing is NaN
    return torch.stack(values).float()


def non_flatness_score(
    disparity: Float[Tensor, "batch height width"], bins: int = 64
) -> Float[Tensor, " batch"]:
    """How many of the bins between its nearest and farthest a disparity map fills, evenly counted.

    exp of the entropy of the histogram, in [1, bins]; higher is less flat. The non-flatness score
    of 3DGP (Skorokhodov et al. 2023, arXiv 2303.01416), which bins depth between near and far
    planes; here disparity between each picture's own extremes, so that scale and shift do not
    matter and no plane has to be chosen: not comparable with the published values. It rewards
    noise and says nothing of right or wrong: print the truth's own score and an error beside it.

    Args:
        disparity: in any unit; a constant map gets 1.
        bins: of the histogram.

    Raises:
        ValueError: NaN or infinity in a map.
    """
    _kept(None, disparity=disparity)
    values = disparity.double().flatten(1)
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    places = (values - low) / torch.where(high > low, high - low, 1.0)
    numbers = (places * bins).long().clamp_max(bins - 1)
    ones = torch.ones_like(values)
    counts = values.new_zeros(len(values), bins).scatter_add_(1, numbers, ones)
    shares = counts / values.shape[1]
    return (-torch.xlogy(shares, shares).sum(1)).exp().float()


def _kept(mask: Tensor | None, **maps: Tensor) -> Tensor:
    """The pixels that count, once all maps are known to be finite there."""
    first = next(iter(maps.values()))
    keep = torch.ones_like(first, dtype=torch.bool) if mask is None else mask
    refuse_pictures(~keep.flatten(1).any(1), "the mask leaves no pixels of picture")
    for name, values in maps.items():
        if values.shape != keep.shape:
            raise ValueError(f"{name} has shape {tuple(values.shape)}, not {tuple(keep.shape)}")
        wrong = (~values.isfinite() & keep).flatten(1).any(1)
        refuse_pictures(wrong, f"{name} holds NaN or infinity in picture")
    return keep


def _filled(values: Tensor, keep: Tensor) -> Tensor:
    """In float64, with 0 where nothing counts: NaN is allowed there, and 0 NaN is NaN."""
    return values.double().where(keep, 0.0)


def _mean(values: Tensor, keep: Tensor) -> Float[Tensor, " batch"]:
    """Over the pixels that count."""
    return _filled(values, keep).sum((1, 2)) / keep.sum((1, 2))


def _centered(values: Tensor, keep: Tensor) -> Tensor:
    return _filled(values - _mean(values, keep)[:, None, None], keep)


def _standardized(values: Tensor, keep: Tensor) -> Tensor:
    """Mean 0 and population variance 1 over the pixels that count; zeros for a constant map."""
    values = _centered(values.double(), keep)
    size = values.abs().amax((1, 2))
    spread = _mean(values.square(), keep).sqrt()
    return values / torch.where(size > 1e-12, spread, 1.0)[:, None, None]


def _depth_ratio(
    predicted: Tensor, true: Tensor, mask: Tensor | None
) -> tuple[Tensor, Bool[Tensor, "batch height width"]]:
    """Depth over true depth of the aligned map, and the pixels where both exist."""
    keep = _kept(mask, predicted=predicted, true=true)
    refuse_pictures(((true < 0) & keep).flatten(1).any(1), "true disparity is negative in picture")
    keep = keep & (true > 0)
    refuse_pictures(~keep.flatten(1).any(1), "only sky is under the mask of picture")
    aligned = align_disparity(predicted.double(), true.double(), keep)
    farthest = true.double().masked_fill(~keep, torch.inf).amin((1, 2))
    aligned = torch.maximum(aligned, farthest[:, None, None])
    return (true.double() / aligned).where(keep, 1.0), keep
