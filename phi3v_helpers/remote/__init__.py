"""A model on a server with OpenAI's API: `phi3v serve`, vLLM, SGLang.

vision: the object that `p3v.load("http://…/v1")` gives. connecting: finding the server and its model. messages: a
question as the server takes it. writing: an answer, whole or in pieces. data: JSON of a schema, text alone. many:
several at a time. counting: tokens, as far as they are known here. failures: what can go wrong, in words.
"""

from .connecting import connect
from .vision import RemoteVision

__all__ = ["RemoteVision", "connect"]
