"""Question, pictures and history -> the text that Phi-3-vision was trained on.

    <|system|>\\n{system}<|end|>\\n             only where a system text is given
    <|user|>\\n<|image_1|>\\n<|image_2|>\\n{question}<|end|>\\n<|assistant|>\\n

Whatever people write is plain text. A control string in it, such as <|end|>, <|user|>, <s> or <|image_7|>, is
broken up with a space (`< |end|>`), so that it cannot end a turn or open another. The one exception is
deliberate: a question may place its own image tags, "Is <|image_1|> older than <|image_2|>?", if it names each
picture once; then no tags are put in front of it. Whoever wants to write the control strings too uses
`raw_prompt`, which is `ask(..., raw=True)`.

Format: the prompt section of the Phi-3-vision-128k-instruct model card.
"""

import re

from .errors import PromptError

USER, ASSISTANT, SYSTEM, END = "<|user|>\n", "<|assistant|>\n", "<|system|>\n", "<|end|>\n"

IMAGE_TAG = re.compile(r"<\|image_([0-9]{1,9})\|>")
_CONTROL = re.compile(r"<(\|[^<>|\s]+\|>|/?s>|unk>|pad>)")
_CONTROL_BUT_TAGS = re.compile(r"<(?!\|image_[0-9]{1,9}\|>)(\|[^<>|\s]+\|>|/?s>|unk>|pad>)")
_HALF = re.compile("[\ud800-\udfff]")  # of a character beyond 16 bits: no text can hold one by itself


def build_prompt(question, n_images=0, system=None, history=()):
    """The prompt for a question about `n_images` pictures, up to where the answer begins.

    question: str, taken word for word (control strings are broken up, see above).
    n_images: int >= 0, the pictures of the first turn; or a list with the number of every turn, the last one included.
    system: str or None, a text that stands before the first turn.
    history: earlier turns, (question, answer) pairs of str, oldest first.
    Returns str. Raises PromptError: image tags and pictures do not match, or a value is of the wrong kind.
    """
    turns = [_pair(turn) for turn in history]
    counts = _counts(n_images, len(turns) + 1)
    questions = [asked for asked, _ in turns] + [_text(question, "The question")]
    answers = [plain(answered) for _, answered in turns]

    prompt = f"{SYSTEM}{plain(_text(system, 'The system text'))}{END}" if system else ""
    first = 1  # number of the next picture
    for number, (asked, count) in enumerate(zip(questions, counts)):
        wanted = list(range(first, first + count))
        first += count
        asked = _with_tags(asked, wanted) if wanted or first == 1 else _without_tags(asked, first)
        prompt += f"{USER}{asked}{END}{ASSISTANT}"
        if number < len(answers):
            prompt += f"{answers[number]}{END}"
    return prompt


def raw_prompt(text, n_images=0):
    """A whole prompt as somebody wrote it, control strings and all: checked, and returned as it is.

    text: str, which names each of the `n_images` pictures once, as <|image_1|> to <|image_n|>.
    Raises PromptError: tags and pictures do not match, it has <|image|>, or it is not a str.
    """
    if "<|image|>" in _text(
        text, "The prompt"
    ):  # stands for one token of a picture, of which there are hundreds
        raise PromptError("The raw prompt has <|image|> in it.", "Write <|image_1|> for the first picture.")
    own = [int(number) for number in IMAGE_TAG.findall(text)]
    if sorted(own) != list(range(1, n_images + 1)):
        raise _tags_do_not_match("The raw prompt", own, list(range(1, n_images + 1)))
    return text


def plain(text):
    """`text` (str) with every control string and image tag broken up by a space: "<|end|>" -> "< |end|>"."""
    return _CONTROL.sub(r"< \1", text)


def _counts(n_images, turns):
    """How many pictures each turn brings, a list."""
    counts = list(n_images) if isinstance(n_images, (list, tuple)) else [n_images] + [0] * (turns - 1)
    if len(counts) != turns or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise PromptError(
            f"n_images is {n_images!r}.",
            "Give the number of pictures, 0 or more, or a list with one for each turn.",
        )
    return counts


def _with_tags(question, wanted):
    """A turn with pictures of these numbers: the tags in front, or where the question itself places each once."""
    own = [int(number) for number in IMAGE_TAG.findall(question)]
    if sorted(own) == wanted:
        return _CONTROL_BUT_TAGS.sub(r"< \1", question)
    if set(own) & set(wanted or [1]):  # meant as tags, it seems, and not matching
        raise _tags_do_not_match("The question", own, wanted)
    return "".join(f"<|image_{number}|>\n" for number in wanted) + plain(question)


def _tags_do_not_match(what, own, wanted):
    named = ", ".join(f"<|image_{number}|>" for number in own[:5]) or "no picture"
    return PromptError(
        f"{what} names {named}{', …' if own[5:] else ''}, but {_count(wanted)} given.",
        f"Name each picture once, from <|image_{wanted[0] if wanted else 1}|> on, or leave the tags out: "
        "they are then put in front.",
    )


def _without_tags(question, first):
    """A later turn without pictures of its own: the tag of one before `first` would repeat that of an earlier turn."""
    tag = IMAGE_TAG.search(question)
    if tag and 1 <= int(tag[1]) < first:
        raise PromptError(
            f"The question names {tag[0]} again, but a picture is named only in the turn that brings it.",
            'Say "the first picture" or "the second picture" instead.',
        )
    return plain(question)


def _count(wanted):
    return {0: "no picture is", 1: "1 picture is"}.get(len(wanted), f"{len(wanted)} pictures are")


def _text(value, what):
    if not isinstance(value, str):
        raise PromptError(f"{what} is of type {type(value).__name__}.", "Give it as a string.")
    half = _HALF.search(value)
    if half:  # what json.loads and os.listdir make of broken text; no tokenizer takes it
        raise PromptError(
            f"{what} has half a character, {half[0]!a}, at place {half.start() + 1:,}.",
            'Repair it: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").',
        )
    return value


def _pair(turn):
    if isinstance(turn, (tuple, list)) and len(turn) == 2 and all(isinstance(part, str) for part in turn):
        return [_text(part, "A turn of the history") for part in turn]
    raise PromptError(
        f"A turn of the history is {str(turn)[:60]!a}.",
        "Give each turn as a pair of strings: (question, answer).",
    )
