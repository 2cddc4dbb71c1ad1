"""The page's side of phi3v_helpers/widgets/zone.py, played in Python: for tests that need no browser."""


class Page:
    """A page that shows one widget. sent: what Python said to it, as (message, buffers).

    It answers as drop_zone.js does: pieces are sent when they are asked for.
    """

    def __init__(self, widget):
        self._widget = widget
        self._files = {}
        self._waiting = []  # pieces asked for
        self.sent = []
        widget.send = self._take

    def _take(self, message, buffers=None):
        self.sent.append((message, buffers))
        if message["kind"] == "want" and message["id"] in self._files:
            self._waiting.append(message)
        if message["kind"] == "done":
            self._files.pop(message["id"], None)

    def said(self, kind):
        """The messages of one kind."""
        return [message for message, _ in self.sent if message["kind"] == kind]

    def say(self, *buffers, **message):
        """A message from the page, as a kernel would hand it over; but what goes wrong is not just logged."""
        for callback in self._widget._msg_callbacks.callbacks:
            callback(self._widget, message, [memoryview(buffer) for buffer in buffers])

    def offer(self, *files, type="image/png"):
        """Offer (name, content) and no more; returns their ids."""
        ids = [f"{id(self)}-{len(self.sent)}-{number}" for number, _ in enumerate(files)]
        self._files |= {file_id: content for file_id, (_, content) in zip(ids, files)}
        offered = [
            {"id": file_id, "name": name, "type": type, "size": len(content)}
            for file_id, (name, content) in zip(ids, files)
        ]
        self.say(kind="offer", files=offered)
        return ids

    def send_next(self):
        """Send the piece that was asked for first."""
        want = self._waiting.pop(0)
        at = want["at"]
        piece = self._files[want["id"]][at : at + want["length"]]
        self.say(piece, kind="piece", id=want["id"], at=at)

    def drop(self, *files, type="image/png"):
        """Offer (name, content), and send all that is asked for."""
        self.offer(*files, type=type)
        while self._waiting:
            self.send_next()

    @property
    def holds(self):
        """How many files the page still keeps for Python."""
        return len(self._files)
