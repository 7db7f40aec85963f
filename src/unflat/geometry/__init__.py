"""Cameras, rays, poses, paths, boxes, and the map from true to assumed space."""

from unflat.geometry.box import BoxHits, intersect_box
from unflat.geometry.camera import Camera, CameraKind, invert_rigid, length, rigid
from unflat.geometry.pose import (
    look_at,
    orbit_coordinates,
    orbit_pose,
    rotation_about,
    rotation_from_vector,
)
from unflat.geometry.projective import Frame
from unflat.geometry.rays import Rays, camera_rays, depth_per_distance, image_rays, pixel_grid
from unflat.geometry.trajectory import orbit, spiral, turn_about_pivot, wiggle

__all__ = [
    "BoxHits",
    "Camera",
    "CameraKind",
    "Frame",
    "Rays",
    "camera_rays",
    "depth_per_distance",
    "image_rays",
    "intersect_box",
    "invert_rigid",
    "length",
    "look_at",
    "orbit",
    "orbit_coordinates",
    "orbit_pose",
    "pixel_grid",
    "rigid",
    "rotation_about",
    "rotation_from_vector",
    "spiral",
    "turn_about_pivot",
    "wiggle",
]
