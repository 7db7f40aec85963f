"""Which verbs there are; listing them imports none of them.

A verb's module has ``Options`` (a dataclass, whose docstring is the help) and
``run(options, terminal) -> int`` (the exit code).
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One command."""

    module: str
    """Where its ``Options`` and ``run`` are."""
    summary: str
    """What a person gets from it, in one line."""


VERBS = {
    "reconstruct": Verb(
        module="unflat.cli.reconstruct",
        summary="one photo, or a folder of them, becomes scenes to look around in",
    ),
    "generate": Verb(
        module="unflat.cli.generate",
        summary="a class name becomes new scenes to look around in",
    ),
    "invert": Verb(
        module="unflat.cli.invert",
        summary="one picture of an object of a known kind becomes a mesh, with its camera",
    ),
    "views": Verb(
        module="unflat.cli.views",
        summary="one picture of an object becomes pictures of it from other sides",
    ),
    "lift": Verb(
        module="unflat.cli.lift",
        summary="one picture of any object becomes a textured mesh",
    ),
    "edit": Verb(module="unflat.cli.edit", summary="a mesh or another scene is put into a scene"),
    "interpolate": Verb(
        module="unflat.cli.interpolate", summary="from one picture's scene to another's, in steps"
    ),
    "render": Verb(module="unflat.cli.render", summary="a scene becomes a video of a camera path"),
    "export": Verb(
        module="unflat.cli.export", summary="a scene becomes GLB, PLY, OBJ, splats, depth, HTML"
    ),
    "view": Verb(module="unflat.cli.view", summary="opens the viewer of a scene"),
    "train vq3d-autoencoder": Verb(
        module="unflat.cli.train_vq3d_autoencoder",
        summary="pictures become a model that reconstructs from one photo",
    ),
    "train vq3d-prior": Verb(
        module="unflat.cli.train_vq3d_prior",
        summary="tokens of pictures become a model that makes up new ones of a class",
    ),
    "train vq3d-detail": Verb(
        module="unflat.cli.train_vq3d_detail",
        summary="a stage-1 model learns to see the surface of the photo itself",
    ),
    "train gan": Verb(
        module="unflat.cli.train_gan",
        summary="pictures of objects become a model that makes up new ones",
    ),
    "train inversion-encoder": Verb(
        module="unflat.cli.train_inversion_encoder",
        summary="a generator's own pictures become a model that finds objects in pictures",
    ),
    "train zero123": Verb(
        module="unflat.cli.train_zero123",
        summary="objects seen from several sides become a model that turns them in one picture",
    ),
    "train depth": Verb(
        module="unflat.cli.train_depth",
        summary="pictures with a disparity become a small teacher of it",
    ),
    "train features": Verb(
        module="unflat.cli.train_features",
        summary="pictures become the network that distances between pictures are measured with",
    ),
    "evaluate reconstruction": Verb(
        module="unflat.cli.evaluate_reconstruction",
        summary="how well a model reconstructs, beside simple baselines",
    ),
    "evaluate depth": Verb(
        module="unflat.cli.evaluate_depth",
        summary="how right the disparity of single pictures is",
    ),
    "evaluate generation": Verb(
        module="unflat.cli.evaluate_generation",
        summary="how near generated pictures are to real ones, from the front and turned",
    ),
    "evaluate objects": Verb(
        module="unflat.cli.evaluate_objects",
        summary="how good made-up objects are, and whether they are 3D",
    ),
    "evaluate inversion": Verb(
        module="unflat.cli.evaluate_inversion",
        summary="how right object and camera are, found from one picture",
    ),
    "evaluate views": Verb(
        module="unflat.cli.evaluate_views",
        summary="how right pictures of an object from other sides are",
    ),
    "evaluate lift": Verb(
        module="unflat.cli.evaluate_lift",
        summary="how right the surface of an object is, made from one picture",
    ),
    "data procedural": Verb(
        module="unflat.cli.data_procedural",
        summary="writes made-up scenes with exact depth and cameras",
    ),
    "data objects": Verb(
        module="unflat.cli.data_objects",
        summary="writes made-up objects seen from all around, with exact depth and cameras",
    ),
    "data from-meshes": Verb(
        module="unflat.cli.data_from_meshes",
        summary="renders meshes from all sides, with cameras, to learn new views from",
    ),
    "data depth": Verb(
        module="unflat.cli.data_depth",
        summary="gives pictures the disparity that training learns from, by any depth model",
    ),
    "data check": Verb(
        module="unflat.cli.data_check", summary="what a data set holds, and what of it is unusable"
    ),
    "data tokens": Verb(
        module="unflat.cli.data_tokens",
        summary="writes the tokens of pictures, which train vq3d-prior learns from",
    ),
    "models list": Verb(module="unflat.cli.models_list", summary="the models there are"),
    "models show": Verb(module="unflat.cli.models_show", summary="the card of one model"),
    "doctor": Verb(module="unflat.cli.doctor", summary="says what this computer has and lacks"),
    "demo": Verb(module="unflat.cli.demo", summary="reconstructs a bundled photo"),
}
"""In the order in which a person meets them."""

TRAINED_BY = {
    "vq3d": "train vq3d-autoencoder",
    "vq3d-prior": "train vq3d-prior",
    "vq3d-detail": "train vq3d-detail",
    "features": "train features",
    "depth": "train depth",
    "gan": "train gan",
    "inversion": "train inversion-encoder",
    "zero123": "train zero123",
}
"""Which verb goes on with a run of a system."""
