"""Many questions, several at a time: sorted by length, as many together as there is memory for, given back in order."""

from itertools import islice

from tqdm.auto import tqdm

from .errors import Phi3VError, PromptError
from .images import load_images
from .kept import usual_budget

AHEAD = 64  # pairs that are looked at to find some of about the same length
MOST = 16  # at once


def in_batches(vision, pairs, at_once, progress, options):
    """Iterator of Answers, see `Phi3Vision.ask_many`."""
    total = len(pairs) if hasattr(pairs, "__len__") else None
    numbered = enumerate(pairs, start=1)
    with tqdm(total=total, unit="answer", disable=not progress) as bar:
        while window := [request_of(vision, *pair, options) for pair in islice(numbered, AHEAD)]:
            answers, given = {}, 0
            for batch in _batches(vision, window, at_once):
                answers.update(zip(batch, vision.run_many([window[place][0] for place in batch])))
                bar.update(len(batch))
                while given in answers:
                    yield answers.pop(given)
                    given += 1


def request_of(vision, number, pair, options):
    """The Request of a pair, and how many tokens its prompt has."""
    try:
        images, question = pair
    except (TypeError, ValueError) as error:
        raise PromptError(f"Pair {number} is {pair!r:.60}.", "Give (images, question).") from error
    if options.get("look_up"):
        raise PromptError("look_up works for one question at a time.", "Leave it out of ask_many.")
    try:
        request = vision.request(load_images(images), question, **options)
        return request, vision.check(request)
    except Phi3VError as error:
        raise type(error)(f"Pair {number}: {error.what}", error.advice) from error


def _batches(vision, window, at_once):
    """Lists of places in `window`: neighbours in length, as many as fit; the longest first, which need the most."""
    requests, lengths = zip(*window)
    room = usual_budget(vision.device)
    batch = []
    for place in sorted(range(len(requests)), key=lambda place: -lengths[place]):
        longest = lengths[batch[0] if batch else place] + requests[place].max_new_tokens
        _, needed = vision.memory(longest * (len(batch) + 1))
        if batch and (len(batch) == (at_once or MOST) or needed > room):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
