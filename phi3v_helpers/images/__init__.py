"""Pictures from anywhere -> RGB PIL images.

sources: what `load_image` takes. reading: paths, addresses, file objects -> bytes; fetching: http(s) addresses.
kinds: what these bytes are. guards: whether they are safe to open. decoding: the picture in them.
arrays: arrays and tensors. documents: pages of PDF documents. moving: frames of animations and videos.
"""

from .documents import pages
from .moving import frames
from .sources import load_image, load_images

__all__ = ["frames", "load_image", "load_images", "pages"]
