"""Drop zone, thumbnails and copy button in a real JupyterLab and a real browser (see browser.py)."""

import hashlib
import os
from base64 import b64encode

import pytest

pytest_plugins = ["browser"]
pytestmark = pytest.mark.browser

SETUP = """
import ipywidgets
from PIL import Image
from phi3v_helpers.errors import Phi3VError
from phi3v_helpers.widgets import zone

files, notes, runs = [], [], []

def taken():
    import hashlib
    return [(name, hashlib.sha256(content).hexdigest()) for name, content in files]
"""

FORM = """
question = ipywidgets.Textarea().add_class("p3v-question")
drop = zone.drop_zone(lambda *file: files.append(file), notes.append, lambda: runs.append(question.value))
form = ipywidgets.VBox([drop, question]).add_class("p3v-form")
form
"""

# A DataTransfer with files, as the browser gives it to a page; each is [name, type, size, byte].
TRANSFER = """(files) => {
  const transfer = new DataTransfer();
  for (const [name, type, size, byte] of files)
    transfer.items.add(new File([new Uint8Array(size).fill(byte)], name, { type }));
  return transfer;
}"""

COPY_A_PICTURE = """async ([width, height, colour, text]) => {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, width, height);
  const kinds = { "image/png": await new Promise((resolve) => canvas.toBlob(resolve)) };
  if (text) kinds["text/plain"] = new Blob([text], { type: "text/plain" });
  await navigator.clipboard.write([new ClipboardItem(kinds)]);
}"""


def drag(notebook, where, files, event="drop"):
    """Files, each (name, type, size, byte), are dragged or dropped on an element."""
    transfer = notebook.page.evaluate_handle(TRANSFER, [list(file) for file in files])
    where.dispatch_event(event, {"dataTransfer": transfer, "bubbles": True, "cancelable": True})


def digest(content):
    return hashlib.sha256(content).hexdigest()


def test_files_are_chosen_from_the_keyboard(open_notebook, tmp_path):
    files = {"one.png": os.urandom(1000), "zwei ä.jpg": os.urandom(5_000_000)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    notebook = open_notebook(SETUP, FORM)
    page = notebook.page
    notebook.find("area").focus()
    page.keyboard.press("Tab")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    assert chooser.value.is_multiple()
    chooser.value.set_files([tmp_path / name for name in files])
    notebook.until("len(files) == 2")
    assert notebook.python("print(taken())") == str([(n, digest(c)) for n, c in files.items()])
    notebook.find("progress").wait_for(state="hidden")
    with page.expect_file_chooser() as chooser:
        notebook.find("choose").click()
    chooser.value.set_files([tmp_path / "one.png"])
    notebook.until("len(files) == 3")
    assert notebook.python("print(notes)") == "['', '']"


def test_files_are_dropped_anywhere_in_the_form(open_notebook):
    notebook = open_notebook(SETUP, FORM)
    area, question = notebook.find("area"), notebook.find("question").locator("textarea")
    two = [("a.png", "image/png", 3_000_000, 1), ("b.png", "image/png", 7, 2)]
    drag(notebook, question, two, "dragover")
    assert "p3v-over" in area.get_attribute("class")
    drag(notebook, area, two)
    assert "p3v-over" not in area.get_attribute("class")
    drag(notebook, question, [("c.png", "image/png", 0, 0), ("d.txt", "text/plain", 9, 3)])
    notebook.until("len(files) == 3")
    contents = {"a.png": b"\1" * 3_000_000, "b.png": b"\2" * 7, "c.png": b""}
    assert notebook.python("print(taken())") == str([(n, digest(c)) for n, c in contents.items()])
    assert "'d.txt' is no picture" in notebook.python("print(notes[-1])")
    drag(notebook, area, [])
    notebook.until("'no file' in notes[-1]")
    # what has nothing to do with the form stays with JupyterLab
    drag(notebook, notebook.page.locator(".jp-Cell-inputArea").first, two)
    notebook.find("progress").wait_for(state="hidden")
    assert notebook.python("print(len(files))") == "3"


def test_a_picture_is_pasted_by_the_keyboard(open_notebook):
    notebook = open_notebook(SETUP, FORM)
    page, question = notebook.page, notebook.find("question").locator("textarea")
    page.evaluate(COPY_A_PICTURE, [64, 48, "red", ""])
    notebook.find("area").focus()
    page.keyboard.press("Control+v")
    notebook.until("len(files) == 1")
    question.focus()
    page.keyboard.press("Control+v")
    notebook.until("len(files) == 2")
    look = "import io; print([Image.open(io.BytesIO(c)).size for _, c in files], files[0][0])"
    assert notebook.python(look) == "[(64, 48), (64, 48)] image.png"
    # text is pasted as text, even when a program put a picture of it beside it
    page.evaluate(COPY_A_PICTURE, [64, 48, "red", "Some text"])
    page.keyboard.press("Control+v")
    notebook.until("question.value == 'Some text'")
    page.evaluate("navigator.clipboard.writeText(', more')")
    page.keyboard.press("Control+v")
    notebook.until("question.value == 'Some text, more'")
    assert notebook.python("print(len(files))") == "2"


def test_a_large_file_passes_the_default_limit_of_messages(open_notebook, tmp_path):
    content = os.urandom(25_000_000)
    (tmp_path / "large.tif").write_bytes(content)
    notebook = open_notebook(SETUP, FORM)
    with notebook.page.expect_file_chooser() as chooser:
        notebook.find("choose").click()
    chooser.value.set_files([tmp_path / "large.tif"])
    notebook.find("progress").get_by_text("large.tif: ").wait_for()
    notebook.until("files")
    assert notebook.python("print(taken())") == str([("large.tif", digest(content))])
    notebook.find("progress").wait_for(state="hidden")


def test_ctrl_enter_runs_with_all_that_was_typed(open_notebook):
    # A form that is busy after each key: what is typed meanwhile waits in the page.
    slow = "import time; question.observe(lambda _: time.sleep(0.2), 'value')"
    notebook = open_notebook(SETUP, FORM, slow)
    text = "What is shown in this picture?"
    for times in range(1, 6):
        notebook.python("question.value = ''")
        notebook.page.wait_for_function("() => document.querySelector('.p3v-question textarea').value === ''")
        notebook.find("question").locator("textarea").focus()
        notebook.page.keyboard.type(text)
        notebook.page.keyboard.press("Control+Enter")
        notebook.until(f"len(runs) == {times}")
    assert notebook.python("print(runs)") == str([text] * 5)


def test_ctrl_enter_runs_the_cell_only_outside_the_form(open_notebook):
    notebook = open_notebook(SETUP, FORM, "1 + 1")
    counts = [cell["execution_count"] for cell in notebook.cells]
    for times, name in enumerate(("area", "choose", "question textarea"), start=1):
        notebook.page.locator(f".p3v-{name}").focus()
        notebook.page.keyboard.press("Control+Enter")
        notebook.until(f"len(runs) == {times}")
    notebook.page.locator(".jp-Cell").last.locator(".cm-content").focus()
    notebook.page.keyboard.press("Control+Enter")
    notebook.page.wait_for_function(
        "(count) => jupyterapp.shell.currentWidget.content.model.toJSON().cells.at(-1).execution_count > count",
        arg=counts[-1],
    )
    assert [cell["execution_count"] for cell in notebook.cells[:-1]] == counts[:-1]
    assert notebook.python("print(len(runs))") == "3"


def test_two_views_do_nothing_twice(open_notebook):
    second = "ipywidgets.VBox([drop]).add_class('p3v-form')"
    again = "box = ipywidgets.VBox([drop]).add_class('p3v-form'); box"
    notebook = open_notebook(SETUP, FORM, second, again)
    page, area = notebook.page, notebook.find("area")
    area.nth(2).wait_for()
    notebook.python("box.children = []")
    notebook.page.wait_for_function("() => document.querySelectorAll('.p3v-area').length === 2")
    notebook.python("box.children = [drop]")
    area.nth(2).wait_for()
    for number in range(3):
        drag(notebook, area.nth(number), [(f"{number}.png", "image/png", 10, number)])
        notebook.until(f"len(files) == {number + 1}")
        area.nth(number).focus()
        page.keyboard.press("Control+Enter")
        notebook.until(f"len(runs) == {number + 1}")
    # a round trip later, a doubled event would be there
    drag(notebook, area.first, [("last.png", "image/png", 10, 9)])
    notebook.until("len(files) >= 4")
    names = "[name for name, _ in files]"
    assert notebook.python(f"print({names}, len(runs))") == "['0.png', '1.png', '2.png', 'last.png'] 3"


THUMBNAIL = """
picture = Image.effect_noise((600, 300), 90).convert("RGB")
view = zone.thumbnail(picture, "Some noise")
small = view._content if zone.has_anywidget() else None
view
"""


def test_a_thumbnail_is_shown_in_every_view(open_notebook):
    notebook = open_notebook(SETUP, THUMBNAIL, "box = ipywidgets.HBox([view]); box")
    pictures = notebook.find("thumbnail").get_by_role("img", name="Some noise")
    notebook.python("box.children = []; box.children = [view]")
    for number in range(2):
        pictures.nth(number).wait_for()
        notebook.page.wait_for_function(
            "(img) => img.naturalWidth === 288", arg=pictures.nth(number).element_handle()
        )
        box = pictures.nth(number).bounding_box()
        assert (round(box["width"]), round(box["height"])) == (146, 74)  # with its frame
    assert pictures.count() == 2


COPY = """
def make_text():
    if trouble:
        raise Phi3VError("There is no picture.", "Add one.")
    return "print('copied ä')"

trouble = False
button = zone.copy_button("Copy as code", make_text)
button
"""


def test_the_copy_button_fills_the_clipboard(open_notebook):
    notebook = open_notebook(SETUP, COPY, "button")
    page, button = notebook.page, notebook.find("copy").first.get_by_role("button")
    page.evaluate("navigator.clipboard.writeText('before')")
    button.click()
    notebook.find("copy").get_by_text("Copied", exact=True).wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "print('copied ä')"
    assert notebook.find("copy").nth(1).inner_text() == "Copy as code", "the other view did nothing"
    notebook.find("copy").first.get_by_text("Copy as code").wait_for()
    # where the newer way is refused, as on a page without https, there is the older one
    page.evaluate("navigator.clipboard.writeText('before')")
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject() }")
    button.click()
    notebook.find("copy").get_by_text("Copied", exact=True).wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "print('copied ä')"
    page.evaluate("() => { document.execCommand = () => false }")
    button.click()
    notebook.find("copy").get_by_text("Select and copy the text below").wait_for()
    notebook.python("trouble = True")
    button.click()
    notebook.find("copy").get_by_text("There is no picture. Add one.").wait_for()


def traces(content):
    """How parts of a file would look within a notebook: a widget's state holds bytes in base64."""
    middle = content[len(content) // 3 :]
    return [b64encode(middle[start:])[4:44].decode() for start in range(3)]


@pytest.mark.parametrize("has_anywidget", [True, False])
def test_a_notebook_saved_with_its_state_holds_no_picture(open_notebook, tmp_path, has_anywidget):
    content = os.urandom(300_000)
    (tmp_path / "secret.png").write_bytes(content)
    notebook = open_notebook(SETUP, f"if not {has_anywidget}: zone.anywidget = None", FORM, THUMBNAIL)
    chooser_button = notebook.find("choose" if has_anywidget else "upload")
    with notebook.page.expect_file_chooser() as chooser:
        chooser_button.click()
    chooser.value.set_files([tmp_path / "secret.png"])
    notebook.until("files")
    assert notebook.python("print(taken())") == str([("secret.png", digest(content))])
    notebook.find("thumbnail").locator("img").wait_for()
    saved = notebook.save()
    assert "application/vnd.jupyter.widget-state+json" in saved and "p3v-question" in saved
    assert not [trace for trace in traces(content) if trace in saved]
    if has_anywidget:
        assert "secret" not in saved.replace("secret.png", "", 0)
        small = bytes.fromhex(notebook.python("print(small.hex())"))
        assert len(small) > 3000 and not [trace for trace in traces(small) if trace in saved]
        assert "Some noise" not in "".join(
            line for line in saved.splitlines() if "zone.thumbnail" not in line
        )
