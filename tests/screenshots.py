"""Takes the README's pictures of the forms, in a real JupyterLab, light and dark: `make screenshots`."""

import os
import tempfile
from pathlib import Path

from browser import CHROMIUM, FLAGS, PATIENCE, Lab, Notebook
from nbtools import ENVIRONMENT, ROOT

FOLDER = ROOT / "docs"
LOAD = "import phi3v_helpers as p3v\n\nmodel = p3v.load()"
SHOTS = {  # name: (cells, code that brings the form to where it is shown, height of the window)
    "playground": (
        [
            LOAD,
            'form = p3v.playground(model, "shapes_1", "What shapes are in the image?")\nform',
        ],
        "form.run().wait(120)",
        1000,
    ),
    "chat": (
        [LOAD, 'form = p3v.chat_ui(model, "shapes_1")\nform'],
        "form.ask('What shapes are in the image?').wait(120); form.ask('Describe this image.').wait(120)",
        1000,
    ),
    "compare": (
        [
            LOAD,
            'form = p3v.compare_ui(model, images=["shapes_1", "shapes_2"], question="List the shapes.")\nform',
        ],
        "[job.wait(120) for job in form.run()]",
        900,
    ),
}


def take(lab, browser, name, dark):
    cells, code, height = SHOTS[name]
    page = browser.new_page(base_url=lab.url, viewport={"width": 1000, "height": height})
    page.set_default_timeout(PATIENCE * 1000)
    notebook = Notebook(page, lab, lab.write(cells, f"{name}{'-dark' if dark else ''}"))
    notebook.open()
    notebook.command("apputils:change-theme", {"theme": f"JupyterLab {'Dark' if dark else 'Light'}"})
    notebook.run()
    notebook.find("area").wait_for()
    notebook.python(code)
    page.wait_for_timeout(2000)  # thumbnails
    page.screenshot(path=FOLDER / f"{name}-{'dark' if dark else 'light'}.png")
    page.close()
    lab.end_kernels()


def main():
    from playwright.sync_api import sync_playwright

    os.environ.update(ENVIRONMENT)
    FOLDER.mkdir(exist_ok=True)
    lab = Lab(Path(tempfile.mkdtemp()))
    try:
        lab.wait()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for name in SHOTS:
                for dark in (False, True):
                    take(lab, browser, name, dark)
            browser.close()
    finally:
        lab.stop()


if __name__ == "__main__":
    main()
