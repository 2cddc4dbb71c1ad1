"""Pictures in a notebook, each with a text for those who cannot see it."""

import base64
import io
import re

import pytest
from PIL import Image

import phi3v_helpers as p3v


def pictures_in(shown):
    """[(alt, width, PIL image)] of the HTML."""
    found = re.findall(
        r'<img style="[^"]*" width="(\d+)" alt="([^"]*)" src="data:image/webp;base64,([^"]+)">', shown.data
    )
    return [(alt, int(width), Image.open(io.BytesIO(base64.b64decode(data)))) for width, alt, data in found]


def test_shipped_pictures_bring_their_text():
    (alt, width, image), (other, *_) = pictures_in(p3v.show("shapes_1", "book_cover", width=200))
    assert alt == p3v.samples.info("shapes_1")["alt"] and "ALONE" in other and width == 200
    assert image.size == p3v.samples["shapes_1"].size


def test_pictures_of_your_own_and_text_that_is_no_markup():
    own = Image.new("RGB", (30, 20), "red")
    [(alt, _, image)] = pictures_in(p3v.show(own, alt='a "red" <b>square</b>'))
    assert alt == "a &quot;red&quot; &lt;b&gt;square&lt;/b&gt;" and image.size == (30, 20)


def test_texts_must_fit_the_pictures():
    with pytest.raises(p3v.ImageError, match="pictures is 2, that of the texts in alt 1"):
        p3v.show("shapes_1", "shapes_2", alt=["one"])
    with pytest.raises(p3v.ImageError):
        p3v.show("no-such-file.png")
