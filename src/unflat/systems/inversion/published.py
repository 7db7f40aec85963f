"""Encoders of google-research/nerf-from-image (arXiv 2211.11674), from their published weights.

    encoder = open_encoder("g_p3d_car_pretrained/c_it..._latest.pth")
    guess = encoder(images)             # in the world of the generator it was trained on

And SegFormer's backbone as its authors left it after ImageNet (`mit_b5.pth`), to begin from. Sizes
are read off the shapes; heads of attention, which leave no trace in them, are 1, 2, 5 and 8 in all
that was published.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from unflat.errors import UserError
from unflat.hub.encoder_files import BACKBONE, ENCODER, read_encoder_file
from unflat.hub.published_names import Names, filled, linear_names, renamed
from unflat.nn.segformer import MixSizes, MixTransformer
from unflat.systems.inversion.encoder import Config, Encoder, build

_STAGES = (1, 2, 3, 4)
_CLASSIFIER = "head."  # of ImageNet, which stays behind


def open_encoder(path: str | Path) -> Encoder:
    """The encoder in a checkpoint of nerf-from-image, frozen.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    file = read_encoder_file(path)
    if file.system != ENCODER:
        raise UserError(
            f"{path}: holds {file.system}, no encoder of nerf-from-image; give its "
            "c_it..._latest.pth."
        )
    config, weights = encoder_from_published(file.state, str(path))
    return filled(lambda: build(config), weights, str(path))


def open_backbone(path: str | Path) -> MixTransformer:
    """The transformer in a file of SegFormer's authors (`mit_b0.pth` to `mit_b5.pth`), frozen.

    An encoder begins from it by ``encoder.trunk.backbone.load_state_dict(it.state_dict())``. It was
    trained on pictures normalised by ImageNet's mean and spread; encoders get them in [-1, 1].

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    file = read_encoder_file(path)
    if file.system != BACKBONE:
        raise UserError(f"{path}: holds {file.system}, no backbone alone; give mit_b5.pth.")
    sizes, weights = backbone_from_published(file.state, str(path))
    return filled(lambda: MixTransformer(sizes), weights, str(path))


def encoder_from_published(
    state: Mapping[str, Tensor], source: str = "the encoder"
) -> tuple[Config, dict[str, Tensor]]:
    """What a published state tells, and its weights under our names.

    Args:
        state: as ``model_coord`` of a published checkpoint, without the prefix ``module.``.
        source: for messages, as in the path of the file.

    Raises:
        UserError: a key is unknown or missing (the message names the first), or has another shape
            than the others suggest.
    """
    sizes = sizes_of(state, "backbone.", source)
    config = Config(
        backbone=sizes,
        decoder_width=_shape(state, "backbone.linear_fuse.weight", source)[0],
        features=_shape(state, "backbone.linear_pred.weight", source)[0],
        head_width=_shape(state, "post.0.weight", source)[0],
        code_width=_shape(state, "w_regressor_pre.0.weight", source)[0],
        style_dim=_shape(state, "w_regressor_post.2.weight", source)[0],
        is_separate=any(name.startswith("backbone_latent.") for name in state),
    )
    names = segformer_names(sizes, "backbone.", "trunk.")
    if config.is_separate:
        names |= segformer_names(sizes, "backbone_latent.", "code_trunk.")
    for theirs, ours in (
        ("post.0", "map_head.first"),
        ("post.2", "map_head.second"),
        ("post.4", "map_head.last"),
        ("w_regressor_pre.0", "code_head.before"),
        ("w_regressor_post.0", "code_head.hidden"),
        ("w_regressor_post.2", "code_head.last"),
    ):
        names |= linear_names(theirs, ours)
    return config, renamed(state, names, source, "encoder")


def backbone_from_published(
    state: Mapping[str, Tensor], source: str = "the backbone"
) -> tuple[MixSizes, dict[str, Tensor]]:
    """Sizes of a published backbone, and its weights under our names.

    Args:
        state: of the file; an ImageNet classifier in it is left out.
        source: for messages.

    Raises:
        UserError: as `encoder_from_published`.
    """
    sizes = sizes_of(state, "", source)
    names = _backbone_names(sizes, "", "")
    names |= {name: None for name in state if name.startswith(_CLASSIFIER)}
    return sizes, renamed(state, names, source, "backbone")


def sizes_of(state: Mapping[str, Tensor], prefix: str, source: str) -> MixSizes:
    """Sizes of the transformer whose names begin with a prefix, as in ``backbone.``.

    Raises:
        UserError: there is none.
    """
    widths, depths, reductions = [], [], []
    for stage in _STAGES:
        widths.append(_shape(state, f"{prefix}patch_embed{stage}.proj.weight", source)[0])
        block = re.escape(f"{prefix}block{stage}.") + r"(\d+)\."
        numbers = {int(found[1]) for name in state if (found := re.match(block, name))}
        depths.append(len(numbers))
        reduce = state.get(f"{prefix}block{stage}.0.attn.sr.weight")
        reductions.append(1 if reduce is None else reduce.shape[-1])
    hidden = _shape(state, f"{prefix}block1.0.mlp.fc1.weight", source)[0]
    try:
        return MixSizes(
            widths=(widths[0], widths[1], widths[2], widths[3]),
            depths=(depths[0], depths[1], depths[2], depths[3]),
            reductions=(reductions[0], reductions[1], reductions[2], reductions[3]),
            mlp_ratio=hidden // widths[0],
        )
    except ValueError as error:
        raise UserError(
            f"{source}: holds no whole SegFormer ({error}); give a file as published."
        ) from error


def _shape(state: Mapping[str, Tensor], name: str, source: str) -> tuple[int, ...]:
    if name not in state or state[name].ndim < 2:
        raise UserError(f"{source}: lacks {name}; give a file as published.")
    return tuple(state[name].shape)


def segformer_names(sizes: MixSizes, published: str, ours: str) -> Names:
    """Transformer and decoder; both prefixes may be empty."""
    names = _backbone_names(sizes, published, f"{ours}backbone.")
    for stage in _STAGES:
        names |= linear_names(
            f"{published}linear_c{stage}.proj", f"{ours}decoder.project.{stage - 1}"
        )
    names |= linear_names(f"{published}linear_fuse", f"{ours}decoder.fuse")
    return names | linear_names(f"{published}linear_pred", f"{ours}decoder.predict")


def _backbone_names(sizes: MixSizes, published: str, ours: str) -> Names:
    names: Names = {}
    for stage, depth, reduction in zip(_STAGES, sizes.depths, sizes.reductions, strict=True):
        mine = f"{ours}stages.{stage - 1}."
        names |= linear_names(f"{published}patch_embed{stage}.proj", f"{mine}embed")
        names |= linear_names(f"{published}patch_embed{stage}.norm", f"{mine}embed_norm")
        names |= linear_names(f"{published}norm{stage}", f"{mine}norm")
        for block in range(depth):
            names |= _block_names(
                f"{published}block{stage}.{block}.", f"{mine}blocks.{block}.", reduction > 1
            )
    return names


def _block_names(published: str, ours: str, is_reduced: bool) -> Names:
    pairs = [
        ("norm1", "attention_norm"),
        ("attn.q", "attention.query"),
        ("attn.kv", "attention.key_value"),
        ("attn.proj", "attention.out"),
        ("norm2", "mlp_norm"),
        ("mlp.fc1", "mlp.first"),
        ("mlp.dwconv.dwconv", "mlp.neighbors"),
        ("mlp.fc2", "mlp.last"),
    ]
    if is_reduced:
        pairs += [("attn.sr", "attention.reduce"), ("attn.norm", "attention.reduce_norm")]
    names: Names = {}
    for theirs, mine in pairs:
        names |= linear_names(published + theirs, ours + mine)
    return names
