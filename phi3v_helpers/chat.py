"""Several questions about the same pictures."""

from .images import load_images


class Chat:
    """A conversation. The pictures stand in its first turn; every later question follows what was said.

    images: list of RGB PIL images. history: list of (question, answer) pairs of str, oldest first.
    A question that fails leaves the history as it was. A stopped answer is kept as far as it was said.
    """

    def __init__(self, vision, images=None, system=None):
        self._vision = vision
        self._images = load_images(images)
        self._system = system
        self._history = []

    @property
    def images(self):
        return list(self._images)

    @property
    def history(self):
        return list(self._history)

    def ask(self, question, **options):
        """Ask on. options as in `Phi3Vision.ask`. Returns an Answer; raises Phi3VError."""
        request = self._vision.request(self._images, question, self._system, self._history, **options)
        answer = self._vision.run(request)
        self._keep(question, answer)
        return answer

    def stream(self, question, *, stop=None, **options):
        """Ask on, and get the pieces of the answer as they are written. See `Phi3Vision.stream`."""
        request = self._vision.request(self._images, question, self._system, self._history, **options)
        return self._vision.run_stream(request, stop, keep=lambda answer: self._keep(question, answer))

    def _keep(self, question, answer):
        if answer or answer.finished:  # stopped before the first word: nothing was said
            self._history.append((question, str(answer)))

    def __repr__(self):
        return f"Chat with {self._vision.name}: {len(self._images)} pictures, {len(self._history)} turns"
