"""A model on a server that can be asked like one on this machine."""

from dataclasses import dataclass, replace

from ..checks import whole
from ..errors import Phi3VError, PromptError
from ..streaming import Stream
from ..vision import Phi3Vision, Request
from .counting import OURS, Counter
from .data import checked, json_of, schema_of, until_fence, unwrapped
from .many import AT_ONCE, in_threads
from .messages import messages_of
from .writing import write, write_in_pieces

KNOWS_CROPS = (OURS, "vllm")  # owners of models, as servers list them: these take num_crops
# Of a Phi3Vision, but not there where the model is elsewhere.
_LOCAL = {"model", "processor", "tokenizer", "engine", "lock", "device", "dtype", "attention", "is_tiny"}


@dataclass(frozen=True)
class RemoteRequest(Request):
    """question, system, history, image_counts: as `Phi3Vision.request` takes them. begun: of the answer, str."""

    question: str = ""
    system: str | None = None
    history: list = ()
    image_counts: list = ()
    begun: str = ""


class RemoteVision(Phi3Vision):
    """A model that an OpenAI-compatible server has. `phi3v_helpers.load("http://…/v1")` makes one.

    name: str, of the model as the server has it. host: str, where it is. client: the openai.OpenAI.
    All methods and the forms work as with a model on this machine; pictures are sent along. `read_table`, `extract` and
    `find_objects` need a server that keeps answers to a JSON schema, as `phi3v serve`, vLLM and SGLang do. Not to be
    had: `raw` and `look_up`, which need the model itself. num_crops can be told to `phi3v serve` and to vLLM.
    """

    def __init__(self, client, address, host, entry, num_crops=None):
        self.client, self.host, self.name = client, host, entry.id
        self._owner = getattr(entry, "owned_by", "")
        self._longest = getattr(entry, "max_model_len", None)
        self._counter = Counter(entry.id, self._owner == OURS)
        self._num_crops = None
        self._num_crops = self.crops(num_crops, [])
        self.load_options = {"model": address, "name": entry.id}
        if num_crops is not None:
            self.load_options["num_crops"] = num_crops

    def __getattr__(self, name):
        if name in _LOCAL:
            raise Phi3VError(
                f"{name} is not to be had: the model is on {self.host}.",
                'For this, load it on this machine: p3v.load("phi-3-vision").',
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def ask_many(self, pairs, *, at_once=None, progress=True, **options):
        """As `Phi3Vision.ask_many`. at_once: how many are sent at a time; None is 8. They are sent one by one."""
        at_once = AT_ONCE if at_once is None else whole(at_once, "at_once")
        return in_threads(self, pairs, at_once, progress, options)

    def request(self, images, question, system=None, history=(), *, image_counts=None, **options):
        """As `Phi3Vision.request`."""
        for name in ("raw", "look_up"):
            if options.get(name):
                raise PromptError(
                    f"{name} works with a model on this machine only.",
                    "Leave it out: the server writes its own prompt.",
                )
        history = list(history)
        request = super().request(images, question, system, history, image_counts=image_counts, **options)
        counts = list(image_counts) if image_counts else [len(images)] + [0] * len(history)
        return RemoteRequest(
            **vars(request), question=question, system=system, history=history, image_counts=counts
        )

    def run(self, request):
        """Answer a Request. Returns an Answer; raises Phi3VError."""
        return write(self, self._sent(request))

    def run_in_form(self, request, form):
        """As `Phi3Vision.run_in_form`: the server decodes to the form's schema; that it did is checked here."""
        schema = schema_of(form)
        answer = write(self, self._sent(request) | {"response_format": json_of(schema)})
        if answer.finished:
            checked(answer, schema, self.host)
        return answer, answer.text

    def run_fenced(self, request, begun):
        """As `Phi3Vision.run_fenced`. Other servers begin as they like: what is around the text is taken off."""
        if self._owner != OURS:
            return unwrapped(self.run(request))
        return until_fence(self.run_stream(replace(request, prompt=request.prompt + begun, begun=begun)))

    def run_stream(self, request, stop=None, keep=None):
        """As `run`, in a thread: a Stream."""

        def run(stopped, streamer):
            tell = streamer.on_finalized_text
            return write_in_pieces(self, self._sent(request), stopped, tell, lambda: self.check(request))

        return Stream(None, run, stop, keep)  # without a tokenizer: pieces come as text

    def run_many(self, requests):
        """The Answers to several Requests."""
        return [self.run(request) for request in requests]

    def check(self, request):
        """How many tokens the prompt has, about. The server refuses what is too long."""
        return int(self._counter.count(request.prompt, request.images, request.num_crops))

    def measure(self, prompt, images, num_crops=None, wait=True):
        """As `Phi3Vision.measure`. A count of a model that is not known here says "about"."""
        return self._counter.count(prompt, images, self.crops(num_crops, images))

    def image_tokens(self, images, num_crops=None):
        """As `Phi3Vision.image_tokens`, about."""
        return self._counter.of_images(images, self.crops(num_crops, images))

    @property
    def context(self):
        """As `Phi3Vision.context`; what the server says, else that of the published model."""
        return self._longest or self._counter.config.max_position_embeddings

    def memory(self, tokens):
        """As `Phi3Vision.memory`: what the server needs, about, in 16 bits."""
        return self._counter.memory(tokens)

    def forget(self):
        """Nothing: what a server keeps is its own affair."""

    def crops(self, given, images):
        """What was given here or to `load`; None leaves it to the server."""
        if given is None:
            return self._num_crops
        if self._owner not in KNOWS_CROPS:
            raise PromptError(
                f"{self.host} cannot be told num_crops.",
                "Leave it out, or use phi3v serve or vLLM, which take it.",
            )
        return whole(given, "num_crops")

    def _sent(self, request):
        """The arguments of a chat completion."""
        about = request.question, request.images, request.image_counts, request.system, request.history
        sent = {
            "model": self.name,
            "messages": messages_of(*about),
            "max_tokens": request.max_new_tokens,
            "temperature": request.temperature,
        }
        if request.seed is not None:
            sent["seed"] = request.seed
        more = {}
        if request.num_crops is not None:
            more["mm_processor_kwargs"] = {"num_crops": request.num_crops}
        if request.begun:
            sent["messages"].append({"role": "assistant", "content": request.begun})
            more |= {"continue_final_message": True, "add_generation_prompt": False}
        return sent | {"extra_body": more} if more else sent

    def __repr__(self):
        return f"RemoteVision: {self.name} on {self.host}"
