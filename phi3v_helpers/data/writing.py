"""One question about pictures, with an answer of a given shape."""

import json
from dataclasses import replace

from ..errors import Phi3VError, PromptError
from .fence import UntilFence
from .grammar import grammars_of

LONGEST = 1000  # tokens of an answer, where max_new_tokens is not given


def request_for(vision, images, question, options):
    """The Request; images: list of PIL. Raises PromptError."""
    for name in ("raw", "look_up"):
        if options.get(name):
            raise PromptError(f"{name} does not go with getting data.", "Leave it out, or use ask.")
    return vision.request(images, question, **{"max_new_tokens": LONGEST} | options)


def fenced(vision, images, question, begun, options):
    """The Answer to a question, which is begun with the text `begun` and ends at a fence."""
    return vision.run_fenced(request_for(vision, images, question, options), begun)


def in_form(vision, images, question, form, options):
    """What a question is answered with in a form (see `schemas`): plain Python data. Raises Phi3VError, PromptError."""
    answer, written = vision.run_in_form(request_for(vision, images, question, options), form)
    if not answer.finished:
        raise Phi3VError(
            f"The answer was cut at {answer.new_tokens:,} tokens, before its JSON was complete.",
            "Set a larger max_new_tokens, or ask for less at a time.",
        )
    return json.loads(written)


def run_fenced(vision, request, begun):
    """See `Phi3Vision.run_fenced`."""
    request = replace(request, prompt=request.prompt + begun)
    return vision.run(request, constraint=UntilFence(vision.tokenizer, vision.engine.ends))


def run_in_form(vision, request, form):
    """See `Phi3Vision.run_in_form`."""
    with vision.lock:  # the tokenizer's
        grammars = grammars_of(vision.engine)
    constraint = grammars.constraint(form)
    answer = vision.run(request, constraint=constraint)
    return answer, constraint.text if answer.finished else answer.text
