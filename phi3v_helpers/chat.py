"""Several questions about the same pictures."""

from .images import load_images
from .prompts import build_prompt


def next_counts(counts, pictures):
    """How many pictures each turn brings, and at the end the next one: those (of so many) that no turn has brought."""
    return [*counts, pictures - sum(counts)]


class Chat:
    """A conversation. Each picture stands in the turn that brought it; later questions follow what was said.

    images: list of RGB PIL images, of all turns in order. system: str or None, may be changed.
    history: list of (question, answer) pairs of str, oldest first. image_counts: list of int, how many pictures each
    of these turns brought.
    A question that fails leaves the history as it was. A stopped answer is kept as far as it was said.
    """

    def __init__(self, vision, images=None, system=None, history=(), image_counts=None):
        self._vision = vision
        self._images = load_images(images)
        self.system = system
        self._history = list(history)
        # Pictures of each turn in the history; the others belong to the next question.
        self._counts = list(image_counts) if image_counts is not None else self._all_in_the_first()

    def _all_in_the_first(self):
        return [len(self._images) if number == 0 else 0 for number in range(len(self._history))]

    @property
    def images(self):
        return list(self._images)

    @property
    def history(self):
        return list(self._history)

    @property
    def image_counts(self):
        return list(self._counts)

    def add(self, images):
        """Show more pictures: they come with the next question. images as in `Phi3Vision.ask`; raises ImageError."""
        self._images += load_images(images)

    def rewind(self, turns=0):
        """Go back to where only so many turns (int >= 0) were made. Pictures stay: those of later turns come with
        the next question."""
        del self._history[turns:], self._counts[turns:]

    def ask(self, question, **options):
        """Ask on. options as in `Phi3Vision.ask`. Returns an Answer; raises Phi3VError."""
        request, brought = self._request(question, options)
        answer = self._vision.run(request)
        self._keep(question, answer, brought)
        return answer

    def stream(self, question, *, stop=None, **options):
        """Ask on, and get the pieces of the answer as they are written. See `Phi3Vision.stream`."""
        request, brought = self._request(question, options)
        return self._vision.run_stream(
            request, stop, keep=lambda answer: self._keep(question, answer, brought)
        )

    def prompt(self, question):
        """The prompt (str) that this question would make. Raises PromptError."""
        counts = next_counts(self._counts, len(self._images))
        return build_prompt(question, counts, self.system, self._history)

    def _request(self, question, options):
        """The Request, and how many pictures come with it."""
        counts = next_counts(self._counts, len(self._images))
        request = self._vision.request(
            self.images, question, self.system, self.history, image_counts=counts, **options
        )
        return request, counts[-1]

    def _keep(self, question, answer, brought):
        if answer or answer.finished:  # stopped before the first word: nothing was said
            self._history.append((question, str(answer)))
            self._counts.append(brought)

    def __repr__(self):
        counted = _count(self._images, "picture"), _count(self._history, "turn")
        return f"Chat with {self._vision.name}: {', '.join(counted)}"


def _count(things, noun):
    return f"{len(things)} {noun}" if len(things) == 1 else f"{len(things)} {noun}s"
