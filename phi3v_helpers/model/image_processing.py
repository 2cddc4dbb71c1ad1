"""Pictures to `pixel_values`: the HD transform of phi3_v.

A picture is scaled so that it fills a grid of at most `num_crops` crops of 336 x 336 pixels, padded with
white to whole crops, and cut. In front of the crops goes the whole picture once more, shrunk to one crop: the
global view. Everything here equals the published processor bit for bit, and torchvision is not needed.

References: Microsoft's Phi-3-vision-128k-instruct; InternLM-XComposer2-4KHD (arXiv 2404.06512), where the
transform comes from.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.image_transforms import to_pil_image
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from .cpu import hold_on_to_memory

WHITE = (255, 255, 255)
WORTH_THREADS = 250_000  # pixels
SETTINGS = ("num_crops", "image_mean", "image_std", "num_img_tokens", "image_size")


class Phi3VImageProcessor(BaseImageProcessor):
    """Turns pictures into crops.

    Args:
        num_crops: the most crops a picture is cut into, the global view not counted. Advised are 16 for one
            picture and 4 for several.
        image_mean, image_std: three numbers each, for pixels scaled to 0..1; those of CLIP where left out.
        num_img_tokens: tokens of one crop, a square number; 144 as published.
        image_size: side of a crop in pixels.
        **kwargs: other entries of a saved file, kept as they are.

    Raises:
        ValueError: `num_crops` or `num_img_tokens` cannot be.
    """

    model_input_names = ["pixel_values", "image_sizes"]

    def __init__(
        self, num_crops=16, image_mean=None, image_std=None, num_img_tokens=144, image_size=336, **kwargs
    ):
        kwargs.pop("auto_map", None)  # points at remote code that is not needed
        super().__init__(**kwargs)
        self.num_crops = _checked_num_crops(num_crops)
        self.image_mean = list(OPENAI_CLIP_MEAN if image_mean is None else image_mean)
        self.image_std = list(OPENAI_CLIP_STD if image_std is None else image_std)
        self.num_img_tokens = num_img_tokens
        self.image_size = image_size
        if math.isqrt(num_img_tokens) ** 2 != num_img_tokens:
            raise ValueError(f"num_img_tokens is {num_img_tokens}; it must be square, as a crop is.")

    @classmethod
    def from_dict(cls, image_processor_dict, **kwargs):
        """As in transformers, some releases of which ignore what is passed to `from_pretrained`."""
        own = {key: kwargs.pop(key) for key in SETTINGS if key in kwargs}
        return super().from_dict({**image_processor_dict, **own}, **kwargs)

    def preprocess(self, images, num_crops=None, return_tensors=None, pad_crops=True, **kwargs):
        """Cut pictures into crops.

        Args:
            images: one picture or a list of them: PIL, numpy (H, W, 3) or (H, W), torch, or the path or
                address of one. An alpha channel is dropped, not blended, as in the published processor.
            num_crops: overrides the processor's own.
            return_tensors: "pt" or "np"; None gives torch as well.
            pad_crops: False leaves out the zeros that no picture of this call needs.
            **kwargs: ignored, as there is nothing else to choose.

        Returns:
            A `BatchFeature` with, for N pictures and S = `image_size`:
            - `pixel_values` float32 (N, num_crops + 1, 3, S, S): global view, crops row by row, zeros up to
              `num_crops` + 1, or with `pad_crops=False` up to the most that a picture has;
            - `image_sizes` int64 (N, 2): height and width of the padded picture in pixels, multiples of S;
            - `num_img_tokens`: list of N ints.

        Raises:
            ValueError: something is not a picture, or is too long and thin to be cut.
        """
        hold_on_to_memory()
        num_crops = self.num_crops if num_crops is None else _checked_num_crops(num_crops)
        pictures = [self._to_rgb(image) for image in _flat(images)]
        if not pictures:
            raise ValueError("There is no picture in images: pass one or more.")
        padded = [self._fit_to_grid(picture, num_crops) for picture in pictures]
        sizes = [(picture.height, picture.width) for picture in padded]
        room = num_crops if pad_crops else max(h * w for h, w in sizes) // self.image_size**2
        shape = (len(padded), room + 1, 3, self.image_size, self.image_size)
        pixel_values = torch.empty(shape, device="cpu")  # whatever the default device is
        for picture, output in zip(padded, pixel_values):
            self._write_crops(np.array(picture), output)
        data = {
            "pixel_values": pixel_values,
            "image_sizes": torch.tensor(sizes, dtype=torch.long),
            "num_img_tokens": [self._tokens_of(height, width) for height, width in sizes],
        }
        return BatchFeature(data=data, tensor_type=return_tensors)

    def num_image_tokens(self, width, height, num_crops=None):
        """Tokens that a picture of `width` x `height` pixels costs; no picture is needed to find out."""
        columns, rows = self.grid(width, height, num_crops)
        return self._tokens_of(rows * self.image_size, columns * self.image_size)

    def _tokens_of(self, height, width):
        rows, columns = height // self.image_size, width // self.image_size
        side = math.isqrt(self.num_img_tokens)
        return (rows * columns + 1) * side**2 + 1 + (rows + 1) * side

    def _scaled_size(self, width, height, num_crops):
        """Size of a landscape picture when it fills the largest grid of at most `num_crops` crops."""
        ratio = width / height
        scale = 1
        while (scale + 1) * math.ceil((scale + 1) / ratio) <= num_crops:
            scale += 1
        new_width = scale * self.image_size
        return new_width, int(new_width / ratio)

    def grid(self, width, height, num_crops=None):
        """Columns and rows of crops of a picture of `width` x `height` pixels; a ValueError if too long and thin."""
        num_crops = self.num_crops if num_crops is None else _checked_num_crops(num_crops)
        new_width, new_height = self._scaled_size(max(width, height), min(width, height), num_crops)
        if new_height < 1:
            raise ValueError(
                f"A picture of {width} x {height} pixels is too long and thin: scaled to {new_width} pixels, "
                "nothing is left of its other side. Cut it into pieces."
            )
        columns, rows = new_width // self.image_size, math.ceil(new_height / self.image_size)
        return (columns, rows) if width >= height else (rows, columns)

    def _fit_to_grid(self, picture, num_crops):
        """Scale a picture and pad it with white to whole crops: RGB in, RGB out."""
        columns, rows = self.grid(picture.width, picture.height, num_crops)
        portrait = picture.width < picture.height
        if portrait:  # the published processor swaps x and y, scales, and swaps back
            picture = picture.transpose(Image.Transpose.TRANSPOSE)
            columns, rows = rows, columns
        size = self._scaled_size(picture.width, picture.height, num_crops)
        canvas = Image.new("RGB", (columns * self.image_size, rows * self.image_size), WHITE)
        _paste_resized(picture, size, canvas, top=(canvas.height - size[1]) // 2)
        return canvas.transpose(Image.Transpose.TRANSPOSE) if portrait else canvas

    def _write_crops(self, pixels, output):
        """Global view, crops and zeros of a padded picture, (H, W, 3) uint8, into `output` (crops + 1, 3, S, S)."""
        size = self.image_size
        rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
        blocks = pixels.reshape(rows, size, columns, size, 3)
        blocks = blocks.transpose(0, 2, 1, 3, 4)  # (rows, columns, S, S, 3)
        crops = output.numpy()[1 : 1 + rows * columns]
        _in_threads(self._normalise, [block for row in blocks for block in row], crops)
        output[1 + rows * columns :].zero_()
        output[0] = self._global_view(pixels, rows, columns)

    def _normalise(self, pixels, output):
        """(h, w, 3) uint8 -> `output` (3, h, w) float32. Plane by plane, so that a plane stays in the fast cache."""
        for plane, output_plane, mean, std in zip(
            np.moveaxis(pixels, 2, 0), output, self.image_mean, self.image_std
        ):
            output_plane[...] = plane
            # The published processor's order of operations, with its numbers in float32: the last bit counts.
            np.divide(output_plane, np.float32(255), out=output_plane)
            np.subtract(output_plane, np.float32(mean), out=output_plane)
            np.divide(output_plane, np.float32(std), out=output_plane)

    def _global_view(self, pixels, rows, columns):
        """The whole picture shrunk to one crop, float32 (3, S, S): bicubic, of the pixels that it needs."""
        size = self.image_size
        for axis, scale in enumerate((rows, columns)):
            needed = _needed_for_bicubic(scale, size)
            pixels = pixels if needed is None else pixels.take(needed, axis)
        output = torch.empty(3, *pixels.shape[:2], device="cpu")
        self._normalise(pixels, output.numpy())
        if output.shape[1:] == (size, size):
            return output
        return torch.nn.functional.interpolate(output[None], size=(size, size), mode="bicubic")[0]

    def _to_rgb(self, image):
        if isinstance(image, str):
            image = self.fetch_images(image)
        if not isinstance(image, Image.Image):
            try:
                image = to_pil_image(image if isinstance(image, torch.Tensor) else np.asarray(image))
            except Exception as error:
                raise ValueError(
                    f"Not a picture, but {type(image).__name__}. Pass a PIL image, a numpy array "
                    "(height, width, 3) or a torch tensor."
                ) from error
        if min(image.size) < 1:
            raise ValueError(f"The picture is empty: {image.width} x {image.height} pixels. Pass another.")
        return image if image.mode == "RGB" else image.convert("RGB")


def _paste_resized(picture, size, canvas, top):
    """Paste `picture.resize(size, BILINEAR)` at the left of a canvas, made by as many threads as torch uses.

    Pillow scales every row by itself, and then every column: so bands of rows, and then of columns, give the same.
    """
    bands = torch.get_num_threads() if picture.width * picture.height >= WORTH_THREADS else 1
    if bands == 1:
        return canvas.paste(picture.resize(size, Image.Resampling.BILINEAR), (0, top))
    picture.load()  # by one thread
    wide = Image.new("RGB", (size[0], picture.height), None)  # None: not filled with anything

    def scale_rows(first, last):
        band = picture.crop((0, first, picture.width, last))
        wide.paste(band.resize((size[0], last - first), Image.Resampling.BILINEAR), (0, first))

    def scale_columns(first, last):
        band = wide.crop((first, 0, last, wide.height))
        canvas.paste(band.resize((last - first, size[1]), Image.Resampling.BILINEAR), (first, top))

    for work, length in ((scale_rows, picture.height), (scale_columns, size[0])):
        edges = [length * band // bands for band in range(bands + 1)]
        _in_threads(work, edges[:-1], edges[1:])


def _in_threads(work, *arguments):
    """`work` for each of the arguments, as `map` does it, by as many threads as torch uses.

    Not by torch's own: they wait for more in a loop that takes a core, and Pillow's work would wait for that core.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return list(map(work, *arguments))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, *arguments))


def _needed_for_bicubic(scale, size):
    """Along an axis of `scale` * `size` pixels, those that shrinking it to `size` looks at; None for all of them.

    The middle of `scale` pixels is a pixel where `scale` is odd: bicubic interpolation takes it as it is. Else it lies
    halfway between two, which have a neighbour each. Taken out and put side by side they give the same result, to
    the last bit, as they lie halfway again when 4 are shrunk to 1.
    """
    if scale % 2:
        return np.arange(size) * scale + scale // 2
    if scale <= 4:
        return None
    first = np.arange(size) * scale + scale // 2 - 2
    return (first[:, None] + np.arange(4)).reshape(-1)


def _flat(images):
    """One picture, a list of them, or lists of lists: always a flat list."""
    if not isinstance(images, (list, tuple)):
        return [images]
    return [image for part in images for image in _flat(part)]


def _checked_num_crops(num_crops):
    if isinstance(num_crops, bool) or not isinstance(num_crops, (int, np.integer)) or num_crops < 1:
        raise ValueError(f"num_crops is {num_crops!r}; it must be a whole number, 1 or more.")
    return int(num_crops)
