"""Generators that others have trained, read from their files."""

from unflat.systems.gan.published.left_ends import PublishedViews, render_as_published
from unflat.systems.gan.published.source import open_eg3d, open_nerf_from_image

__all__ = ["PublishedViews", "open_eg3d", "open_nerf_from_image", "render_as_published"]
