"""One answer after the other: transformers' server hands a request over, and gets pieces of text."""

import asyncio
import json

from transformers.cli.serving.utils import GenerateManager, _StreamError

from ..errors import Phi3VError
from ..streaming import PieceStreamer

MISTAKE = "Something unexpected happened while the answer was written."


class Turns(GenerateManager):
    """As transformers' own, in its thread and its queue, but Phi3Vision answers in the place of `model.generate`:

    it knows pictures and conversations from before, refuses what there is no memory for, and stops when told.
    log(answer): called after each.
    """

    def __init__(self, vision, log):
        super().__init__()
        self._vision, self._log = vision, log

    def generate_streaming(self, model, processor, inputs, gen_config, request_id, response_parser=None):
        """(queue of str, ended by None or a _StreamError; the streamer)."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue()
        streamer = QueueStreamer(
            self._vision.tokenizer,
            lambda item: loop.call_soon_threadsafe(queue.put_nowait, item),
            inputs["gone"],
        )
        self.submit(self._work, inputs["request"], inputs["constraint"], gen_config, streamer)
        return queue, streamer

    async def generate_non_streaming(self, model, processor, inputs, gen_config, request_id):
        """(text, tokens of the prompt, something as long as the answer has tokens)."""
        queue, streamer = self.generate_streaming(model, processor, inputs, gen_config, request_id)
        while isinstance(await queue.get(), str):
            pass
        if streamer.error is not None:
            raise streamer.error
        return str(streamer.answer), streamer.answer.prompt_tokens, range(streamer.total_tokens)

    def _work(self, request, constraint, gen_config, streamer):
        try:
            answer = self._vision.run(request, streamer.gone.is_set, streamer, constraint)
        except Exception as error:  # told to the client, not to the thread
            streamer.fail(error)
            return
        if answer.finished:  # also where its end was the last token that it might have
            gen_config.max_new_tokens = None  # else the server would call it cut
        if answer.prompt_tokens:  # 0: the client was gone before its turn
            self._log(answer)
        streamer.finish(answer)


class QueueStreamer(PieceStreamer):
    """Hands the pieces on, as they are written. tell(item): called from the thread that writes.

    gone: threading.Event; once it is set, the answer ends after the present token, or never begins.
    """

    def __init__(self, tokenizer, tell, gone):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._tell, self.gone = tell, gone
        self.answer = self.error = None
        self.total_tokens = 0

    def on_finalized_text(self, text, stream_end=False):
        if text:
            self._tell(text)

    def cancel(self):
        """Called by transformers' server for a client that hangs up while it is streamed to."""
        self.gone.set()

    def finish(self, answer):
        self.answer, self.total_tokens = answer, answer.new_tokens
        self._tell(None)

    def fail(self, error):
        self.error = error
        text = str(error) if isinstance(error, Phi3VError) else MISTAKE
        # The server writes it between quotes, as it is.
        self._tell(_StreamError(json.dumps(text)[1:-1]))
