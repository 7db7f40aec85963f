"""Names of the authors' checkpoints to those of diffusers' and transformers' networks.

The authors' code is CompVis's Stable Diffusion; a checkpoint holds the denoiser, its moving
average, the autoencoder, CLIP's picture tower under OpenAI's names, and the projection of the pose.

    place("model.diffusion_model.out.2.bias")       # Place("unet", ("conv_out.bias",), "copy")
"""

import re
from typing import Literal, NamedTuple

Part = Literal["unet", "vae", "image_encoder", "cc_projection"]
"""Of a published model, by the folder that diffusers keeps it in."""
Change = Literal["copy", "transpose", "thirds", "flat"]
"""What becomes of a tensor; thirds: it is three, along its first axis; flat: a 1 x 1 convolution
becomes a matrix."""

UNET = "model.diffusion_model."
AVERAGED = "model_ema."
_VAE = "first_stage_model."
_CLIP = "cond_stage_model.model.visual."
_PROJECTION = "cc_projection."

_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_UNET_ENDS = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_VAE_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}
_CLIP_ENDS = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
    "proj": "visual_projection.weight",
}
_CLIP_LEAVES = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


class Place(NamedTuple):
    """Where a tensor of a checkpoint goes."""

    part: Part
    names: tuple[str, ...]
    """One, or three where it is cut in thirds."""
    change: Change


def place(name: str) -> Place | None:
    """Where a tensor goes; None for what is not used: schedules, text left-overs, averages."""
    if name.startswith(UNET):
        found = _unet(name.removeprefix(UNET))
        return Place("unet", (found,), "copy") if found else None
    if name.startswith(_VAE):
        found = _vae(name.removeprefix(_VAE))
        is_matrix = ".attentions." in found and "norm" not in found and found.endswith("weight")
        return Place("vae", (found,), "flat" if is_matrix else "copy") if found else None
    if name.startswith(_CLIP):
        return _clip(name.removeprefix(_CLIP))
    if name.startswith(_PROJECTION):
        return Place("cc_projection", (name.removeprefix(_PROJECTION),), "copy")
    return None


def averaged_name(name: str) -> str:
    """Under which the moving average of a denoiser's weight lies: without its dots."""
    return AVERAGED + name.removeprefix("model.").replace(".", "")


def present_name(name: str) -> str:
    """A name of diffusers before 0.18 as it is now: attention of the autoencoder had others."""
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v")):
        name = name.replace(f".attentions.0.{old}.", f".attentions.0.{new}.")
    return name.replace(".attentions.0.proj_attn.", ".attentions.0.to_out.0.")


def _unet(name: str) -> str:
    stem, leaf = name.rsplit(".", 1)
    if stem in _UNET_ENDS:
        return f"{_UNET_ENDS[stem]}.{leaf}"
    found = re.fullmatch(r"(input|middle|output)_blocks?\.(\d+)(?:\.(\d+))?(\..+)?", stem)
    if found is None:
        return ""
    side, first, second, rest = (part or "" for part in found.groups())
    if side == "middle":  # middle_block has one number before what is inside
        inside = f".{second}{rest}" if second else rest
        return f"mid_block.{_MIDDLE.get(first, '')}{_inside(inside, first != '1')}.{leaf}"
    if side == "input":
        level, layer = divmod(int(first) - 1, 3)
        if rest == ".op":
            return f"down_blocks.{level}.downsamplers.0.conv.{leaf}"
        start = f"down_blocks.{level}"
    else:
        level, layer = divmod(int(first), 3)
        if rest == ".conv":
            return f"up_blocks.{level}.upsamplers.0.conv.{leaf}"
        start = f"up_blocks.{level}"
    kind = "resnets" if second == "0" else "attentions"
    return f"{start}.{kind}.{layer}{_inside(rest, second == '0')}.{leaf}"


def _inside(rest: str, is_residual: bool) -> str:
    """What comes after a block's name, with its leading dot; attention has the same on both."""
    return f".{_RESIDUAL.get(rest[1:], rest[1:])}" if is_residual else rest


def _vae(name: str) -> str:
    if name.startswith(("quant_conv.", "post_quant_conv.")):
        return name
    name = name.replace("nin_shortcut", "conv_shortcut").replace("norm_out", "conv_norm_out")
    name = re.sub(r"mid\.block_(\d)", lambda m: f"mid_block.resnets.{int(m[1]) - 1}", name)
    name = re.sub(
        r"mid\.attn_1\.(\w+)",
        lambda m: f"mid_block.attentions.0.{_VAE_ATTENTION.get(m[1], m[1])}",
        name,
    )
    name = re.sub(r"down\.(\d)\.block\.", r"down_blocks.\1.resnets.", name)
    name = re.sub(r"down\.(\d)\.downsample\.", r"down_blocks.\1.downsamplers.0.", name)
    # levels of the way up are counted from the other end
    name = re.sub(r"up\.(\d)\.block\.", lambda m: f"up_blocks.{3 - int(m[1])}.resnets.", name)
    return re.sub(
        r"up\.(\d)\.upsample\.", lambda m: f"up_blocks.{3 - int(m[1])}.upsamplers.0.", name
    )


def _clip(name: str) -> Place | None:
    if name in _CLIP_ENDS:
        return Place(
            "image_encoder", (_CLIP_ENDS[name],), "transpose" if name == "proj" else "copy"
        )
    found = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)", name)
    if found is None:
        return None
    layer, stem, leaf = found.groups()
    start = f"vision_model.encoder.layers.{layer}"
    if stem == "attn.in_proj":
        names = tuple(f"{start}.self_attn.{part}_proj.{leaf}" for part in "qkv")
        return Place("image_encoder", names, "thirds")
    if stem not in _CLIP_LEAVES:
        return None
    return Place("image_encoder", (f"{start}.{_CLIP_LEAVES[stem]}.{leaf}",), "copy")
