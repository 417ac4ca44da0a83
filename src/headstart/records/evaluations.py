"""What a run came to on further test sets: the `evaluations` of its record, and their metrics by name."""

from __future__ import annotations

FAMILIES: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    "blur": ("defocus_blur", "motion_blur", "zoom_blur"),
    "weather": ("fog", "brightness"),
    "digital": ("contrast", "pixelate", "jpeg_compression"),
}
"""Corruptions of test images that Headstart has, by what they are like."""
CORRUPTIONS = tuple(name for names in FAMILIES.values() for name in names)
SEVERITIES = (1, 2, 3, 4, 5)
