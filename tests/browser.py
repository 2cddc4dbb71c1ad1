"""A real JupyterLab in a real browser: fixtures for the tests with the marker `browser`.

A test file says `pytest_plugins = ["browser"]` and takes the fixture `open_notebook`. Without Chromium, or without
Playwright, such tests are skipped. JupyterLab, its settings and its kernels live in temporary folders; neither the
page nor a kernel can reach anything but this machine.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from urllib.parse import urlsplit

import nbformat
import offline
import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "google-chrome", "google-chrome-stable"))),
    None,
)
PATIENCE = 120  # seconds for anything to appear: beside other work, JupyterLab is slow to open a notebook

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

SETTINGS = {
    # The state of the widgets is saved with each notebook: what must not be in there shall be found.
    "@jupyter-widgets/jupyterlab-manager/plugin": {"saveState": True},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

# Run by IPython when a kernel starts.
OFFLINE = f"__import__('runpy').run_path({offline.__file__!r})['stay_here']()\n"


# --- Fixtures -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A running JupyterLab."""
    if not CHROMIUM:
        pytest.skip("there is no Chromium or Chrome here; `make browser` says how to get one")
    pytest.importorskip("playwright", reason="Playwright is not installed")
    server = Lab(tmp_path_factory.mktemp("lab"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")  # not longer: until it is closed, nothing else here may use asyncio
def context(lab):
    """A browser's context, of Playwright; pages that share it load JupyterLab faster than the first."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(
            base_url=lab.url,
            viewport={"width": 1100, "height": 900},
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(PATIENCE * 1000)
        yield context
        browser.close()


@pytest.fixture
def open_notebook(lab, context):
    """open_notebook(cell, cell, …, dark=False) makes a notebook, opens it, runs it, and returns a Notebook."""
    asked_for = []

    def note(request):
        asked_for.append(request.url)

    def open_one(*cells, dark=False):
        notebook = Notebook(context.new_page(), lab, lab.write(cells))
        notebook.open()
        notebook.command("apputils:change-theme", {"theme": f"JupyterLab {'Dark' if dark else 'Light'}"})
        notebook.run()
        return notebook

    context.on("request", note)
    yield open_one
    context.remove_listener("request", note)
    for page in context.pages:
        page.close()
    lab.end_kernels()
    foreign = [url for url in asked_for if urlsplit(url).hostname not in (None, "127.0.0.1")]
    assert not foreign, f"the page wanted something from elsewhere: {foreign}"


# --- JupyterLab -----------------------------------------------------------------------------------


class Lab:
    """A JupyterLab server that owns a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.notebooks = folder / "notebooks"
        self.notebooks.mkdir()
        self.url = f"http://127.0.0.1:{free_port()}"
        self._log = folder / "log.txt"
        write_settings(folder)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(), cwd=self.notebooks, env=self._environment(), stdout=log, stderr=log
            )

    def _command(self):
        port = urlsplit(self.url).port
        return [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
            *(f"--port={port}", "--ServerApp.port_retries=0", "--expose-app-in-browser"),
            *("--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True"),
            *("--LabApp.extension_manager=readonly", f"--ServerApp.root_dir={self.notebooks}"),
        ]

    def _environment(self):
        """That of these tests (see conftest.py), but with nothing of this user's Jupyter."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "JPY_"))}
        folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        return {**mine, **{name: str(self.folder / name) for name in folders}}

    def wait(self):
        """Until it answers."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return self.api("status")
            except OSError:
                log = self._log.read_text(errors="replace")[-3000:]
                assert self._process.poll() is None, f"JupyterLab ended:\n{log}"
                assert time.monotonic() < end, f"JupyterLab did not start:\n{log}"
                time.sleep(0.1)

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def api(self, path, method="GET"):
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def end_kernels(self):
        for session in self.api("sessions"):
            self.api(f"sessions/{session['id']}", "DELETE")

    def write(self, cells, name=None):
        """A new notebook with these code cells; returns its path."""
        nb = nbformat.v4.new_notebook()
        nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nb.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
        path = self.notebooks / f"{name or len(list(self.notebooks.iterdir()))}.ipynb"
        nbformat.write(nb, path)
        return path


def write_settings(folder):
    for name, settings in SETTINGS.items():
        path = folder / "JUPYTER_CONFIG_DIR" / "lab" / "user-settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(settings))
    startup = folder / "IPYTHONDIR" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "offline.py").write_text(OFFLINE)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- A notebook in the browser --------------------------------------------------------------------

# Clicking a cell and pressing keys is lost now and then while JupyterLab still starts; its own commands are not.
READY = """async () => {
  await jupyterapp.restored;
  const panel = jupyterapp.shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
}"""

IN_KERNEL = """async (code) => {
  const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const future = kernel.requestExecute({ code, store_history: false });
  let [text, error] = ["", ""];
  future.onIOPub = ({ header, content }) => {
    if (header.msg_type === "stream") text += content.text;
    if (header.msg_type === "error") error = content.traceback.join("\\n");
  };
  await future.done;
  return { text, error };
}"""


class Notebook:
    """A notebook in an open page (`page`, of Playwright)."""

    def __init__(self, page, lab, path):
        self.page, self.lab, self.path = page, lab, path
        # Else Chromium is told to hand over its choosers only when one is expected: a quick key comes first.
        page.on("filechooser", lambda _: None)

    def open(self):
        self.page.goto(f"/doc/tree/{self.path.name}?reset")
        self.page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.context")
        self.page.evaluate(READY)

    def command(self, name, arguments=None):
        """Run a command of JupyterLab, to its end."""
        self.page.evaluate(
            "async ([name, told]) => { await jupyterapp.commands.execute(name, told) }",
            [name, arguments or {}],
        )

    def run(self):
        """Run all cells; none may fail."""
        self.command("notebook:run-all-cells")
        for cell in self.cells:
            for output in cell.get("outputs", []):
                assert output["output_type"] != "error", "\n".join(output["traceback"])

    @property
    def cells(self):
        return self.page.evaluate("() => jupyterapp.shell.currentWidget.content.model.toJSON().cells")

    def find(self, name):
        """What has the class p3v-<name> (a Locator)."""
        return self.page.locator(f".p3v-{name}")

    def python(self, code):
        """Run code in the notebook's kernel, beside its cells; returns what it prints, without the last newline."""
        result = self.page.evaluate(IN_KERNEL, code)
        assert not result["error"], result["error"]
        return result["text"].removesuffix("\n")

    def until(self, expression, seconds=PATIENCE):
        """Wait until a Python expression is true in the kernel."""
        end = time.monotonic() + seconds
        while self.python(f"print(bool({expression}))") != "True":
            assert time.monotonic() < end, f"never true: {expression}"

    def save(self):
        """Save as JupyterLab does; returns the text of the file."""
        self.command("docmanager:save")
        return self.path.read_text(encoding="utf-8")
