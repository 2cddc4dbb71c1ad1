"""A loaded model that can be asked: question and pictures -> prompt -> tokens -> answer."""

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from .answers import Answer, TokenCount
from .batches import in_batches
from .chat import Chat
from .checks import whole
from .data import documents, fields, objects, tables, text, writing
from .engine import Engine
from .errors import PromptError
from .estimates import grid_of
from .full_memory import advice_for_memory, refuse_beyond_memory
from .images import load_images
from .memory_use import alive
from .prompts import IMAGE_TAG, build_prompt, raw_prompt
from .streaming import StopWhen, Stream

TINY_BELOW = 100_000_000  # parameters; Phi-3-vision has 4.15 billion
BLOCK = 50_000  # characters of a long text that are tokenized at once
TORN = 64  # tokens more, at most, that a text has because a block ends in a word
LOOK_UP = 8  # tokens that are guessed at once where `look_up` is asked for


@dataclass(frozen=True)
class Request:
    """One question, checked and ready for the model."""

    prompt: str
    images: list
    num_crops: int | None  # None: the processor's own
    max_new_tokens: int
    temperature: float
    seed: int | None
    look_up: bool


class Phi3Vision:
    """A phi3_v model with its processor. `phi3v_helpers.load` makes one.

    name: str for people. model, processor, tokenizer: the transformers objects.
    load_options: dict, what to give `load` for this model again; None where it was not used.
    May be used from several threads: questions are answered one after the other.
    """

    def __init__(self, model, processor, name, num_crops=None, lock=None, load_options=None, engine=None):
        self.model = model.eval()
        self.processor = processor
        self.engine = engine or Engine(model, processor)
        self.tokenizer = processor.tokenizer
        self.name = name
        self.is_tiny = model.num_parameters() < TINY_BELOW
        self._num_crops = whole(num_crops, "num_crops") if num_crops is not None else None
        self.load_options = load_options
        # Whoever uses the model, the tokenizer or what is kept holds it.
        self.lock = lock or threading.Lock()
        alive.add(self)

    @property
    def device(self):
        return self.model.device

    @property
    def dtype(self):
        return self.model.dtype

    @property
    def quantize(self):
        """ "8bit", "4bit", or None: see `load`."""
        return getattr(self.model, "quantize", None)

    @property
    def attention(self):
        """The name that transformers has for it: "eager", "sdpa" or "flash_attention_2"."""
        return self.model.config._attn_implementation

    def ask(self, images, question, **options):
        """Ask a question about pictures.

        images: None, one source or a list of sources, each as in `load_image`.
        question: str. Control strings in it are plain text, see `phi3v_helpers.prompts`.
        options:
            system: str, a text in front of the conversation; None.
            max_new_tokens: int, the most tokens of an answer; 500.
            temperature: float >= 0; 0 always takes the likeliest token, more makes answers vary; 0.
            num_crops: int, the most tiles of 336 x 336 pixels a picture is cut into. None takes what `load`
                was given, else 16 for one picture and 4 for several, as the model's card advises; the tiny
                model has a number of its own.
            seed: int that makes answers with a temperature repeatable; None.
            look_up: True guesses several tokens at once from what the prompt has after the same words, and keeps
                those that the model would have written. The same answer, sooner where it repeats the prompt, which is
                read anew for it; False.
            raw: True takes the question as the whole prompt, control strings and image tags as they stand in it; False.
        Pictures, and beginnings of conversations, that were read before are not computed again, see `p3v.memory`.
        Returns an Answer.
        Raises ImageError: a picture that cannot be read. PromptError: an option out of range, tags that do
        not match, too long for the context. Phi3VError: out of memory.
        """
        return self.run(self.request(load_images(images), question, **options))

    def stream(self, images, question, *, stop=None, **options):
        """Ask, and get the answer in pieces while it is written.

        stop: threading.Event or None; when it is set, the answer ends after the present token.
        images, question, options, errors: as in `ask`. Returns a Stream, an iterator of str.
        """
        return self.run_stream(self.request(load_images(images), question, **options), stop)

    def ask_many(self, pairs, *, at_once=None, progress=True, **options):
        """Ask many questions, several of them at a time: sooner than one by one, with the same answers.

        pairs: iterable of (images, question), both as in `ask`.
        at_once: int, the most that are computed together; None is as many as there is memory for, 16 at most.
        progress: show a progress bar.
        options: as in `ask`, for all of them; not look_up. With a temperature the answers depend on `at_once`.
        Returns an iterator of one Answer for each pair, in their order, each as soon as it and those before are there.
        `seconds` of an Answer is its share of those of its batch.
        Raises, while iterating, what `ask` raises, with the number of the pair.
        """
        at_once = at_once if at_once is None else whole(at_once, "at_once")
        return in_batches(self, pairs, at_once, progress, options)

    def chat(self, images=None, system=None, history=(), image_counts=None):
        """A Chat about these pictures: question after question, each knowing what was said.

        history, image_counts: of an earlier Chat, to go on with it.
        """
        return Chat(self, images, system, history, image_counts)

    def read_text(self, image, **options):
        """The text in a picture and nothing else, in reading order: an Answer, "" where there is none.

        image: as in `load_image`. options: as in `ask`, but not raw and look_up; max_new_tokens is 1,000.
        The text ends where the model puts a line that begins with three backticks. Longer than max_new_tokens it is
        cut, and `finished` of the Answer is False.
        Raises what `ask` raises.
        """
        return text.read_text(self, image, options)

    def read_table(self, image, *, numbers=True, **options):
        """The table in a picture, or the values of a chart: a pandas.DataFrame, empty where there is none.

        image: as in `load_image`.
        numbers: columns of nothing but numbers, such as -1,234.5, become int64 or float64, with NaN for empty cells;
            "12 %", "$5", "007" and "1.234,5" stay text, and all cells where this is False.
        options: as in `ask`, but not raw and look_up; max_new_tokens is 1,000.
        Tables have up to 12 columns and 100 rows, cells up to 100 characters. Names of columns that come again or are
        empty get a number. `attrs["model"]` is the name of the model.
        Needs `pip install "phi3v-helpers[data]"`.
        Raises what `ask` raises. Phi3VError: longer than max_new_tokens, or a package is absent.
        """
        return tables.read_table(self, image, numbers, options)

    def extract(self, images, schema, **options):
        """Fill in a schema from a picture, or from several together; what comes back always fits it.

        images: one source or a list of sources, each as in `load_image`.
        schema: a class that is a pydantic.BaseModel, or a JSON schema as a dict.
        options: as in `ask`, but not raw and look_up; max_new_tokens is 1,000.
        Returns an instance of the class; for a dict plain Python data.
        What a picture does not show is null where the schema allows null, and left out where the schema does not
        require it; so make fields optional, or the model has to write something. Descriptions of fields are in the
        prompt. The schema's own limits hold. Where it has none, a string has up to 200 characters, an array or a dict
        100 items, a number 9 decimals and an absolute value up to 10**15, and what is within itself goes 4 levels
        deep. Objects have no properties but those named, in that order. Not supported in a dict: allOf of several,
        not, if, uniqueItems, contains, patterns that look around, and anyOf, $ref or enum with other rules beside
        them.
        Needs `pip install "phi3v-helpers[data]"`.
        Raises what `ask` raises. PromptError: the schema is wrong or not supported. Phi3VError: longer than
        max_new_tokens; a package is absent; a validator of the class refuses the data, which is `value` of the error.
        """
        return fields.extract(self, images, schema, options)

    def find_objects(self, image, **options):
        """What is in a picture: a list of Found, each with what, colour and where, str (the latter two may be None).

        `counts()` of the list is a dict {(colour, what): number}. image: as in `load_image`.
        options: as in `ask`, but not raw and look_up; max_new_tokens is 1,000.
        At most 100 objects. `where` is in words: Phi-3-vision was not trained on any format for boxes, so there are
        none here.
        Needs `pip install "phi3v-helpers[data]"`.
        Raises what `ask` raises. Phi3VError: longer than max_new_tokens, or a package is absent.
        """
        return objects.find_objects(self, image, options)

    def each_page(self, source, method, *arguments, progress=True, **options):
        """Do the same with every page: `dict(model.each_page("invoices.pdf", "extract", Invoice))`.

        source: a PDF document, a picture, a folder of both, or an iterable of pictures such as `p3v.pages` gives; a
            path, an address, bytes or a file object.
        method: "ask", "read_text", "read_table", "extract" or "find_objects".
        arguments, options: what that method takes besides the picture.
        progress: show a progress bar.
        Returns an iterator of (page, result). page: its number, from 1; in a folder the name of the file, with
        "#page=2" behind it in a document of several; hidden files and folders within it are left out.
        result: what the method returns, or for a page that fails the Phi3VError; it goes on with the next one.
        Raises ImageError: nothing can be read there. PromptError: what would be refused for every page.
        """
        return documents.each_page(self, source, method, arguments, progress, options)

    def count_tokens(self, images, question="", *, system=None, num_crops=None):
        """How many tokens this prompt has: a TokenCount, an int. Nothing is run."""
        images = load_images(images)
        return self.measure(build_prompt(question, len(images), system), images, num_crops)

    def measure(self, prompt, images, num_crops=None, wait=True):
        """As `count_tokens`, of a whole prompt and PIL images. With wait=False None, where the model is at work."""
        if not self.lock.acquire(blocking=wait):
            return None
        try:
            return self._count(prompt, images, self.crops(num_crops, images))
        finally:
            self.lock.release()

    def image_tokens(self, images, num_crops=None):
        """How many tokens each of these PIL images has when asked about together, list of int. Raises ImageError."""
        num_crops = self.crops(num_crops, images)
        return [self._image_tokens(*numbered, num_crops) for numbered in enumerate(images, start=1)]

    @property
    def context(self):
        """The most tokens that a prompt and its answer may have together, int."""
        return self.model.config.max_position_embeddings

    def memory(self, tokens):
        """What the device needs for so many tokens, at least: (bytes of the weights, bytes of keys and values)."""
        weights = self.model.get_memory_footprint(return_buffers=False)
        config = self.model.config
        width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
        return weights, 2 * config.num_hidden_layers * width * int(tokens) * self.dtype.itemsize

    def forget(self):
        """Let go of everything that is kept for later questions, see `p3v.memory`. Needed after a change of weights."""
        with self.lock:
            self.engine.kept.clear()

    def request(
        self,
        images,
        question,
        system=None,
        history=(),
        *,
        image_counts=None,
        max_new_tokens=500,
        temperature=0.0,
        num_crops=None,
        seed=None,
        look_up=False,
        raw=False,
    ):
        """Check a question about a list of PIL images. Returns a Request; raises PromptError.

        image_counts: how many of the images each turn brings, as n_images of `build_prompt`; None: the first one all.
        """
        if isinstance(question, str) and not question.strip():
            raise PromptError("The question is empty.", "Ask something about the pictures.")
        if not isinstance(temperature, (int, float)) or not 0 <= temperature < float("inf"):
            raise PromptError(f"temperature is {temperature!r}.", "Give 0, or a small number such as 0.7.")
        if seed is not None and not isinstance(seed, int):
            raise PromptError(f"seed is {seed!r}.", "Give a whole number, or None.")
        if raw and (system or history):
            raise PromptError(
                "A raw prompt came with a system text or a history.", "Write all of it into the prompt."
            )
        if raw:
            prompt = raw_prompt(question, len(images))
        else:
            prompt = build_prompt(question, image_counts or len(images), system, history)
        return Request(
            prompt=prompt,
            images=images,
            num_crops=self.crops(num_crops, images),
            max_new_tokens=whole(max_new_tokens, "max_new_tokens"),
            temperature=float(temperature),
            seed=seed,
            look_up=bool(look_up),
        )

    def run(self, request, stopped=lambda: False, streamer=None, constraint=None):
        """Answer a Request. `stopped()` is asked after every token. Returns an Answer; raises Phi3VError.

        constraint: a LogitsProcessor for this answer alone, see `data`; None. Not together with look_up.
        """
        with self._turn(stopped) as mine, advice_for_memory(self, request):
            if not mine:
                return Answer("", model=self.name, prompt_tokens=0, new_tokens=0, seconds=0.0, finished=False)
            started = time.perf_counter()
            self._check_length(request)
            refuse_beyond_memory(self, request)
            inputs = self.engine.read(request.prompt, request.images, request.num_crops)
            encoded, watch = time.perf_counter(), StopWhen(stopped)
            with self._random_numbers(request):
                written = self.engine.write(
                    inputs, request.max_new_tokens, [watch], streamer, constraint, **_decoding(request)
                )
            ended = time.perf_counter()
            first = watch.first or ended
            return self._answer(
                inputs,
                written.ids,
                seconds=ended - started,
                reused_tokens=written.reused,
                steps=watch.steps,
                parts={"pictures": encoded - started, "prompt": first - encoded, "answer": ended - first},
            )

    def run_many(self, requests):
        """The Answers to several Requests with the same options, computed together. Raises Phi3VError."""
        with self.lock, advice_for_memory(self, requests[0]):
            started = time.perf_counter()
            refuse_beyond_memory(self, requests[0])
            batch = [self.engine.read(one.prompt, one.images, one.num_crops) for one in requests]
            with self._random_numbers(requests[0]):
                ids = self.engine.write_many(batch, requests[0].max_new_tokens, **_decoding(requests[0]))
            seconds = (time.perf_counter() - started) / len(batch)
            return [self._answer(inputs, new, seconds=seconds) for inputs, new in zip(batch, ids)]

    def _answer(self, inputs, ids, **about):
        return Answer(
            self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
            model=self.name,
            prompt_tokens=len(inputs.ids),
            new_tokens=len(ids),
            finished=len(ids) > 0 and ids[-1] in self.engine.ends,
            **about,
        )

    def run_in_form(self, request, form):
        """As `run`, kept to a form (see `data.schemas`): the Answer, and its JSON as it was written, a str."""
        return writing.run_in_form(self, request, form)

    def run_fenced(self, request, begun):
        """As `run`; the answer is begun with the text `begun`, and ends at a line of three backticks."""
        return writing.run_fenced(self, request, begun)

    def run_stream(self, request, stop=None, keep=None):
        """As `run`, in a thread: a Stream. keep: called with the Answer, whole or stopped."""
        return Stream(
            self.tokenizer, lambda stopped, streamer: self.run(request, stopped, streamer), stop, keep
        )

    @contextmanager
    def _turn(self, stopped):
        """Wait for the model; gives False where `stopped()` became true meanwhile."""
        while not self.lock.acquire(timeout=0.05):
            if stopped():
                yield False
                return
        try:
            yield not stopped()
        finally:
            self.lock.release()

    @contextmanager
    def _random_numbers(self, request):
        """Those of the seed; the caller's go on afterwards as if we had not been there."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=request.seed is not None):
            if request.seed is not None:
                torch.manual_seed(request.seed)
            yield

    def crops(self, given, images):
        """The most tiles (int) that each of these pictures is cut into: the card's advice unless something is given.

        None is the processor's own number.
        """
        if given is not None:
            return whole(given, "num_crops")
        if self._num_crops is not None or self.is_tiny:
            return self._num_crops
        return 4 if len(images) > 1 else 16

    def _count(self, prompt, images, num_crops):
        per_image = [self._image_tokens(*numbered, num_crops) for numbered in enumerate(images, start=1)]
        chunks = IMAGE_TAG.split(prompt)[::2]  # every other part is the number of a tag
        return TokenCount(
            sum(len(self.tokenizer(chunk).input_ids) for chunk in chunks) + sum(per_image), per_image
        )

    def _image_tokens(self, number, image, num_crops):
        grid_of(
            self.processor.image_processor, number, image, num_crops
        )  # which has words for what cannot be cut
        return self.processor.image_processor.num_image_tokens(*image.size, num_crops)

    def check(self, request):
        """How many tokens the prompt of a Request has. Raises PromptError where that is too long for the context."""
        with self.lock:
            return self._check_length(request)

    def _check_length(self, request):
        room = self.context
        if self._is_far_beyond(request.prompt, room):
            raise PromptError(
                f"The prompt has {len(request.prompt):,} characters, which are more than the {room:,} tokens that "
                "this model can hold.",
                "Ask about a part of the text at a time.",
            )
        count = self._count(request.prompt, request.images, request.num_crops)
        if count + request.max_new_tokens > room:
            raise PromptError(
                f"The prompt has {int(count):,} tokens ({count.image_tokens:,} of them pictures), the answer "
                f"up to {request.max_new_tokens:,}: more than the {room:,} that this model can hold.",
                "Ask about fewer pictures, set a smaller num_crops or max_new_tokens, or begin a new chat.",
            )
        return int(count)

    def _is_far_beyond(self, text, room):
        """Whether a long text has more than `room` tokens, without tokenizing megabytes, which takes long."""
        count = 0
        for start in range(0, len(text) if len(text) > BLOCK else 0, BLOCK):
            count += len(self.tokenizer(text[start : start + BLOCK]).input_ids) - TORN
            if count > room:
                return True
        return False

    def __repr__(self):
        dtype = str(self.dtype).removeprefix("torch.")
        how = ", ".join(filter(None, (dtype, self.attention, self.quantize)))
        return f"Phi3Vision: {self.name} on {self.device}, {how}"


def _decoding(request):
    """The Request's way of choosing tokens, in the words of `generate`."""
    if request.temperature > 0:
        return {"do_sample": True, "temperature": request.temperature}
    greedy = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    return greedy | ({"prompt_lookup_num_tokens": LOOK_UP} if request.look_up else {})
