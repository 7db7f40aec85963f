"""Frozen protocols of the task "views": which pictures are inputs, and which are targets."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ViewProtocol:
    """Which views of which objects are inputs and targets."""

    name: str
    text: str
    """What is measured, in words."""
    unlike: str
    """What of a published protocol it does not reproduce."""
    objects: int | None = None
    """Only the first so many; all if None."""
    views: int | None = None
    """Only the first so many views of an object, the input among them; all if None. Objects with
    fewer are refused."""
    resolution: int | None = None
    """Side in pixels; as stored if None."""
    seeds: int = 4
    """Runs of a method that draws at random."""


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        ViewProtocol(
            name="unflat-views/1",
            text="view 0 of every object is the input, all its other views are targets; four "
            "seeds, their mean, and the best of four for each object as figures of its own",
            unlike="",
        ),
        ViewProtocol(
            name="gso",
            text="SyncDreamer's (arXiv 2309.03453): the first of 16 views is the input, the other "
            "15 are targets, 256 px on white, one seed",
            unlike="its 30 scanned objects, their even light, and the fixed cameras at 30 degrees "
            "of elevation come with the data set or not at all; whether the input counts as a "
            "target there is not stated; LPIPS there is the VGG one",
            views=16,
            resolution=256,
            seeds=1,
        ),
        ViewProtocol(
            name="rtmv",
            text="Zero-1-to-3's (arXiv 2303.11328) as its authors described it later: the first 20 "
            "objects, the first view is the input, the next 16 are targets, 256 px, one seed",
            unlike="the scenes of RTMV come with the data set or not at all; sampler settings, "
            "resizing and metric code were never published, and reruns by others differ",
            objects=20,
            views=17,
            resolution=256,
            seeds=1,
        ),
    )
}
"""By name, the first is the usual one."""
