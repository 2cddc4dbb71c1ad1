"""/v1/chat/completions: a request is checked, and then answered by transformers' own handler."""

import asyncio
import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import torch
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.utils import GenerationState

from ..data.grammar import grammars_of
from ..errors import Phi3VError, PromptError
from ..prompts import plain, raw_prompt
from ..vision import Phi3Vision
from .formats import form_of
from .gate import gone
from .messages import read_messages
from .settings import DEFAULT_TOKENS, is_begun, options_of
from .turns import Turns

AT_ONCE = 8  # requests whose pictures are fetched and opened


class WrongModel(Exception):
    """A request names a model that is not here."""


class OneModel(ModelManager):
    """The one model there is. Clients can load no other."""

    def __init__(self, name, context):
        super().__init__()
        self.entry = {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "phi3v-helpers",
            "max_model_len": context,  # as vLLM and SGLang tell it
        }

    def get_gen_models(self):
        return [self.entry]


class ChatHandler(ChatCompletionHandler):
    """vision: Phi3Vision. name: what clients call it. log(answer): called after each answer."""

    def __init__(self, vision, name, log):
        super().__init__(OneModel(name, vision.context), GenerationState())
        self.vision, self.name = vision, name
        self._turns = Turns(vision, log)
        # Checks requests while the model writes: with a tokenizer and a lock of its own, nothing waits for the other.
        engine = copy.copy(vision.engine)
        engine.processor = copy.deepcopy(vision.processor)
        self._front = Phi3Vision(
            vision.model, engine.processor, vision.name, lock=threading.Lock(), engine=engine
        )
        self._workers = ThreadPoolExecutor(AT_ONCE, "phi3v-requests")

    async def handle_request(self, body, request_id):
        """The response, streamed or whole. Raises Phi3VError, WrongModel."""
        if body.get("model") not in (None, self.name, self.vision.name):
            raise WrongModel(f"There is no model {str(body['model'])[:100]!r} here, only {self.name!r}.")
        loop = asyncio.get_running_loop()
        request, tokens, constraint = await loop.run_in_executor(self._workers, self._checked, body)
        # Of the ids only their number is looked at, and of the settings only max_new_tokens.
        ids = torch.empty(1, tokens, device="meta")
        inputs = {"input_ids": ids, "request": request, "constraint": constraint, "gone": gone.get()}
        settings = SimpleNamespace(max_new_tokens=request.max_new_tokens)
        about = (request_id, self.vision.model, self.vision.processor, self.name, inputs, settings)
        if body.get("stream"):
            return self._streaming(*about, gen_manager=self._turns)
        return await self._non_streaming(*about, gen_manager=self._turns)

    def _checked(self, body):
        """(Request, tokens of its prompt, Constraint or None)."""
        options = options_of(body)
        constraint = self._constraint(form_of(body.get("response_format")))
        sent = read_messages(body.get("messages"), is_begun(body))
        request = self._front.request(
            sent.images,
            sent.question,
            sent.system,
            sent.history,
            image_counts=sent.image_counts,
            **{"max_new_tokens": 1} | options,
        )
        request = replace(request, prompt=request.prompt + raw_prompt(plain(sent.begun)))
        tokens = self._front.check(request)
        if "max_new_tokens" not in options:
            request = replace(request, max_new_tokens=min(DEFAULT_TOKENS, self.vision.context - tokens))
        return request, tokens, constraint

    def _constraint(self, form):
        if form is None:
            return None
        with self._front.lock:  # the tokenizer's
            try:
                grammars = grammars_of(self._front.engine)
            except Phi3VError as error:  # asking again would not help
                raise PromptError(error.what, error.advice) from error
        return grammars.constraint(form)
