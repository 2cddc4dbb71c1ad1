"""Every page of a document, a folder or an iterable; a page that fails is a result."""

import io

import numpy as np
import pytest
from corpus import encode, numbered
from helpful import helpful
from PIL import Image
from pydantic import BaseModel, Field

import phi3v_helpers as p3v
from phi3v_helpers.errors import ImageError, Phi3VError, PromptError

RED = Image.new("RGB", (40, 28), "red")
SHORT = {"max_new_tokens": 3, "progress": False}


class Total(BaseModel):
    total: int = Field(ge=0, le=99)


def pdf(count=3):
    first, *rest = numbered(count)
    return encode(first, "PDF", save_all=True, append_images=rest, resolution=150)


def test_pages_of_a_document(model, tmp_path):
    pytest.importorskip("pypdfium2")
    (tmp_path / "a.pdf").write_bytes(pdf(3))
    for source in (
        tmp_path / "a.pdf",
        str(tmp_path / "a.pdf"),
        pdf(3),
        io.BytesIO(pdf(3)),
        p3v.pages(pdf(3)),
    ):
        results = dict(model.each_page(source, "extract", Total, progress=False))
        assert list(results) == [1, 2, 3]
        assert results == {n: model.extract(page, Total) for n, page in enumerate(p3v.pages(pdf(3)), start=1)}


@pytest.mark.parametrize("method", ["ask", "read_text", "read_table", "extract", "find_objects"])
def test_every_method(model, method):
    arguments = {"ask": ["What?"], "extract": [{"type": "boolean"}]}.get(method, [])
    (found,) = model.each_page([RED], method, *arguments, max_new_tokens=40, progress=False)
    try:
        assert found[0] == 1 and str(found[1]) == str(
            getattr(model, method)(RED, *arguments, max_new_tokens=40)
        )
    except Phi3VError as error:
        assert str(error) == str(found[1])


def test_a_folder_in_the_order_of_its_names(model, tmp_path):
    pytest.importorskip("pypdfium2")
    for name in ("page10.png", "page2.png", ".hidden"):
        (tmp_path / name).write_bytes(encode(RED, "PNG"))
    (tmp_path / "page3.pdf").write_bytes(pdf(2))
    (tmp_path / "page4.pdf").write_bytes(pdf(1))
    (tmp_path / "page5.png").write_bytes(b"nothing")
    (tmp_path / "page6.pdf").write_bytes(pdf(1)[:60])
    (tmp_path / "within").mkdir()
    results = dict(model.each_page(tmp_path, "read_text", **SHORT))
    good = ["page2.png", "page3.pdf#page=1", "page3.pdf#page=2", "page4.pdf"]
    assert list(results) == [*good, "page5.png", "page6.pdf", "page10.png"]
    assert isinstance(results["page5.png"], ImageError) and isinstance(results["page6.pdf"], ImageError)
    assert all(isinstance(results[name], p3v.Answer) for name in (*good, "page10.png"))


def test_a_page_that_fails_is_a_result_and_not_the_end(model):
    pages = [RED, "nowhere.png", np.zeros((4, 4)), RED]
    results = [result for _, result in model.each_page(pages, "ask", "What?", **SHORT)]
    assert [isinstance(result, ImageError) for result in results] == [False, True, False, False]
    cut = list(model.each_page([RED], "read_table", **SHORT))
    assert "max_new_tokens" in str(cut[0][1])


def test_an_iterator_that_fails(model):
    def some():
        yield RED
        raise ImageError("Page 2 is gone.", "Find it.")

    results = list(model.each_page(some(), "read_text", **SHORT))
    assert [number for number, _ in results] == [1, 2] and str(results[1][1]) == "Page 2 is gone. Find it."


def test_pages_are_done_when_they_are_asked_for(model):
    taken = []
    results = model.each_page((taken.append(n) or RED for n in range(9)), "read_text", **SHORT)
    next(results)
    assert taken == [0]


def test_one_picture_of_any_kind(model, tmp_path):
    (tmp_path / "a.png").write_bytes(encode(RED, "PNG"))
    for source in (
        RED,
        np.asarray(RED),
        tmp_path / "a.png",
        encode(RED, "PNG"),
        io.BytesIO(encode(RED, "PNG")),
    ):
        assert [number for number, _ in model.each_page(source, "read_text", **SHORT)] == [1]


def test_a_progress_bar(model, capsys):
    list(model.each_page([RED, RED], "read_text", max_new_tokens=3))
    assert "2/2" in capsys.readouterr().err
    list(model.each_page([RED, RED], "read_text", **SHORT))
    assert capsys.readouterr().err == ""


def test_what_is_wrong_for_every_page_is_said_at_once(model, tmp_path):
    with helpful(PromptError, "no method 'chat'", "read_table"):
        model.each_page([RED], "chat")
    with helpful(PromptError, "schema"):
        model.each_page([RED], "extract", {"type": "strin"})
    with helpful(PromptError, "schema"):
        model.each_page([RED], "extract", schema=5)
    with helpful(PromptError, "temperature"):
        model.each_page([RED], "read_table", numbers=False, temperature=-1)
    with helpful(PromptError, "empty"):
        model.each_page([RED], "ask", " ")
    with pytest.raises(TypeError):
        model.each_page([RED], "extract")
    with helpful(ImageError, "There is no file"):
        model.each_page("nowhere.pdf", "read_text")
    with helpful(ImageError, "no files"):
        model.each_page(tmp_path, "read_text")
    with helpful(ImageError, "no picture"):
        model.each_page(5, "read_text")
