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
    n_images: int >= 0; the pictures belong to the first turn of the conversation.
    system: str or None, a text that stands before the first turn.
    history: earlier turns, (question, answer) pairs of str, oldest first.
    Returns str. Raises PromptError: image tags and pictures do not match, or a value is of the wrong kind.
    """
    if not isinstance(n_images, int) or n_images < 0:
        raise PromptError(f"n_images is {n_images!r}.", "Give the number of pictures, 0 or more.")
    turns = [_pair(turn) for turn in history]
    questions = [asked for asked, _ in turns] + [_text(question, "The question")]
    answers = [plain(answered) for _, answered in turns]

    prompt = f"{SYSTEM}{plain(_text(system, 'The system text'))}{END}" if system else ""
    for number, asked in enumerate(questions):
        prompt += (
            f"{USER}{_with_tags(asked, n_images) if number == 0 else _without_tags(asked)}{END}{ASSISTANT}"
        )
        if number < len(answers):
            prompt += f"{answers[number]}{END}"
    return prompt


def plain(text):
    """`text` (str) with every control string and image tag broken up by a space: "<|end|>" -> "< |end|>"."""
    return _CONTROL.sub(r"< \1", text)


def _with_tags(question, n_images):
    """The first turn: the tags in front, or where the question itself places each of them once."""
    own = [int(number) for number in IMAGE_TAG.findall(question)]
    wanted = list(range(1, n_images + 1))
    text = _CONTROL_BUT_TAGS.sub(r"< \1", question)
    if not own:
        return "".join(f"<|image_{number}|>\n" for number in wanted) + text
    if sorted(own) != wanted:
        named = ", ".join(f"<|image_{number}|>" for number in own)
        raise PromptError(
            f"The question names {named}, but {_count(n_images)} given.",
            "Name each picture once, from <|image_1|> on, or leave the tags out: they are then put in front.",
        )
    return text


def _without_tags(question):
    """A later turn: the pictures already stand in the first one, and a tag here would repeat them."""
    tag = IMAGE_TAG.search(question)
    if tag:
        raise PromptError(
            f"The question names {tag[0]} again, but pictures are named in the first turn only.",
            'Say "the first picture" or "the second picture" instead.',
        )
    return plain(question)


def _count(n_images):
    return {0: "no picture is", 1: "1 picture is"}.get(n_images, f"{n_images} pictures are")


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
