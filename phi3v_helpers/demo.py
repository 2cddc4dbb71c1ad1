"""The three questions of the lessons, in the terminal: `phi3v demo`, or `p3v.demo()`."""

import sys
import types

# (shipped pictures, question): the scenarios of the chapter that this tutorial grew from, word for word
QUESTIONS = (
    (("stock_chart",), "Could you please introduce this stock to me?"),
    (("book_cover",), "Help me get the title and author information of this book?"),
    (("shapes_1", "shapes_2"), "What is difference in this two images?"),
)


def demo(model="auto", **options):
    """Ask the three questions and print what comes back, piece by piece, with model, tokens and seconds.

    model: a name for `phi3v_helpers.load`, or a Phi3Vision. options: further arguments of `load`.
    Returns the three Answers. Raises Phi3VError.
    """
    from . import samples
    from .loading import load

    vision = load(model, **options) if isinstance(model, str) else model
    return [_ask(vision, [samples.path(name) for name in names], question) for names, question in QUESTIONS]


def _ask(vision, pictures, question):
    print(f"\n[{', '.join(path.name for path in pictures)}] {question}")
    stream = vision.stream(pictures, question)
    for piece in stream:
        print(piece, end="", flush=True)
    print(f"\n  {stream.answer.summary()}")
    return stream.answer


class _Demo(types.ModuleType):
    """A module that can be called: `p3v.demo()` works, even after `import phi3v_helpers.demo`."""

    def __call__(self, *args, **options):
        return demo(*args, **options)


sys.modules[__name__].__class__ = _Demo
