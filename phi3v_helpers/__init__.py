"""phi3v_helpers: ask Phi-3-vision about pictures, or its tiny embedded relative where there is no GPU.

    import phi3v_helpers as p3v
    model = p3v.load()
    model.ask(p3v.samples["stock_chart"], "Could you please introduce this stock to me?")

Names are loaded when first used: importing the package itself needs neither torch nor numpy nor PIL.
"""

from importlib import import_module

__version__ = "0.1.0"

# public name -> the module that defines it
_HOME = {
    "load": "loading",
    "Phi3Vision": "vision",
    "Answer": "answers",
    "Chat": "chat",
    "Found": "data.objects",
    "batch": "folders",
    "tune": "tuning",
    "memory": "memory_use",
    "estimate": "estimates",
    "build_prompt": "prompts",
    "load_image": "images",
    "pages": "images",
    "frames": "images",
    "playground": "widgets.playground",
    "chat_ui": "widgets.chat",
    "compare_ui": "widgets.compare",
    "upload_and_ask": "widgets.upload",
    "show": "showing",
    "Phi3VError": "errors",
    "ImageError": "errors",
    "PromptError": "errors",
    "LoadError": "errors",
}
# modules that are used as they are: p3v.samples["stock_chart"], p3v.demo()
_MODULES = ("samples", "demo", "doctor", "model")

__all__ = ["__version__", *_HOME, *_MODULES]


def __getattr__(name):
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next use finds it at once
    return value


def __dir__():
    return sorted(__all__)
