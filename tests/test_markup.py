"""What people and models write is shown and never obeyed."""

import random
import time
from html.parser import HTMLParser

import pytest

from phi3v_helpers.widgets import markup


class Seen(HTMLParser):
    """What a browser would find in a piece of HTML."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text, self.open = [], [], "", []
        self.marked = [""]
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.open.append(tag)
        if tag == "mark":
            self.marked.append("")

    def handle_startendtag(self, tag, attrs):  # <br />
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "mark" in self.open:
            self.marked[-1] += data


def links(html):
    return [value for name, value in Seen(html).attributes if name == "href"]


NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<iframe src='https://example.org'></iframe>",
    "<style>* { display: none }</style>",
    '"><script>alert(1)</script>',
    "</div></div><form action=//example.org>",
    "<a href='javascript:alert(1)'>x</a>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "`<script>`\n\n```html\n<script>alert(1)</script>\n```",
    '```x" onmouseover="alert(1)\ncode\n```',
    "![a picture](https://example.org/track.png)",
    "![a picture](data:image/svg+xml;base64,PHN2Zz4=)",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](\tjavascript:alert(1))",
    "[x](vbscript:x) [x](data:text/html,x) [x](data:image/png;base64,AA) [x](file:///etc/passwd)",
    "[x](/logout) [x](logout) [x](../tree) [x](//example.org) [x](?token) [x](#here)",
    "<javascript:alert(1)> <file:///etc/passwd>",
    "[x]\n\n[x]: javascript:alert(1)",
    '[x](https://example.org "\\" onmouseover=\\"alert(1)")',
    "| a |\n|---|\n| <img src=x onerror=alert(1)> |",
    "<!-- a comment --> <![CDATA[ x ]]> <?php ?> <!DOCTYPE html>",
]
HARMLESS = set("div p a br hr em strong code pre ul ol li table thead tbody tr th td blockquote".split())
HARMLESS |= {f"h{n}" for n in range(1, 7)}


@pytest.mark.parametrize("text", NASTY)
def test_markdown_obeys_nothing(text):
    seen = Seen(markup.markdown(text))
    assert set(seen.tags) <= HARMLESS
    assert {name for name, _ in seen.attributes} <= {
        "href",
        "class",
        "style",
        "title",
        "target",
        "rel",
        "start",
    }
    assert all(href.startswith(("https://", "http://", "mailto:")) for href in links(markup.markdown(text)))
    assert "alert" not in "".join(value for name, value in seen.attributes if name not in ("class", "title"))


@pytest.mark.parametrize("text", NASTY)
def test_the_others_show_what_they_are_given(text):
    left, right = markup.difference(text, "")
    for html in (markup.plain(text), markup.quiet(text), markup.alarm(text), left):
        seen = Seen(html)
        assert set(seen.tags) <= {"div", "mark"}
        assert {name for name, _ in seen.attributes} <= {"style", "class", "role"}
        assert seen.text == text
    assert Seen(right).text == ""


def test_attributes_of_a_quiet_line_are_escaped():
    seen = Seen(markup.quiet("x", role="status", title='"><script>'))
    assert seen.tags == ["div"] and ("title", '"><script>') in seen.attributes


def test_trouble_is_read_out():
    assert 'role="alert"' in markup.alarm("No.")
    assert markup.alarm("") == ""


def test_plain_keeps_every_space_and_line():
    text = "  a\n\n   b\t<c> & d\n"
    html = markup.plain(text)
    assert Seen(html).text == text and "pre-wrap" in html


# --- Markdown ---


def test_a_table():
    html = markup.markdown("The data:\n\n| Year | Sales |\n|---|--:|\n| 2023 | **12** |\n| 2024 | 15 |\n")
    seen = Seen(html)
    assert [seen.tags.count(tag) for tag in ("table", "tr", "th", "td", "strong")] == [1, 3, 2, 4, 1]
    assert "Year" in seen.text and "|" not in seen.text


def test_lists_headings_code_and_line_breaks():
    html = markup.markdown("# A\n1. one\n2. two\n   - deep\n\n`code` *em*\nnext line\n\n> quote\n\n---")
    seen = Seen(html)
    for tag in ("h1", "ol", "ul", "li", "code", "em", "br", "blockquote", "hr"):
        assert tag in seen.tags, tag
    assert seen.tags.count("li") == 3


def test_a_link_leads_to_the_web_and_leaves_the_notebook_alone():
    html = markup.markdown(
        "[Phi-3](https://example.org/a?b=1&c=2) <mailto:a@example.org> https://example.org"
    )
    assert links(html) == ["https://example.org/a?b=1&c=2", "mailto:a@example.org"]
    seen = Seen(html)
    assert seen.attributes.count(("target", "_blank")) == 2
    assert seen.attributes.count(("rel", "noopener noreferrer")) == 2


def test_a_picture_from_elsewhere_is_a_link_at_most():
    html = markup.markdown("![a chart](https://example.org/chart.png)")
    assert "<img" not in html and links(html) == ["https://example.org/chart.png"]


@pytest.mark.parametrize("text", ["", " ", "\n", "\0", "\ud800", "\u2028", "\x1b[31m", "a\r\nb", "\ufeff"])
def test_odd_texts(text):
    for make in (markup.markdown, markup.plain, markup.quiet):
        assert Seen(make(text)).tags[0] == "div"
    assert len(markup.difference(text, "x")) == 2


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "> " * 3000,
        "- " * 3000,
        "*a **b " * 5000,
        "[a](" * 5000,
        "<" * 20_000,
        "`" * 20_000,
        "#" * 9999,
    ]
    + ["".join("  " * n + "- a\n" for n in range(300)), "".join(f"[{n}]: https://a\n" for n in range(2000))],
    ids=lambda text: repr(text[:6]),
)
def test_what_a_model_in_a_loop_says_is_shown_soon(text):
    started = time.process_time()
    assert markup.markdown(text)
    assert time.process_time() - started < 10


# --- differences ---


def marked(left, right):
    """The marked pieces of both sides."""
    return tuple(Seen(html).marked[1:] for html in markup.difference(left, right))


@pytest.mark.parametrize(
    "left, right, marks, count",
    [
        ("A red cat.", "A red cat.", ([], []), 0),
        ("A red cat.", "A blue cat.", (["red"], ["blue"]), 1),
        ("A cat.", "A big fat cat.", ([], ["big fat"]), 2),
        ("A big fat cat.", "A cat.", (["big fat"], []), 2),
        ("one two three", "one 2 three four", (["two"], ["2", "four"]), 2),
        ("A cat.", "A cat!", (["."], ["!"]), 1),
        ("12 items", "13 items", (["12"], ["13"]), 1),
        ("", "", ([], []), 0),
        ("", "Two words", ([], ["Two words"]), 2),
        ("a  b\nc", "a b c", ([], []), 0),
        (" a b ", "a b", ([], []), 0),
        ("Ein Mädchen", "Ein Bübchen", (["Mädchen"], ["Bübchen"]), 1),
        ("don't", "dont", (["don't"], ["dont"]), 3),
        ("一二三", "一二四", (["一二三"], ["一二四"]), 1),
    ],
)
def test_words_that_differ_are_marked_and_counted(left, right, marks, count):
    assert marked(left, right) == marks
    assert markup.differing(left, right) == markup.differing(right, left) == count


def test_a_difference_shows_the_whole_texts():
    left, right = "The  <b>red</b>\ncar & I. ", "A <i>red</i>\n\ncar & you."
    assert tuple(Seen(html).text for html in markup.difference(left, right)) == (left, right)
    assert "<b>" not in markup.difference(left, right)[0]


def test_marks_can_be_seen_without_colour():
    html = markup.difference("a", "b")[0]
    assert "<mark" in html and "border-bottom" in html and "font-weight" in html


def test_words_are_matched_in_their_order_even_among_repeated_ones():
    left = "The cat sat on the mat and the dog sat on the rug. " * 20
    right = left.replace("dog", "cow")
    assert marked(left, right) == (["dog"] * 20, ["cow"] * 20)


@pytest.mark.parametrize("words", [100, 3000])
def test_few_changes_in_a_long_text_are_found(words):
    rng = random.Random(1)
    left = [f"w{min(int(rng.paretovariate(0.6)), 5000)}" for _ in range(words)]
    right = ["new" if n % 50 == 25 else word for n, word in enumerate(left)]
    changes = right.count("new")
    assert changes <= markup.differing(" ".join(left), " ".join(right)) <= 3 * changes


@pytest.mark.parametrize("vocabulary", [1, 3, 30, 300])
def test_long_answers_are_compared_soon(vocabulary):
    rng = random.Random(1)
    left, right = (" ".join(f"w{rng.randrange(vocabulary)}" for _ in range(4000)) for _ in range(2))
    started = time.process_time()
    markup.difference(left, right + " end")
    assert time.process_time() - started < 5
