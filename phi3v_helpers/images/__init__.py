"""A picture from anywhere -> an RGB PIL image."""

from .sources import load_image, load_images

__all__ = ["load_image", "load_images"]
