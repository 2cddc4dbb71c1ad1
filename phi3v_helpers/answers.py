"""What a model gives back: an answer that knows where it came from, and a count of tokens."""

from html import escape


class Answer(str):
    """The text of an answer: a str that also knows

    model: name of the model that gave it. prompt_tokens, new_tokens: int, tokens read and written.
    seconds: float, for preparing the pictures, reading the prompt and writing.
    finished: True where the model ended its answer, False where it was stopped or cut at max_new_tokens.
    reused_tokens: int, tokens of the prompt that were known from questions before, and not computed again.
    steps: int, calls of the model: one for each new token, fewer where several were guessed at once (`look_up`).
    parts: dict, where the seconds went: "pictures" (cut and encoded), "prompt" (up to the first token), "answer".
    """

    def __new__(
        cls,
        text,
        *,
        model,
        prompt_tokens,
        new_tokens,
        seconds,
        finished,
        reused_tokens=0,
        steps=None,
        parts=None,
    ):
        answer = super().__new__(cls, text)
        answer.model = model
        answer.prompt_tokens = prompt_tokens
        answer.new_tokens = new_tokens
        answer.seconds = seconds
        answer.finished = finished
        answer.reused_tokens = reused_tokens
        answer.steps = new_tokens if steps is None else steps
        answer.parts = dict(parts or {})
        return answer

    def __getnewargs_ex__(self):  # for pickle and copy
        return (str(self),), dict(vars(self))

    @property
    def text(self):
        """The answer as a plain str."""
        return str(self)

    @property
    def tokens_per_second(self):
        """Tokens written for each second of `seconds`."""
        return self.new_tokens / self.seconds if self.seconds > 0 else 0.0

    def summary(self):
        """One line: who answered, at what cost."""
        line = (
            f"{self.model} · {self.prompt_tokens:,} tokens in, {self.new_tokens:,} out · {self.seconds:.1f} s"
        )
        return line if self.finished else f"{line} · cut short"

    def __repr__(self):
        return f"{self}\n[{self.summary()}]"

    def _repr_html_(self):
        return (
            f'<div style="white-space: pre-wrap; max-width: 700px">{escape(self)}</div>'
            f'<div style="opacity: 0.7; font-size: 85%">{escape(self.summary())}</div>'
        )


class TokenCount(int):
    """How many tokens a prompt has: an int that also knows `per_image`, a list with those of each picture."""

    def __new__(cls, total, per_image):
        count = super().__new__(cls, total)
        count.per_image = list(per_image)
        return count

    def __getnewargs__(self):
        return int(self), self.per_image

    @property
    def image_tokens(self):
        """Tokens of all pictures together."""
        return sum(self.per_image)

    @property
    def text_tokens(self):
        """Tokens of everything else: question, system text, history, the marks of the format."""
        return int(self) - self.image_tokens

    def __repr__(self):
        return f"{int(self)} tokens: {self.image_tokens} of pictures, {self.text_tokens} of text"
