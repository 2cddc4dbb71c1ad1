"""What people and models write, as HTML that is safe to show.

An HTML widget shows what it is given, scripts and all, and a model repeats what a picture says. So tags in a text are
shown and not obeyed, links lead to the web or nowhere, and pictures from elsewhere are not fetched.
"""

import difflib
import re
from functools import cache, lru_cache
from html import escape

_WORDS = re.compile(r"[^\W_]+\s*|\S\s*")  # words and numbers, single marks, each with the spaces after it
_WEB = re.compile(r"(https?://|mailto:)", re.IGNORECASE)
_LONG = 1000  # words; from here on those that are everywhere are no guide, or a difference would take minutes
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

    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table").disable("image")
    parser.validateLink = _WEB.match  # a link to /logout, say, would be one of the Jupyter server
    parser.add_render_rule("link_open", _open_elsewhere)
    return parser


def _open_elsewhere(renderer, tokens, place, options, env):
    """A link that does not take the reader away from the notebook."""
    tokens[place].attrs |= {"target": "_blank", "rel": "noopener noreferrer"}
    return renderer.renderToken(tokens, place, options, env)


def difference(left, right):
    """Two texts -> two pieces of HTML, with the words marked that the other one has not."""
    style = "white-space: pre-wrap; line-height: 1.5"
    columns = _marked(left, right, f'<mark style="{_MARK}">', "</mark>", escape)
    return tuple(f'<div style="{style}">{column}</div>' for column in columns)


def bracketed(left, right):
    """As `difference`, for places that show no HTML: two str, with [brackets] around the words."""
    return _marked(left, right, "[", "]")


def _marked(left, right, before, after, write=str):
    """Two texts -> two str, with `before` and `after` around the words that the other one has not."""
    columns = [], []
    for same, *sides in _pieces(left, right):
        for column, words in zip(columns, sides):
            text = write("".join(words))
            bare = text.rstrip()
            column.append(text if same or not bare else f"{before}{bare}{after}{text[len(bare) :]}")
    return tuple(map("".join, columns))


def verdict(left, right):
    """How two answers compare, a sentence."""
    count = differing(left, right)
    if not count:
        return "The answers are the same." if left == right else "The answers differ only in their spaces."
    return "1 word differs." if count == 1 else f"{count} words differ."


def differing(left, right):
    """How many words and marks one text has in place of the other's, int; spaces do not count."""
    return sum(max(len(a), len(b)) for same, a, b in _pieces(left, right) if not same)


# For a verdict, a count and the marks of the same two texts.
@lru_cache(maxsize=1)
def _pieces(left, right):
    """The two texts side by side: (whether the same, words of the left, words of the right), again and again."""
    a, b = _WORDS.findall(left.lstrip()), _WORDS.findall(right.lstrip())
    bare = [[word.rstrip() for word in words] for words in (a, b)]
    matcher = difflib.SequenceMatcher(None, *bare, autojunk=max(len(a), len(b)) > _LONG)
    return [(kind == "equal", a[a0:a1], b[b0:b1]) for kind, a0, a1, b0, b1 in matcher.get_opcodes()]
