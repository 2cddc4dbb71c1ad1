"""Arrays and tensors of pixels -> PIL images.

Arrays have the colours last, as NumPy, OpenCV and matplotlib have them; tensors of PyTorch have them first, as
torchvision has them. That is decided by the type alone: a shape such as (3, 4, 3) would fit both.
"""

import sys

import numpy as np
from PIL import Image

from ..errors import ImageError


def is_array(source):
    """Whether this is an array, or a tensor of PyTorch. torch is not imported for that."""
    return hasattr(source, "__array__") or hasattr(source, "__array_interface__")


def from_array(source):
    """An array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a tensor of shape (H, W) or (1, 3 or 4, H, W).

    dtype: uint8 from 0 to 255, floats from 0 to 1, or bool (True is white). Returns a PIL image of mode L, RGB or RGBA.
    Raises ImageError: another shape or dtype, numbers out of range.
    """
    torch = sys.modules.get("torch")
    is_tensor = isinstance(source, getattr(torch, "Tensor", ()))
    name = "tensor" if is_tensor else "array"
    try:
        with np.errstate(all="ignore"):
            array = _numbers(source, torch) if is_tensor else np.asarray(source)
            return Image.fromarray(_bytes(_pixels(array, is_tensor), name))
    except ImageError:
        raise
    except Exception as error:  # on a device that is gone, sparse, too large, foreign types of arrays
        raise ImageError(
            f"The {name} cannot be read ({type(error).__name__}).",
            "Give a NumPy array of uint8, height x width x 3.",
        ) from error


def _numbers(tensor, torch):
    """A tensor, wherever it is -> an array. NumPy has no bfloat16."""
    tensor = tensor.detach()
    if tensor.is_floating_point():
        tensor = tensor.to(torch.float32)
    return tensor.cpu().resolve_conj().resolve_neg().numpy()


def _pixels(array, is_tensor):
    """Any shape that is a picture -> (H, W) or (H, W, 3 or 4)."""
    shape, name = array.shape, "tensor" if is_tensor else "array"
    if is_tensor and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)  # (C, H, W) -> (H, W, C)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]  # (H, W)
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(f"The {name} has the shape {tuple(shape)}.", _shape_advice(shape, is_tensor))
    if array.size == 0:
        raise ImageError(
            f"The {name} has no pixels: its shape is {tuple(shape)}.", "Give a picture with pixels."
        )
    return array


def _shape_advice(shape, is_tensor):
    if len(shape) == 4:
        kind = "tensors: `list(tensor)`" if is_tensor else "arrays: `list(array)`"
        return f"For several pictures give a list of {kind}."
    if is_tensor:
        if len(shape) == 3 and shape[2] in (1, 3, 4):
            return "Put the colours first: `tensor.permute(2, 0, 1)`."
        return "Give height x width, or 3 (RGB) or 4 (with transparency) x height x width."
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return "Put the colours last: `np.moveaxis(array, 0, -1)`."
    return "Give height x width, or height x width x 3 (RGB) or 4 (with transparency)."


def _bytes(array, name):
    """Any dtype that is a picture's -> uint8, contiguous."""
    if array.dtype == bool:
        array = array * np.uint8(255)
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (0 <= low and high <= 1):  # also when NaN
            as_bytes = "tensor.to(torch.uint8)" if name == "tensor" else 'array.astype("uint8")'
            raise ImageError(
                f"The {name} holds floats from {low:g} to {high:g}.",
                f"Scale them to 0..1, or give 0..255 as `{as_bytes}`.",
            )
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(
            f"The {name} is of type {array.dtype}.", "Give uint8 from 0 to 255, or floats from 0 to 1."
        )
    return np.ascontiguousarray(array)
