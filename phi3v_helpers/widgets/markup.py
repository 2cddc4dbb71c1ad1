"""What people and models write, as HTML that is safe to show.

An HTML widget shows what it is given, scripts and all, and a model repeats what a picture says. So tags in a text are
shown and not obeyed, links lead to the web or nowhere, and pictures from elsewhere are not fetched.
"""

import difflib
import re
from functools import cache
from html import escape

_WORDS = re.compile(r"\s+|[^\W_]+|.", re.DOTALL)  # spaces, words and numbers, single marks
_MARK = "background: rgba(255, 165, 0, 0.25); color: inherit; border-bottom: 2px solid; font-weight: 600"


def plain(text):
    """`text` as it stands, with its line breaks."""
    return f'<div class="p3v-plain" style="white-space: pre-wrap; line-height: 1.5">{escape(text)}</div>'


def quiet(text, **attributes):
    """A line beside the matter: dim in light and dark themes alike."""
    extra = "".join(f' {name}="{escape(value)}"' for name, value in attributes.items())
    return f'<div style="opacity: 0.75; font-size: 90%; line-height: 1.4"{extra}>{escape(text)}</div>'


def alarm(text):
    """What went wrong, in place; read out by screen readers as soon as it stands there."""
    style = "border-left: 4px solid #d32f2f; padding: 2px 8px; margin: 2px 0; line-height: 1.4"
    return f'<div role="alert" style="{style}">{escape(text)}</div>' if text else ""


def markdown(text):
    """Markdown as HTML. Tags, addresses of scripts and pictures from elsewhere stay text."""
    return f'<div class="p3v-markdown" style="line-height: 1.5">{_parser().render(text)}</div>'


@cache
def _parser():
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table").disable("image")


def difference(left, right):
    """Two texts -> two pieces of HTML, with the words marked that the other one has not."""
    a, b = _WORDS.findall(left), _WORDS.findall(right)
    columns = [], []
    for kind, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        for column, words in ((columns[0], a[a0:a1]), (columns[1], b[b0:b1])):
            piece = escape("".join(words))
            column.append(
                f'<mark style="{_MARK}">{piece}</mark>' if kind != "equal" and piece.strip() else piece
            )
    style = "white-space: pre-wrap; line-height: 1.5"
    return tuple(f'<div style="{style}">{"".join(column)}</div>' for column in columns)
