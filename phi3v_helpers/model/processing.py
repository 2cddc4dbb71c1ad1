"""Prompts and pictures to the inputs of the model.

The prompt is split at its `<|image_n|>` tags. Each piece is tokenized by itself, with a beginning-of-sequence
token of its own, and tag n becomes as many `<|image|>` tokens as picture n has features: this is what the
published processor does, except that it writes -n where we write `<|image|>`, the convention of transformers.

The model fills `<|image|>` tokens with pictures in the order of `pixel_values`, so pictures are handed on in
the order of their tags.
"""

import re

from transformers import AutoTokenizer
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .configuration import IMAGE_TOKEN_ID
from .image_processing import Phi3VImageProcessor

IMAGE_TAG = re.compile(r"<\|image_([0-9]{1,9})\|>")
IMAGE_TOKEN = "<|image|>"

# Writes a conversation as the model was taught it. A content is a string, or a list of {"type": "image"} and
# {"type": "text", "text": ...} parts. Each picture gets its tag and a line end; tags in a text are counted.
CHAT_TEMPLATE = """
{%- set count = namespace(images=0) -%}
{%- for message in messages -%}
    {{- '<|' + message['role'] + '|>\\n' -}}
    {%- set parts = message['content'] -%}
    {%- if parts is string -%}
        {%- set parts = [{'type': 'text', 'text': parts}] -%}
    {%- endif -%}
    {%- for part in parts -%}
        {%- if part['type'] == 'text' -%}
            {%- set count.images = count.images + part['text'].count('<|image_') -%}
            {{- part['text'] -}}
        {%- else -%}
            {%- set count.images = count.images + 1 -%}
            {{- '<|image_' + count.images | string + '|>\\n' -}}
        {%- endif -%}
    {%- endfor -%}
    {{- '<|end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt and messages[-1]['role'] != 'assistant' -%}
    {{- '<|assistant|>\\n' -}}
{%- endif -%}
""".strip()


class Phi3VProcessor(ProcessorMixin):
    """Image processor and tokenizer in one.

    Args:
        image_processor: a `Phi3VImageProcessor`.
        tokenizer: the tokenizer; its `<|image|>` is the image token, 32044 where it has none.
        chat_template: a Jinja template; ours where left out.
    """

    def __init__(self, image_processor, tokenizer, chat_template=None):
        tokenizer.padding_side = "left"  # answers are written at the right end
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)
        known = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.image_token_id = IMAGE_TOKEN_ID if known in (None, tokenizer.unk_token_id) else known

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, num_crops=None, trust_remote_code=None, **kwargs):
        """Load from a folder or the hub.

        Args:
            pretrained_model_name_or_path: folder or hub id.
            num_crops: overrides the saved one.
            trust_remote_code: ignored. Published folders name code of their own, and none of it is needed.
            **kwargs: `revision`, `cache_dir`, `token`, ... as in transformers.
        """
        settings = {} if num_crops is None else {"num_crops": num_crops}
        saved, _ = cls.get_processor_dict(pretrained_model_name_or_path, **kwargs)
        return cls(
            Phi3VImageProcessor.from_pretrained(pretrained_model_name_or_path, **settings, **kwargs),
            AutoTokenizer.from_pretrained(pretrained_model_name_or_path, trust_remote_code=False, **kwargs),
            chat_template=saved.get("chat_template"),
        )

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Save tokenizer, template and image processor, the latter where other software looks for it."""
        self.image_processor.save_pretrained(save_directory)
        return super().save_pretrained(save_directory, *args, **kwargs)

    def to_dict(self):
        """What processor_config.json says; preprocessor_config.json says the rest."""
        output = super().to_dict()
        output.pop("image_processor", None)
        return output

    def __call__(self, text=None, images=None, num_crops=None, padding=True, return_tensors="pt", **kwargs):
        """Make the inputs of the model.

        Args:
            text: a prompt, with tags `<|image_1|>` to `<|image_n|>` where its n pictures go, or a list of
                prompts.
            images: the pictures of the prompt: one, or a list. For a list of prompts: a list of lists, or a
                flat list that is dealt out by the number of tags. What a picture is:
                see `Phi3VImageProcessor.preprocess`.
            num_crops: the most crops a picture is cut into; the image processor's own where left out.
            padding: prompts of a list are padded to the longest, on the side that the tokenizer says, which
                is the left one. False needs prompts of one length, or `return_tensors=None`.
            return_tensors: "pt", "np", or None for lists.
            **kwargs: `images_kwargs` may hold `num_crops`. Truncation, videos and audio are refused; other
                arguments that transformers knows change nothing.

        Returns:
            A `BatchFeature` with `input_ids` and `attention_mask`, int64 (prompts, tokens), and, if there are
            pictures, `pixel_values` and `image_sizes` as the image processor makes them, in the order of the
            tags.

        Raises:
            ValueError: tags and pictures do not match, or the arguments ask for what cannot be done.
        """
        _refuse_unsupported(kwargs)
        if num_crops is None:
            num_crops = (kwargs.get("images_kwargs") or {}).get("num_crops")
        prompts, pictures = _pair_up(text, images)
        tags = [_checked_tags(prompt, len(mine)) for prompt, mine in zip(prompts, pictures)]
        ordered = [mine[tag - 1] for mine, row in zip(pictures, tags) for tag in row]
        vision = self.image_processor(ordered, num_crops=num_crops) if ordered else {}
        counts = iter(vision.get("num_img_tokens", []))
        rows = [self._tokenize(prompt, [next(counts) for _ in row]) for prompt, row in zip(prompts, tags)]
        data = self._pad(rows, padding, return_tensors)
        data.update({key: vision[key] for key in ("pixel_values", "image_sizes") if key in vision})
        return BatchFeature(data=data, tensor_type=return_tensors)

    def prompt_ids(self, prompt, image_tokens):
        """Tokenize one prompt whose pictures were cut, or encoded, before.

        Args:
            prompt: as for `__call__`.
            image_tokens: how many tokens each of its pictures has, in the order of their numbers.

        Returns:
            Its ids (list of int), and the numbers of its pictures in the order of their tags.

        Raises:
            ValueError: tags and pictures do not match.
        """
        tags = _checked_tags(prompt, len(image_tokens))
        return self._tokenize(prompt, [image_tokens[tag - 1] for tag in tags]), tags

    def apply_chat_template(self, conversation, *args, **kwargs):
        """As in transformers. A content is a string, or a list of image and text parts."""
        return super().apply_chat_template(_in_parts(conversation), *args, **kwargs)

    @property
    def model_input_names(self):
        """Names of what `__call__` returns."""
        return ["input_ids", "attention_mask", "pixel_values", "image_sizes"]

    def _tokenize(self, prompt, counts):
        """Ids of one prompt, whose k-th tag stands for `counts[k]` image tokens."""
        pieces = IMAGE_TAG.split(prompt)[::2]  # every second one is a number
        ids = list(self.tokenizer(pieces[0])["input_ids"])
        for count, piece in zip(counts, pieces[1:]):
            ids += [self.image_token_id] * count + list(self.tokenizer(piece)["input_ids"])
        return ids

    def _pad(self, rows, padding, return_tensors):
        longest = max(len(row) for row in rows)
        if not padding:
            if return_tensors is not None and min(len(row) for row in rows) < longest:
                raise ValueError("The prompts differ in length and cannot form a tensor. Pass padding=True.")
            return {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
        token = self.tokenizer.pad_token_id
        token = (self.tokenizer.eos_token_id or 0) if token is None else token
        ids, mask = [], []
        for row in rows:
            fill, ones = [token] * (longest - len(row)), [1] * len(row)
            left = self.tokenizer.padding_side == "left"
            ids.append(fill + row if left else row + fill)
            mask.append([0] * len(fill) + ones if left else ones + [0] * len(fill))
        return {"input_ids": ids, "attention_mask": mask}


def _in_parts(conversation):
    """The conversation, or the list of them, with lists of parts for contents that are strings."""
    if not isinstance(conversation, (list, tuple)):
        return conversation
    if conversation and isinstance(conversation[0], (list, tuple)):
        return [_in_parts(one) for one in conversation]
    messages = []
    for message in conversation:
        if isinstance(message.get("content"), str):
            message = {**message, "content": [{"type": "text", "text": message["content"]}]}
        messages.append(message)
    return messages


def _refuse_unsupported(kwargs):
    if kwargs.get("truncation") or (kwargs.get("text_kwargs") or {}).get("truncation"):
        raise ValueError("truncation would cut pictures into pieces. Shorten the prompt, or lower num_crops.")
    for kind in ("videos", "audio"):
        if kwargs.get(kind) is not None:
            raise ValueError(f"phi3_v reads text and pictures only. Leave {kind} out.")


def _pair_up(text, images):
    """Prompts, and for each of them the list of its pictures."""
    if isinstance(text, str):
        pictures = _as_list(images)
        if len(pictures) == 1 and isinstance(pictures[0], (list, tuple)):
            pictures = list(pictures[0])
        return [text], [pictures]
    if not isinstance(text, (list, tuple)) or not text or not all(isinstance(one, str) for one in text):
        raise ValueError("There is no prompt: pass text as a string, or as a list of one or more strings.")
    if images is None:
        return list(text), [[] for _ in text]
    images = _as_list(images)
    if any(part is None or isinstance(part, (list, tuple)) for part in images):
        if len(images) != len(text):
            raise ValueError(
                f"{_count(len(text), 'prompt')} came with {_count(len(images), 'list')} of pictures. Pass one "
                "for each prompt, an empty one for a prompt without pictures."
            )
        return list(text), [_as_list(part) for part in images]
    tags = [len(set(IMAGE_TAG.findall(prompt))) for prompt in text]
    if sum(tags) != len(images):
        raise ValueError(
            f"The prompts have tags for {_count(sum(tags), 'picture')}, and {len(images)} came with them. Write "
            "one tag for each picture, or pass a list of pictures for each prompt."
        )
    dealt = iter(images)
    return list(text), [[next(dealt) for _ in range(count)] for count in tags]


def _as_list(part):
    if part is None:
        return []
    return list(part) if isinstance(part, (list, tuple)) else [part]


def _checked_tags(prompt, pictures):
    """Numbers of the tags of `prompt`, in their order; a ValueError if they do not fit that many pictures."""
    if IMAGE_TOKEN in prompt:
        raise ValueError(f"{IMAGE_TOKEN} is not for prompts. Write <|image_1|> where the first picture goes.")
    tags = [int(number) for number in IMAGE_TAG.findall(prompt)]
    if sorted(tags) == list(range(1, pictures + 1)):
        return tags
    shown = ", ".join(f"<|image_{tag}|>" for tag in tags) or "none"
    repeated = [tag for tag in tags if tags.count(tag) > 1]
    if repeated:
        problem = f"The tag <|image_{repeated[0]}|> appears more than once in the prompt."
    elif len(tags) != pictures:
        problem = (
            f"The prompt has {_count(len(tags), 'image tag')} ({shown}) for {_count(pictures, 'picture')}."
        )
    else:
        problem = f"The prompt has the image tags {shown} for {_count(pictures, 'picture')}."
    wanted = " ".join(f"<|image_{number}|>" for number in range(1, pictures + 1))
    if not pictures:
        raise ValueError(f"{problem} Pass images, or take the tags out.")
    raise ValueError(f"{problem} It needs {wanted}, each once, in any order.")


def _count(number, noun):
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
