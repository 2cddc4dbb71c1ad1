"""Many questions to a server, several of them at a time: it knows best how to answer them together."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

from tqdm.auto import tqdm

from ..batches import request_of
from ..errors import Phi3VError

AT_ONCE = 8


def in_threads(vision, pairs, at_once, progress, options):
    """Iterator of Answers in the order of the pairs, see `Phi3Vision.ask_many`."""
    total = len(pairs) if hasattr(pairs, "__len__") else None
    running = deque()
    pool = ThreadPoolExecutor(at_once, "phi3v-remote")
    try:
        with tqdm(total=total, unit="answer", disable=not progress) as bar:
            for numbered in enumerate(pairs, start=1):
                request, _ = request_of(vision, *numbered, options)
                running.append(pool.submit(_run, vision, numbered[0], request))
                if len(running) >= at_once:  # no further ahead: pictures take memory
                    yield running.popleft().result()
                    bar.update()
            while running:
                yield running.popleft().result()
                bar.update()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _run(vision, number, request):
    try:
        return vision.run(request)
    except Phi3VError as error:
        raise type(error)(f"Pair {number}: {error.what}", error.advice) from error
