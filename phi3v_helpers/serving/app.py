"""The application: transformers' routes, with our handler behind the one for chats and our gate before all."""

import traceback

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from transformers.cli.serving.server import build_server

from ..errors import ImageError, Phi3VError, PromptError
from .chat import ChatHandler, WrongModel
from .gate import Gate, refusal
from .turns import MISTAKE


def make_app(vision, name, key=None, log=lambda answer: None):
    """An ASGI application. vision: Phi3Vision. name: what clients call the model. key: see Gate.

    log(answer): called after each answer, from the thread that writes them.
    """
    handler = ChatHandler(vision, name, log)
    # The other handlers would answer without what we check; the gate lets nobody through to them.
    app = build_server(
        handler.model_manager,
        handler,
        completion_handler=None,
        response_handler=None,
        transcription_handler=None,
        systemone_handler=None,
        generation_state=handler.generation_state,
    )
    for kind in (Phi3VError, WrongModel, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _explained)
    return Gate(app, key)


async def _explained(request, error):
    if isinstance(error, (PromptError, ImageError)):
        return refusal(400, str(error))
    if isinstance(error, Phi3VError):  # there is no memory for it
        return refusal(503, str(error), "server_error")
    if isinstance(error, WrongModel):
        return refusal(404, str(error), code="model_not_found")
    if isinstance(error, RequestValidationError):
        return refusal(400, "The request is no JSON object, or its Content-Type is not application/json.")
    if isinstance(error, HTTPException):
        return refusal(error.status_code, str(error.detail))
    traceback.print_exception(error)
    return refusal(500, MISTAKE, "server_error")
