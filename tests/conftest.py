"""All tests run offline, on the CPU, each process with one thread; `make test` starts two processes."""

import os
import tempfile

import pytest
from nbtools import ENVIRONMENT
from offline import stay_here

# Before torch or a kernel starts. To test on a GPU, name it: CUDA_VISIBLE_DEVICES=0 make test
os.environ.update({name: os.environ.get(name) or value for name, value in ENVIRONMENT.items()})

# A user's own IPython start-up files must not change what a notebook prints.
_ipython = tempfile.TemporaryDirectory()
os.environ["IPYTHONDIR"] = _ipython.name

# Pictures that tests fetch are not kept among the user's own.
_pictures = tempfile.TemporaryDirectory()
os.environ["PHI3V_CACHE"] = _pictures.name

stay_here()


# torch is imported in the fixtures, as the environment must be set before.


@pytest.fixture(scope="module")
def model():
    """A model with random weights."""
    from random_model import random_folder

    import phi3v_helpers as p3v

    return p3v.load(random_folder(), verbose=False)


@pytest.fixture(scope="module")
def tiny():
    """The model that ships."""
    import phi3v_helpers as p3v

    return p3v.load("tiny", verbose=False)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A model of the same shape that says something else; its name is "other"."""
    from random_model import make_folder

    import phi3v_helpers as p3v

    return p3v.load(make_folder(tmp_path_factory.mktemp("models") / "other", seed=1), verbose=False)


@pytest.fixture(params=["anywidget", "ipywidgets alone"])
def kind(request, monkeypatch):
    """Both kinds of a form's parts: those with JavaScript of their own, and those that stand in."""
    from phi3v_helpers.widgets import zone

    if request.param == "ipywidgets alone":
        monkeypatch.setattr(zone, "anywidget", None)
    return request.param
