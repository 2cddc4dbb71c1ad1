"""Small files of every format and mode that is read, made when they are asked for: name -> Sample."""

import io
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec

import numpy as np
from PIL import Image, ImageDraw, features

SIZE = (40, 28)
HAS_AVIF = "avif" in features.get_supported()  # from Pillow 11.3 on


@dataclass(frozen=True)
class Sample:
    """data: bytes. expected: array (28, 40, 3) of what it shows, None where that is not one picture. near: the most
    by which it may differ on average, 0 for lossless ones."""

    data: bytes
    expected: np.ndarray | None = None
    near: float = 0


def picture():
    """Soft colours, as photographs have, and an edge. RGB."""
    x, y = np.meshgrid(np.linspace(0, 1, SIZE[0]), np.linspace(0, 1, SIZE[1]))
    image = Image.fromarray((np.stack([x, y, 1 - x], -1) * 255).astype(np.uint8))
    ImageDraw.Draw(image).rectangle((5, 5, 15, 20), fill=(200, 30, 40))
    return image


def soft_mask():
    return Image.linear_gradient("L").resize(SIZE)


def encode(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def in_mode(mode):
    """The picture in a mode of Pillow's, and what it shows on white: array (28, 40, 3)."""
    rgb, mask = picture(), soft_mask()
    if mode in ("LA", "RGBA"):
        image = rgb.convert(mode)
        image.putalpha(mask)
        alpha = np.asarray(mask)[..., None] / 255
        colours = np.asarray(rgb.convert("L").convert("RGB") if mode == "LA" else rgb)
        return image, np.round(colours * alpha + 255 * (1 - alpha))
    if mode in ("I;16", "I", "F"):
        grey = np.asarray(rgb.convert("L")).astype(np.float64)
        values = {
            "I;16": (grey * 257, np.uint16),
            "I": (grey * 257, np.int32),
            "F": (grey / 255, np.float32),
        }[mode]
        return Image.fromarray(values[0].astype(values[1])), np.stack([grey] * 3, -1)
    image = rgb.convert(mode)
    return image, np.asarray(image.convert("RGB"))


# format -> its modes, and further options by which each is also written
LOSSLESS = {
    "PNG": (["1", "L", "LA", "I;16", "P", "RGB", "RGBA"], [{}]),
    "WEBP": (["RGB", "RGBA"], [{"lossless": True, "exact": True}]),
    "GIF": (["1", "L", "P"], [{}, {"interlace": 0}]),
    "BMP": (["1", "L", "P", "RGB"], [{}]),
    "TIFF": (
        ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"],
        [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"big_tiff": True}],
    ),
    "JPEG2000": (["L", "LA", "RGB", "RGBA", "I;16"], [{}, {"no_jp2": True}]),
    "PPM": (["1", "L", "RGB", "I;16"], [{}]),
    "TGA": (["1", "L", "LA", "P", "RGB", "RGBA"], [{}, {"compression": "tga_rle"}]),
}


@lru_cache
def corpus():
    """name -> Sample: every picture."""
    samples = {}
    for format, (modes, variants) in LOSSLESS.items():
        for mode in modes:
            image, expected = in_mode(mode)
            near = 0.51 if mode in ("LA", "RGBA") else 0
            for options in variants:
                name = " ".join([format, mode, *map(str, options.values())])
                try:
                    samples[name] = Sample(encode(image, format, **options), expected, near)
                except OSError:
                    pass  # this Pillow does not write that
    rgb = picture()
    shown = np.asarray(rgb)
    for name, format, mode, options in [
        ("JPEG", "JPEG", "RGB", {}),
        ("JPEG L", "JPEG", "L", {}),
        ("JPEG CMYK", "JPEG", "CMYK", {}),
        ("JPEG progressive", "JPEG", "RGB", {"progressive": True}),
        ("WEBP lossy", "WEBP", "RGB", {}),
        *([("AVIF", "AVIF", "RGB", {"speed": 9})] if HAS_AVIF else []),
        ("TIFF jpeg", "TIFF", "RGB", {"compression": "jpeg"}),
        ("JPEG2000 lossy", "JPEG2000", "RGB", {"irreversible": True, "quality_layers": [8]}),
    ]:
        image, expected = in_mode(mode)
        samples[name] = Sample(encode(image, format, **options), expected, 14)
    samples["TIFF group4"] = Sample(
        encode(rgb.convert("1"), "TIFF", compression="group4"), np.asarray(rgb.convert("1").convert("RGB"))
    )
    for compression in ("packbits", "lzma"):
        samples[f"TIFF {compression}"] = Sample(encode(rgb, "TIFF", compression=compression), shown)
    turned = Image.Exif()
    turned[0x0112] = 6
    samples["JPEG turned"] = Sample(
        encode(rgb.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=turned, quality=95), shown, 14
    )
    samples["MPO"] = Sample(encode(rgb, "MPO", save_all=True, append_images=[rgb.convert("L")]), shown, 14)
    for kind in ("png", "bmp"):
        image, expected = in_mode("RGBA")
        samples[f"ICO {kind}"] = Sample(
            encode(image, "ICO", sizes=[SIZE], bitmap_format=kind), expected, 0.51
        )
    samples.update(heic())
    for name, sample in animations().items():
        samples[name] = Sample(sample.data, shown, 14)
    if find_spec("pypdfium2"):
        samples["PDF"] = Sample(encode(rgb, "PDF", resolution=150), shown, 14)
    return samples


def heic():
    """Where pillow-heif is installed."""
    if not find_spec("pillow_heif"):
        return {}
    from pillow_heif import from_pillow

    file = io.BytesIO()
    from_pillow(picture()).save(file, quality=90)
    return {"HEIC": Sample(file.getvalue(), np.asarray(picture()), 14)}


def numbered(count, size=SIZE):
    """`count` pictures whose grey tells their number: RGB."""
    return [Image.new("RGB", size, (round(255 * index / max(count - 1, 1)),) * 3) for index in range(count)]


@lru_cache
def animations():
    """name -> Sample: the picture first, then two of one colour."""
    rest = {"save_all": True, "append_images": numbered(2)}
    animations = {
        "GIF animated": Sample(encode(picture(), "GIF", **rest)),
        "WEBP animated": Sample(encode(picture(), "WEBP", lossless=True, **rest)),
        "PNG animated": Sample(encode(picture(), "PNG", **rest)),
        "TIFF pages": Sample(encode(picture(), "TIFF", **rest)),
    }
    if HAS_AVIF:
        animations["AVIF animated"] = Sample(encode(picture(), "AVIF", speed=9, **rest))
    return animations


def video(count=12, size=(48, 32), container="mp4", codec="mpeg4", rate=10, **options):
    """A video of `numbered` frames; options: of the codec. A key frame every 12."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = options.pop("pix_fmt", "yuv420p")
        stream.gop_size = 12
        stream.options = options
        for image in numbered(count, size):
            out.mux(stream.encode(av.VideoFrame.from_image(image)))
        out.mux(stream.encode())
    return file.getvalue()


@lru_cache
def videos():
    """name -> Sample: one of each container, where PyAV is installed."""
    if not find_spec("av"):
        return {}
    return {
        container: Sample(
            video(container=container, codec=codec, pix_fmt=f"yuv{'j' * (codec == 'mjpeg')}420p")
        )
        for container, codec in [
            ("mp4", "mpeg4"),
            ("mov", "mjpeg"),
            ("matroska", "mpeg4"),
            ("webm", "libvpx-vp9"),
            ("avi", "mpeg4"),
            ("mpegts", "mpeg2video"),
            ("flv", "flv1"),
        ]
    }
