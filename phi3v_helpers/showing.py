"""Pictures in a notebook: in a row, small, each with a text for those who cannot see it.

In HTML, because JupyterLab ignores the "alt" of an image/png output (4.6: it makes an <img> without alt), while an
<img> with a data: address is shown everywhere, in an untrusted notebook too. Its sanitiser drops styles that it does
not know: a hex colour stays, the name "grey" does not.
"""

import base64
import io
from html import escape

from . import samples
from .errors import ImageError
from .images import load_image

STYLE = "display: inline-block; margin: 2px; border: 1px solid #888"


def show(*pictures, width=320, alt=None):
    """Show pictures in a row.

    pictures: names of shipped pictures (str in p3v.samples), or anything that `load_image` takes.
    width: pixels, of each as shown. alt: str, or a list with one for each picture; may be left out for shipped ones.
    Returns an object that a notebook displays.
    Raises ImageError: a picture that cannot be read; fewer or more texts than pictures.
    """
    from IPython.display import HTML  # only notebooks have it

    texts = [alt] if isinstance(alt, str) else alt or [_text(picture) for picture in pictures]
    if len(texts) != len(pictures):
        raise ImageError(
            f"The number of pictures is {len(pictures)}, that of the texts in alt {len(texts)}.",
            "Give one text for each picture.",
        )
    return HTML(" ".join(_img(picture, width, text) for picture, text in zip(pictures, texts)))


def _is_shipped(picture):
    return isinstance(picture, str) and picture in samples


def _text(picture):
    return samples.info(picture)["alt"] if _is_shipped(picture) else "A picture of your own"


def _img(picture, width, text):
    file = io.BytesIO()
    (samples[picture] if _is_shipped(picture) else load_image(picture)).save(file, "WEBP", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img style="{STYLE}" width="{width}" alt="{escape(text)}" src="data:image/webp;base64,{data}">'
