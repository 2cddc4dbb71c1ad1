"""Question, pictures and history -> the text that Phi-3-vision was trained on.

    <|system|>\\n{system}<|end|>\\n             only where a system text is given
    <|user|>\\n<|image_1|>\\n<|image_2|>\\n{question}<|end|>\\n<|assistant|>\\n

Whatever people write is plain text. A control string in it, such as <|end|>, <|user|> or <s>, is broken up
with a space (`< |end|>`), so that it cannot end a turn or open another. The one exception is deliberate:
a question may place its own image tags, "Is <|image_1|> older than <|image_2|>?", if it names each picture
once; then no tags are put in front of it.

Format: the prompt section of the Phi-3-vision-128k-instruct model card.
"""

import re

from .errors import PromptError

USER, ASSISTANT, SYSTEM, END = "<|user|>\n", "<|assistant|>\n", "<|system|>\n", "<|end|>\n"

IMAGE_TAG = re.compile(r"<\|image_(\d+)\|>")
_CONTROL = re.compile(r"<(\|[^<>|\s]+\|>|/?s>|unk>|pad>)")
_CONTROL_BUT_TAGS = re.compile(r"<(?!\|image_\d+\|>)(\|[^<>|\s]+\|>|/?s>|unk>|pad>)")


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
        asked = _with_tags(asked, wanted) if number == 0 or wanted else _without_tags(asked)
        prompt += f"{USER}{asked}{END}{ASSISTANT}"
        if number < len(answers):
            prompt += f"{answers[number]}{END}"
    return prompt


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
    text = _CONTROL_BUT_TAGS.sub(r"< \1", question)
    if not own:
        return "".join(f"<|image_{number}|>\n" for number in wanted) + text
    if sorted(own) != wanted:
        named = ", ".join(f"<|image_{number}|>" for number in own)
        raise PromptError(
            f"The question names {named}, but {_count(wanted)} given.",
            f"Name each picture once, from <|image_{wanted[0] if wanted else 1}|> on, or leave the tags out: "
            "they are then put in front.",
        )
    return text


def _without_tags(question):
    """A later turn without pictures of its own: a tag here would repeat one of an earlier turn."""
    tag = IMAGE_TAG.search(question)
    if tag:
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
    return value


def _pair(turn):
    if isinstance(turn, (tuple, list)) and len(turn) == 2 and all(isinstance(part, str) for part in turn):
        return turn
    raise PromptError(
        f"A turn of the history is {str(turn)[:60]!r}.",
        "Give each turn as a pair of strings: (question, answer).",
    )
