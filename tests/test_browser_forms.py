"""Playground, chat and comparison in a real JupyterLab and a real browser (see browser.py), with a random model."""

import re
import time

import pytest
from forms import BLUE, RED, png
from random_model import random_folder
from test_browser_zone import COPY_A_PICTURE, drag

pytest_plugins = ["browser"]
pytestmark = pytest.mark.browser

LOAD = f"""
import phi3v_helpers as p3v
model = p3v.load({str(random_folder())!r}, verbose=False)
"""
PLAYGROUND = """
form = p3v.playground(model, question="What is this?")
form
"""
CHAT = """
form = p3v.chat_ui(model)
form
"""
# A form is ready when its zone, which comes last, is there.
STATE = "print(form.history[-1]['state'] if form.history else '')"


def open_form(open_notebook, form=PLAYGROUND, tokens=30, **options):
    notebook = open_notebook(LOAD, form, **options)
    notebook.find("area").wait_for()
    notebook.python(f"form._settings._length.value = {tokens}")
    return notebook


def choose(notebook, tmp_path, *files):
    for name, content in files:
        (tmp_path / name).write_bytes(content)
    with notebook.page.expect_file_chooser() as chooser:
        notebook.find("choose").click()
    chooser.value.set_files([tmp_path / name for name, _ in files])


def shown(notebook, name="answer"):
    return notebook.find(name).first.inner_text()


def type_question(notebook, text):
    notebook.find("question").locator("textarea").fill(text)


def test_choose_edit_run_and_ask_again(open_notebook, tmp_path):
    notebook = open_form(open_notebook)
    choose(notebook, tmp_path, ("red.png", RED), ("blue.png", BLUE))
    notebook.find("card").nth(1).wait_for()
    assert "1 · red.png" in notebook.find("card").first.inner_text()
    assert re.search(r"40 × 30 · \d+ tokens", notebook.find("card").first.inner_text())
    for number, question in enumerate(("Which is red?", "Which is blue?"), start=1):
        type_question(notebook, question)
        notebook.find("run").click()
        notebook.until(f"len(form.history) == {number}")
    assert notebook.python("print([turn['question'] for turn in form.history])") == (
        "['Which is red?', 'Which is blue?']"
    )
    same = "form.history[-1]['answer'] == model.ask(form._tray.images, 'Which is blue?', max_new_tokens=30)"
    assert notebook.python(f"print({same})") == "True"
    notebook.find("status").get_by_text("30 out").wait_for()


def test_the_text_grows_and_stop_is_prompt(open_notebook, tmp_path):
    notebook = open_form(open_notebook, tokens=3000)
    choose(notebook, tmp_path, ("red.png", RED))
    notebook.find("card").wait_for()
    notebook.find("run").click()
    lengths = set()
    end = time.monotonic() + 60
    while len(lengths) < 4:
        lengths.add(len(shown(notebook)))
        assert time.monotonic() < end, f"the text does not grow: {lengths}"
    assert notebook.find("run").is_disabled()
    # The time from the click to the end, as the kernel has it, and as the page does.
    notebook.python(
        "import time; clicked = []; form._stop.on_click(lambda _: clicked.append(time.monotonic()))"
    )
    note = "lambda change: ended.append(time.monotonic()) if change['new'] else None"
    notebook.python(f"ended = []; form._stop.observe({note}, 'disabled')")
    notebook.find("stop").click()
    notebook.page.wait_for_function("() => document.querySelector('.p3v-stop').disabled")
    assert float(notebook.python("print(ended[0] - clicked[0])")) < 0.5
    notebook.find("status").get_by_text("cut short").wait_for()
    text = shown(notebook)
    assert notebook.python("import time; time.sleep(0.5); print(form.history[-1]['state'])") == "stopped"
    assert shown(notebook) == text and not notebook.find("run").is_disabled()


def test_drop_and_paste_then_reorder_and_remove(open_notebook):
    notebook = open_form(open_notebook)
    page = notebook.page
    page.evaluate(COPY_A_PICTURE, [64, 48, "red", ""])
    notebook.find("question").locator("textarea").focus()
    page.keyboard.press("Control+v")
    notebook.find("card").wait_for()
    assert "image.png" in notebook.find("card").inner_text()
    drag(notebook, notebook.find("area"), [("no.png", "image/png", 10, 1)])
    notebook.find("trouble").get_by_text("not a picture").wait_for()
    page.evaluate(COPY_A_PICTURE, [32, 32, "blue", ""])
    notebook.find("area").focus()
    page.keyboard.press("Control+v")
    notebook.find("card").nth(1).wait_for()
    notebook.find("later").first.click()
    notebook.until("[image.size for image in form._tray.images] == [(32, 32), (64, 48)]")
    notebook.find("remove").nth(1).click()
    notebook.until("[image.size for image in form._tray.images] == [(32, 32)]")
    notebook.find("run").click()
    notebook.until("form.history")


def test_everything_from_the_keyboard(open_notebook):
    notebook = open_form(open_notebook, tokens=3000)
    page = notebook.page
    notebook.find("address").locator("input").focus()
    page.keyboard.type("shapes_1")
    page.keyboard.press("Enter")
    notebook.find("card").wait_for()
    notebook.find("question").locator("textarea").focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("How many?")
    page.keyboard.press("Control+Enter")
    notebook.until("form._controller.busy and form._view._body.value")
    # From the question, Tab leads over Run, which is asleep, to Stop.
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.classList.contains('p3v-stop')"):
            break
    page.keyboard.press("Enter")
    notebook.until("form.history")
    assert (
        notebook.python("print(form.history[0]['question'], form.history[0]['state'])") == "How many? stopped"
    )
    reached = page.evaluate(
        """() => [...document.querySelectorAll('.p3v-form :is(button, input, textarea, select)')]
          .filter((e) => e.offsetParent && !e.disabled && e.tabIndex < 0 && e.type !== 'file')
          .map((e) => e.outerHTML)"""
    )
    assert reached == [], "these cannot be reached with Tab"


def test_every_control_has_a_name(open_notebook):
    notebook = open_form(open_notebook)
    notebook.python("form._tray.add('shapes_1'); form.children[-1].selected_index = 0")
    notebook.find("remove").wait_for()
    notebook.find("thumbnail").get_by_role("img", name=re.compile("circle|square|star")).wait_for()
    nameless = notebook.page.evaluate(
        """() => [...document.querySelectorAll('.p3v-form :is(button, input, textarea, select, img)')]
          .filter((e) => e.offsetParent && e.type !== 'file'
            && !(e.innerText || e.alt || e.title || e.ariaLabel || e.labels?.[0]?.innerText))
          .map((e) => e.outerHTML)"""
    )
    assert nameless == []


def test_copy_as_code_pasted_into_a_new_cell_gives_the_same_answer(open_notebook, tmp_path):
    notebook = open_form(open_notebook)
    page = notebook.page
    choose(notebook, tmp_path, ("my photo.png", png("green", (60, 40))))
    notebook.find("card").wait_for()
    notebook.find("run").click()
    notebook.until("form.history")
    notebook.find("copy").get_by_role("button").click()
    notebook.find("copy").get_by_text("Copied", exact=True).wait_for()
    notebook.command("notebook:insert-cell-below")
    page.locator(".jp-Cell.jp-mod-active .cm-content").focus()
    page.keyboard.press("Control+v")
    notebook.command("notebook:run-cell")
    notebook.until("'answer' in globals()")
    assert notebook.python("print(answer == form.history[0]['answer'])") == "True"
    assert (notebook.path.parent / "phi3v-pictures" / "my-photo.png").exists()


def test_what_is_wrong_is_told_in_place_and_nothing_else_changes(open_notebook, tmp_path):
    notebook = open_form(open_notebook)
    choose(notebook, tmp_path, ("red.png", RED), ("page.png", b"<html>403</html>"))
    notebook.find("trouble").get_by_text("a web page, not a picture").wait_for()
    assert notebook.find("card").count() == 1
    notebook.find("address").locator("input").fill("nowhere.png")
    notebook.find("add").click()
    notebook.find("trouble").get_by_text("There is no file 'nowhere.png'").wait_for()
    type_question(notebook, " ")
    notebook.find("run").click()
    notebook.find("answer-trouble").get_by_text("The question is empty.").wait_for()
    type_question(notebook, "What?")
    notebook.find("run").click()
    notebook.until("form.history[-1]['state'] == 'done'")
    assert shown(notebook, "answer-trouble") == ""


def test_a_chat_with_a_picture_added_and_a_question_edited(open_notebook, tmp_path):
    notebook = open_form(open_notebook, CHAT)
    choose(notebook, tmp_path, ("red.png", RED))
    notebook.find("card").wait_for()
    for number, question in enumerate(("One?", "Two?"), start=1):
        type_question(notebook, question)
        notebook.find("run").click()
        notebook.find("turn").nth(number - 1).wait_for()
    choose(notebook, tmp_path, ("blue.png", BLUE))
    notebook.find("card").nth(1).wait_for()
    assert notebook.find("remove").count() == 1  # the first picture belongs to what was said
    notebook.find("edit").nth(1).click()
    notebook.page.wait_for_function("() => document.querySelector('.p3v-question textarea').value === 'Two?'")
    type_question(notebook, "And both?")
    notebook.find("run").click()
    notebook.until("[question for question, _ in form.history] == ['One?', 'And both?']")
    assert notebook.python("print(form._talk.counts)") == "[1, 1]"
    assert "And both?" in notebook.find("turn").nth(1).inner_text()


def test_two_answers_side_by_side(open_notebook):
    compare = "form = p3v.compare_ui(model, images=['shapes_1', 'stock_chart'], question='What?')\nform"
    notebook = open_notebook(LOAD, compare)
    notebook.find("area").wait_for()
    notebook.python("for settings in form._settings: settings._length.value = 20")
    notebook.find("run").click()
    notebook.until("form.results")
    notebook.find("verdict").get_by_text(notebook.python("print(form.results[0]['verdict'])")).wait_for()
    left, right = notebook.find("left-answer"), notebook.find("right-answer")
    assert left.inner_text() == notebook.python("print(form.results[0]['left']['answer'])")
    marked = [side.locator("mark").count() for side in (left, right)]
    same = notebook.python("print(form.results[0]['left']['answer'] == form.results[0]['right']['answer'])")
    assert (sum(marked) == 0) == (same == "True")
    one, two = left.bounding_box(), right.bounding_box()
    assert one["x"] + one["width"] <= two["x"] and abs(one["y"] - two["y"]) < 30
    notebook.page.set_viewport_size({"width": 560, "height": 900})
    notebook.page.wait_for_function(
        "() => document.querySelector('.p3v-left-answer').getBoundingClientRect().bottom"
        " <= document.querySelector('.p3v-right-answer').getBoundingClientRect().top"
    )


def test_an_interrupted_and_a_restarted_kernel(open_notebook, tmp_path):
    chat = CHAT.replace("model)", f"model, 'shapes_1', keep={str(tmp_path / 'talk.json')!r})")
    notebook = open_form(open_notebook, chat, tokens=3000)
    type_question(notebook, "One?")
    notebook.find("run").click()
    notebook.until("form._view._body.value")
    notebook.command("notebook:interrupt-kernel")
    notebook.find("stop").click()
    notebook.find("turn").wait_for()
    notebook.python("form._settings._length.value = 5")
    type_question(notebook, "Two?")
    notebook.find("run").click()
    notebook.find("turn").nth(1).wait_for()
    before = notebook.python("print(form.history)")
    notebook.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
    notebook.run()
    notebook.find("turn").nth(1).wait_for()
    assert notebook.python("print(form.history)") == before
    notebook.python("form._settings._length.value = 5")
    type_question(notebook, "Three?")
    notebook.find("run").click()
    notebook.find("turn").nth(2).wait_for()


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read_in_light_and_dark(open_notebook, dark):
    notebook = open_form(open_notebook, PLAYGROUND.replace("model,", "model, 'shapes_1',"), dark=dark)
    notebook.find("run").click()
    notebook.until("form.history")
    notebook.python("form._panel.complain('Something is wrong.')")
    notebook.find("trouble").get_by_text("Something is wrong.").wait_for()
    poor = notebook.page.evaluate(CONTRAST)
    assert poor == [], "less than 4.5 to 1"


# The contrast of all texts in the form, with dimming and the backgrounds behind them: those of less than 4.5.
CONTRAST = """() => {
  const numbers = (colour) => { const n = colour.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const over = ([r, g, b, a], back) => [r, g, b].map((c, i) => c * a + back[i] * (1 - a));
  const parents = (e) => e ? [...parents(e.parentElement), e] : [];
  const light = (rgb) => rgb.map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const poor = [];
  for (const e of document.querySelectorAll('.p3v-form *')) {
    const text = [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join('');
    if (!text || !e.offsetParent || e.disabled) continue;
    let back = [255, 255, 255], opacity = 1;
    for (const p of parents(e)) {
      const style = getComputedStyle(p);
      back = over(numbers(style.backgroundColor), back);
      opacity *= Number(style.opacity);
    }
    const [r, g, b, a] = numbers(getComputedStyle(e).color);
    const [one, two] = [light(over([r, g, b, a * opacity], back)), light(back)].sort((x, y) => y - x);
    const ratio = (one + 0.05) / (two + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(1)}: ${text.slice(0, 60)}`);
  }
  return poor;
}"""
