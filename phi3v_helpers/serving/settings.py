"""What of OpenAI's chat API is here: the fields of a request -> options of `Phi3Vision.ask`."""

from ..errors import PromptError

DEFAULT_TOKENS = 1024  # of an answer, where the request does not say; as transformers' server has it

_HERE = {"model", "messages", "stream", "max_tokens", "max_completion_tokens", "temperature", "seed"}
_HERE |= {"response_format", "continue_final_message", "add_generation_prompt"}
# These change no answer.
_IGNORED = {"stream_options", "user", "metadata", "store", "service_tier", "parallel_tool_calls"}
_IGNORED |= {"safety_identifier", "prompt_cache_key"}
# What clients send to say nothing. Any other value would change the answer, and is refused.
_NEUTRAL = {
    "n": (1,),
    "top_p": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "stop": ([],),
    "logprobs": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "modalities": (["text"],),
}


def options_of(body):
    """max_new_tokens, temperature, seed and num_crops, those that were sent. Raises PromptError."""
    body = {name: value for name, value in body.items() if value is not None}
    crops = body.pop("mm_processor_kwargs", {})  # vLLM's name for it
    for name in sorted(body.keys() - _HERE - _IGNORED):
        if body[name] not in _NEUTRAL.get(name, ()):
            raise PromptError(f"{name[:40]} is not supported by this server.", "Leave it out.")
    if not isinstance(crops, dict) or crops.keys() - {"num_crops"}:
        raise PromptError("mm_processor_kwargs can have num_crops only.", 'Send {"num_crops": 16}.')
    longest = body.get("max_completion_tokens", body.get("max_tokens"))
    options = {
        "max_new_tokens": longest,
        "temperature": body.get("temperature"),
        "seed": body.get("seed"),
        "num_crops": crops.get("num_crops"),
    }
    return {name: value for name, value in options.items() if value is not None}


def is_begun(body):
    """Whether the last message is the beginning of the answer, in the words of vLLM and SGLang. Raises PromptError."""
    begun = body.get("continue_final_message") or False
    fresh = body.get("add_generation_prompt")
    if not isinstance(begun, bool) or fresh not in (None, not begun):
        raise PromptError(
            "continue_final_message and add_generation_prompt do not go together.",
            "Send true and false, or leave both out.",
        )
    return begun
