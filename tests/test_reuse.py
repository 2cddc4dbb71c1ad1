"""What was computed once is not computed again, and every answer is what it would have been without."""

import random

import pytest
import torch
from helpful import helpful
from PIL import Image
from random_model import make_folder

import phi3v_helpers as p3v
from phi3v_helpers.kept import Kept, Text
from phi3v_helpers.model.cache import GrowingCache
from phi3v_helpers.vision import LOOK_UP

ROPE = {"type": "su", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}


def picture(seed, size=(200, 140)):
    generator = random.Random(seed)
    return Image.frombytes("RGB", size, generator.randbytes(3 * size[0] * size[1]))


PICTURES = [picture(0), picture(1), picture(2, (150, 200))]
ONE, TWO, THREE = PICTURES


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A model whose answers depend on everything that it read."""
    # No other test's model, which may be in use still, has this name: memory() tells of all.
    return p3v.load(make_folder(tmp_path_factory.mktemp("reused") / "reused", strength=6), verbose=False)


@pytest.fixture
def model(loaded):
    loaded.forget()
    yield loaded
    loaded.forget()


@pytest.fixture(scope="module")
def longrope(tmp_path_factory):
    """Such a model that changes its rotation beyond 256 tokens."""
    folder = tmp_path_factory.mktemp("longrope") / "longrope"
    changes = {"rope_scaling": ROPE, "original_max_position_embeddings": 256, "max_position_embeddings": 4096}
    return p3v.load(make_folder(folder, strength=6, **changes), verbose=False)


def without_reuse(model, ask):
    """What `ask(model)` gives where nothing is known."""
    model.forget()
    try:
        return ask(model)
    finally:
        model.forget()


class Work:
    """Counts what a block computes: pictures cut, crops encoded, layers of the ViT, forward calls, tokens read."""

    def __init__(self, vision):
        self.vision, self.cut, self.crops, self.layers, self.calls, self.tokens = vision, 0, 0, 0, 0, 0
        self.logits, self.masks = 0, 0

    def __enter__(self):
        model, tower = self.vision.model, self.vision.model.model.vision_embed_tokens.img_processor
        image_processor = self.vision.processor.image_processor
        self.handles = [
            tower.register_forward_pre_hook(self._saw_crops),
            model.model.layers[0].register_forward_pre_hook(self._read, with_kwargs=True),
            model.lm_head.register_forward_pre_hook(self._head),
            *(
                layer.register_forward_pre_hook(self._saw_layer)
                for layer in tower.vision_model.encoder.layers
            ),
        ]
        self._original = image_processor.preprocess
        image_processor.preprocess = self._cut
        return self

    def __exit__(self, *_):
        self.vision.processor.image_processor.preprocess = self._original
        for handle in self.handles:
            handle.remove()

    def _cut(self, images, **options):
        self.cut += len(images) if isinstance(images, list) else 1
        return self._original(images, **options)

    def _saw_crops(self, module, arguments):
        self.crops += len(arguments[0])

    def _saw_layer(self, module, arguments):
        self.layers += len(arguments[0])

    def _read(self, module, arguments, options):
        hidden = arguments[0]
        self.calls += 1
        self.tokens += hidden.shape[0] * hidden.shape[1]
        self.masks += options.get("attention_mask") is not None

    def _head(self, module, arguments):
        self.logits += arguments[0].shape[0] * arguments[0].shape[1]


# --- The same answers ---


def test_the_answers_depend_on_what_was_read(model):
    """Or the tests below would prove nothing."""
    answers = {
        model.ask(one, question, max_new_tokens=12) for one in PICTURES for question in ("Why?", "Who?")
    }
    assert len(answers) >= 5


def test_a_second_question_about_a_picture(model):
    first = model.ask(ONE, "What is this?", max_new_tokens=12)
    second = model.ask(ONE, "How many are there?", max_new_tokens=12)
    assert first.reused_tokens == 0
    assert second.reused_tokens >= model.image_tokens([ONE])[0]
    assert second == without_reuse(model, lambda m: m.ask(ONE, "How many are there?", max_new_tokens=12))


def test_the_same_question_again(model):
    first = model.ask(ONE, "What is this?", max_new_tokens=12)
    again = model.ask(ONE, "What is this?", max_new_tokens=12)
    assert again == first and again.reused_tokens == again.prompt_tokens - 1


def test_a_chat_reads_only_what_is_new(model):
    chat = model.chat(ONE)
    answers = [chat.ask(question, max_new_tokens=10) for question in ("Who?", "Where?", "When?")]
    for before, after in zip(answers, answers[1:]):
        assert after.reused_tokens >= before.prompt_tokens
    fresh = model.chat(ONE)
    for question, answer in zip(("Who?", "Where?", "When?"), answers):
        assert without_reuse(model, lambda m, q=question: fresh.ask(q, max_new_tokens=10)) == answer


def test_a_picture_that_comes_midway(model):
    chat = model.chat(ONE)
    chat.ask("Who?", max_new_tokens=8)
    chat.add(TWO)
    answer = chat.ask("And here?", max_new_tokens=12)
    assert answer.reused_tokens > model.image_tokens([ONE])[0]
    fresh = model.chat(ONE, history=chat.history[:1])
    fresh.add(TWO)
    assert without_reuse(model, lambda m: fresh.ask("And here?", max_new_tokens=12)) == answer


def test_a_walk_through_many_questions(model):
    """200 questions on all kinds of conversations, each equal to the same question where nothing is known."""
    generator, chats = random.Random(5), []
    reused = 0
    for _ in range(200):
        images = generator.sample(PICTURES, generator.randint(0, 3))
        question = generator.choice(("What?", "What is it?", "Who are they, and why?"))
        options = {"max_new_tokens": generator.randint(1, 6), "num_crops": generator.choice((None, 2))}
        options["look_up"] = generator.random() < 0.3
        if chats and generator.random() < 0.6:
            images, history, options["num_crops"] = generator.choice(chats)
        else:
            history = ()
        request = model.request(images, question, history=history, **options)
        answer = model.run(request)
        reused += answer.reused_tokens
        kept = model.engine.kept
        model.engine.kept = Kept(0)
        assert model.run(request) == answer
        model.engine.kept = kept
        if len(history) < 3:
            chats.append((images, [*history, (question, str(answer))], options["num_crops"]))
    assert reused > 10_000


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_same_whatever_the_attention(tmp_path, attention):
    model = p3v.load(make_folder(tmp_path, strength=6), attention=attention, verbose=False)
    model.ask(ONE, "Who?", max_new_tokens=5)
    answer = model.ask(ONE, "Where are they?", max_new_tokens=12)
    assert answer.reused_tokens > 0
    assert answer == without_reuse(model, lambda m: m.ask(ONE, "Where are they?", max_new_tokens=12))


@pytest.mark.parametrize("length", [150, 235, 251, 256, 257, 270, 330])
def test_across_the_longrope_boundary(longrope, length):
    """Keys of either rotation are never taken for those of the other."""
    model = longrope
    model.forget()
    words = "a " * ((length - int(model.count_tokens(ONE, "x"))) // 2)
    chat = model.chat(ONE)
    answers = [chat.ask(question, max_new_tokens=20) for question in (f"x{words}", "Why?", "Who?")]
    chat.rewind(1)
    answers.append(chat.ask("Who else?", max_new_tokens=20))
    plain = model.chat(ONE)
    expected = [
        without_reuse(model, lambda m, q=q: plain.ask(q, max_new_tokens=20))
        for q in (f"x{words}", "Why?", "Who?")
    ]
    plain.rewind(1)
    expected.append(without_reuse(model, lambda m: plain.ask("Who else?", max_new_tokens=20)))
    assert answers == expected


def test_pictures_are_told_apart_by_their_pixels(model):
    changed = ONE.copy()
    changed.putpixel((199, 139), (1, 2, 3))
    model.ask(ONE, "What?", max_new_tokens=4)
    answer = model.ask(changed, "What?", max_new_tokens=4)
    assert answer.reused_tokens < 10
    turned = Image.frombytes("RGB", ONE.size[::-1], ONE.tobytes())  # the same bytes, another shape
    assert model.ask(turned, "What?", max_new_tokens=4).reused_tokens < 10
    assert model.ask(ONE, "What?", max_new_tokens=4, num_crops=3).reused_tokens < 10


def test_another_order_of_pictures(model):
    model.ask([ONE, TWO], "What?", max_new_tokens=6)
    answer = model.ask([TWO, ONE], "What?", max_new_tokens=6)
    assert answer == without_reuse(model, lambda m: m.ask([TWO, ONE], "What?", max_new_tokens=6))


def test_look_up_gives_the_same_answer_in_fewer_steps(model):
    plain = model.ask(ONE, "Say it again and again.", max_new_tokens=60)
    history = [("Say it.", str(plain))]
    with Work(model) as slow:
        first = model.run(model.request([ONE], "Say it again and again.", history=history, max_new_tokens=60))
    model.forget()
    with Work(model) as quick:
        second = model.run(
            model.request([ONE], "Say it again and again.", history=history, max_new_tokens=60, look_up=True)
        )
    # Early releases of transformers 5 end some tokens before max_new_tokens.
    assert first.startswith(second) and second.new_tokens > first.new_tokens - LOOK_UP
    assert quick.calls < slow.calls
    assert (first.steps, second.steps) == (slow.calls, quick.calls)
    for text in model.engine.kept._texts().values():  # wrong guesses are not kept
        assert text.cache.get_seq_length() == len(text.signature)


# --- Nothing computed twice, nothing in vain: counted, so that no later change undoes it unseen ---


def test_what_a_question_costs(model):
    with Work(model) as work:
        answer = model.ask(ONE, "What?", max_new_tokens=8, num_crops=16)
    rows, columns = 3, 4  # of a picture of 200 x 140
    crops = 1 + rows * columns
    assert work.cut == 1
    assert work.crops == crops  # no padding
    assert work.layers == crops * (model.model.config.vision_config.num_hidden_layers - 1)  # not the last
    assert work.calls == answer.new_tokens
    assert work.tokens == answer.prompt_tokens + answer.new_tokens - 1
    assert work.logits == answer.new_tokens  # of the last token only
    assert work.masks == 0  # causal is enough


def test_what_a_second_question_costs(model):
    model.ask(ONE, "What?", max_new_tokens=8)
    with Work(model) as work:
        answer = model.ask(ONE, "Why is that so?", max_new_tokens=8)
    assert work.cut == work.crops == 0
    assert work.tokens == answer.prompt_tokens - answer.reused_tokens + answer.new_tokens - 1
    assert answer.prompt_tokens - answer.reused_tokens < 30


def test_a_picture_twice_is_encoded_once(model):
    with Work(model) as work:
        model.ask([ONE, ONE, TWO], "What?", max_new_tokens=2)
        model.ask([TWO, ONE], "What?", max_new_tokens=2)
    assert work.cut == 2 and work.crops == 4


def test_the_cache_grows_without_copies(model):
    cache = GrowingCache()
    state = torch.randn(1, 2, 100, 4)
    keys, _ = cache.update(state, state, 0)
    place = keys.data_ptr()
    for _ in range(50):
        keys, values = cache.update(state[:, :, :1], state[:, :, :1], 0)
    assert keys.data_ptr() == place and keys.shape[2] == cache.get_seq_length() == 150
    cache.crop(-100)
    keys, values = cache.update(state[:, :, :7], state[:, :, :7], 0)
    assert keys.data_ptr() == place
    assert torch.equal(keys, torch.cat([state[:, :, :50], state[:, :, :7]], dim=2)) and torch.equal(
        keys, values
    )
    for _ in range(5):  # beyond its room
        keys, _ = cache.update(state, state, 0)
    assert keys.shape[2] == 557 and torch.equal(keys[:, :, :50], state[:, :, :50])
    assert torch.equal(keys[:, :, -100:], state)


def test_a_cache_survives_what_beam_search_does_to_it():
    cache = GrowingCache()
    state = torch.randn(3, 2, 10, 4)
    cache.update(state, state, 0)
    cache.reorder_cache(torch.tensor([2, 0, 0]))
    keys, _ = cache.update(state[:, :, :1], state[:, :, :1], 0)
    assert torch.equal(keys[:, :, :10], state[[2, 0, 0]]) and torch.equal(keys[:, :, 10:], state[:, :, :1])


def test_a_cache_of_a_fixed_size_gives_the_same_answers(model, monkeypatch):
    """Compiling needs a GPU; the caches that it needs do not."""
    expected = [model.ask(one, "What?", max_new_tokens=150) for one in (ONE, THREE)]
    monkeypatch.setattr(model.engine, "compiled", True)
    for _ in range(2):  # the second time with the same caches
        answers = [model.ask(one, "What?", max_new_tokens=150) for one in (ONE, THREE)]
        assert answers == expected and [answer.reused_tokens for answer in answers] == [0, 0]
    assert model.ask(ONE, "Who?", max_new_tokens=20).reused_tokens > 0  # short ones as before


# --- Bounded ---


def text(length, first=0):
    cache = GrowingCache()
    cache.update(torch.zeros(1, 1, length, 1), torch.zeros(1, 1, length, 1), 0)
    return torch.arange(first, first + length), cache


def test_the_oldest_goes_first():
    one = Text(*text(10)).nbytes
    kept = Kept(2.5 * one)
    for first in (1000, 2000, 3000):
        kept.keep_text(*text(10, first))
    assert kept.texts == 2 and kept.nbytes <= kept.budget
    assert kept.beginning(torch.arange(1000, 1010), lambda *_: True)[1] == 0
    assert kept.beginning(torch.arange(2000, 2010), lambda *_: True)[1] == 9


def test_what_is_larger_than_the_budget_is_not_kept():
    kept = Kept(100)
    kept.keep_text(*text(10))
    kept.keep_picture("a", torch.zeros(1000))
    assert kept.nbytes == kept.texts == kept.pictures == 0


def test_a_few_words_in_common_do_not_cost_a_whole_conversation():
    kept = Kept(10**9)
    kept.keep_text(*text(2000))
    common = torch.cat([torch.arange(5), torch.arange(9000, 9100)])
    assert kept.beginning(common, lambda *_: True)[1] == 0
    assert kept.texts == 1
    half = torch.cat([torch.arange(500), torch.arange(9000, 9100)])
    cache, known = kept.beginning(half, lambda *_: True)
    assert known == cache.get_seq_length() == 500 and kept.texts == 1  # a copy: the longer one stays
    assert kept.beginning(torch.arange(2100), lambda *_: True)[1] == 2000


def test_memory_tells(model):
    line = next(one for one in p3v.memory() if one.name == model.name)
    assert line.kept == line.pictures == line.texts == 0
    assert line.weights == sum(part.nbytes for part in model.model.parameters()) and line.budget > 0
    model.ask([ONE, TWO], "What?", max_new_tokens=3)
    line = next(one for one in p3v.memory() if one.name == model.name)
    assert (line.pictures, line.texts) == (2, 1) and 0 < line.kept <= line.budget
    assert model.name in repr(p3v.memory()) and "conversations 1" in str(line)
    model.forget()
    assert next(one for one in p3v.memory() if one.name == model.name).kept == 0


def test_the_budget_can_be_chosen(tmp_path):
    folder = make_folder(tmp_path, strength=6)
    model = p3v.load(folder, keep_bytes=0, verbose=False)
    first, second = (model.ask(ONE, "What?", max_new_tokens=3) for _ in range(2))
    assert first == second and second.reused_tokens == 0 and p3v.memory()
    assert model.load_options["keep_bytes"] == 0
    assert p3v.load(folder, keep_bytes=10**6, verbose=False).engine.kept.budget == 10**6
    for wrong in (-1, "1 GB"):
        with helpful(p3v.LoadError, "keep_bytes", repr(wrong)):
            p3v.load(folder, keep_bytes=wrong, verbose=False)


def test_a_full_device_is_freed(model):
    model.ask(ONE, "What?", max_new_tokens=3)

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    handle = model.model.register_forward_pre_hook(fail)
    try:
        with pytest.raises(p3v.Phi3VError):
            model.ask(TWO, "What?", max_new_tokens=3)
    finally:
        handle.remove()
    assert model.engine.kept.nbytes == 0
    assert model.ask(TWO, "What?", max_new_tokens=3).reused_tokens == 0


def test_a_stopped_answer_is_reused_as_far_as_it_came(model):
    stream = model.stream(ONE, "What is this?", max_new_tokens=200)
    next(stream)
    stream.close()
    answer = model.ask(ONE, "What is this?", max_new_tokens=12)
    assert answer.reused_tokens == answer.prompt_tokens - 1
    assert answer == without_reuse(model, lambda m: m.ask(ONE, "What is this?", max_new_tokens=12))


def test_where_the_seconds_went(model):
    answer = model.ask(ONE, "What?", max_new_tokens=8)
    assert set(answer.parts) == {"pictures", "prompt", "answer"}
    assert sum(answer.parts.values()) == pytest.approx(answer.seconds)
    assert all(seconds >= 0 for seconds in answer.parts.values())
