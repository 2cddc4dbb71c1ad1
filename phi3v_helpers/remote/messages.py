"""A question, what was said before, and pictures -> the messages of OpenAI's API."""

import base64
import io

from ..prompts import plain

LARGE = 8_000_000  # pixels; a model sees 1.8 million of a picture, so what JPEG changes vanishes in shrinking


def messages_of(question, images, counts, system=None, history=()):
    """A list of dicts. images: RGB PIL images of all turns. counts: how many each turn brings, the last one included.

    Texts must have passed `build_prompt`. Control strings are broken up as there, except for the tags of a turn that
    places its own pictures: `phi3v serve` and vLLM leave pictures where their tags are.
    """
    messages = [{"role": "system", "content": plain(system)}] if system else []
    addresses = iter([data_address(image) for image in images])
    questions = [*(asked for asked, _ in history), question]
    for number, (asked, count) in enumerate(zip(questions, counts)):
        pictures = [{"type": "image_url", "image_url": {"url": next(addresses)}} for _ in range(count)]
        text = with_own_tags(asked, sum(counts[:number]), count)
        content = [*pictures, {"type": "text", "text": text}] if pictures else text
        messages.append({"role": "user", "content": content})
        if number < len(history):
            messages.append({"role": "assistant", "content": plain(history[number][1])})
    return messages


def with_own_tags(question, before, count):
    """The question without control strings; with its tags where it names each of its pictures once.

    before: how many pictures earlier turns have brought.
    """
    text, tags = plain(question), [f"<|image_{before + number}|>" for number in range(1, count + 1)]
    if tags and all(question.count(tag) == 1 for tag in tags):
        for tag in tags:
            text = text.replace(f"< {tag[1:]}", tag)
    return text


def data_address(image):
    """A PIL image as a data address: PNG, which changes no pixel; JPEG of the best kind where it is large."""
    file = io.BytesIO()
    if image.width * image.height > LARGE:
        image.save(file, "JPEG", quality=95, subsampling=0)
        kind = "jpeg"
    else:
        image.save(file, "PNG", compress_level=1)
        kind = "png"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
