"""Asking, streaming and chatting, on a model with random weights: what it says does not matter here."""

import copy
import os
import pickle
import signal
import threading
import time
import warnings

import pytest
import torch
from helpful import helpful
from model_goldens import real_folder
from PIL import Image
from random_model import CONTEXT, random_folder

import phi3v_helpers as p3v
from phi3v_helpers.answers import Answer, TokenCount
from phi3v_helpers.errors import ImageError, Phi3VError, PromptError
from phi3v_helpers.streaming import PieceStreamer

RED, BLUE = Image.new("RGB", (400, 300), "red"), Image.new("RGB", (300, 500), "blue")
LONG = 3000  # tokens that take this model ten seconds or more
SOON = 2  # seconds; a tenth of one where nothing else runs


def still_works(model):
    assert not model.lock.locked()
    assert model.ask(RED, "Still there?", max_new_tokens=5) == model.ask(
        RED, "Still there?", max_new_tokens=5
    )


def no_thread_left(before):
    for _ in range(200):
        if threading.active_count() <= before:
            return True
        time.sleep(0.02)
    return False


# --- ask ---


def test_an_answer_knows_where_it_came_from(model):
    answer = model.ask(RED, "What is this?", max_new_tokens=12)
    assert isinstance(answer, str) and isinstance(answer, p3v.Answer)
    assert type(answer.text) is str and answer.text == answer
    assert answer.model == model.name == random_folder().name
    assert answer.new_tokens == 12 and not answer.finished
    assert answer.prompt_tokens == model.count_tokens(RED, "What is this?")
    assert answer.seconds > 0
    assert answer.tokens_per_second == pytest.approx(12 / answer.seconds)


def test_the_answer_is_that_of_transformers(model):
    prompt = p3v.build_prompt("What is this?", 2)
    inputs = model.processor(prompt, [RED, BLUE], return_tensors="pt")
    ids = model.model.generate(**inputs, max_new_tokens=20, do_sample=False)[
        :, inputs["input_ids"].shape[1] :
    ]
    expected = model.processor.batch_decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )[0]
    assert model.ask([RED, BLUE], "What is this?", max_new_tokens=20) == expected


def test_every_source_of_pictures(model, tmp_path):
    path = tmp_path / "red.png"
    RED.save(path)
    answers = {
        str(model.ask(source, "What?", max_new_tokens=6))
        for source in (RED, path, str(path), path.read_bytes(), [RED], (path,))
    }
    assert len(answers) == 1


def test_without_pictures(model):
    answer = model.ask(None, "Hello?", max_new_tokens=3)
    assert answer.prompt_tokens == len(model.tokenizer(p3v.build_prompt("Hello?")).input_ids)


def test_the_system_text_counts(model):
    short = model.ask(RED, "What?", max_new_tokens=1).prompt_tokens
    assert model.ask(RED, "What?", system="Be brief.", max_new_tokens=1).prompt_tokens > short


def test_an_answer_ends_at_the_end_token(model):
    for name in ("<|end|>", "<|endoftext|>"):
        end = model.tokenizer.convert_tokens_to_ids(name)
        with always_after(model, 4, end):
            answer = model.ask(RED, "What?", max_new_tokens=50)
            stream = model.stream(RED, "What?", max_new_tokens=50)
            assert "".join(stream) == answer == stream.answer
        assert answer.finished and answer.new_tokens == 5
        assert name not in answer and "cut short" not in repr(answer)


class always_after:
    """While active, every answer of `model` ends with the token `end` after `count` others."""

    def __init__(self, model, count, end):
        self.model, self.count, self.end, self.seen = model, count, end, 0

    def __enter__(self):
        self.handle = self.model.model.lm_head.register_forward_hook(self)

    def __exit__(self, *_):
        self.handle.remove()

    def __call__(self, module, inputs, logits):
        self.seen = (self.seen + 1) % (self.count + 1)
        if self.seen == 0:
            logits = torch.full_like(logits, -1e9)
            logits[..., self.end] = 0
        return logits


def test_temperature_and_seed(model):
    def ask(**options):
        return str(model.ask(RED, "What?", max_new_tokens=25, **options))

    assert ask() == ask(temperature=0.0) == ask(temperature=0, seed=3)
    assert ask(temperature=1.5, seed=1) == ask(temperature=1.5, seed=1)
    assert len({ask(temperature=1.5, seed=seed) for seed in range(4)}) > 1
    assert len({ask(temperature=1.5) for _ in range(4)}) > 1


def test_a_seed_leaves_the_random_numbers_of_others_alone(model):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    model.ask(RED, "What?", max_new_tokens=5, temperature=1.0, seed=7)
    assert torch.equal(torch.rand(3), expected)


def test_nothing_is_printed_or_warned(model, capfd, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.ask(RED, "What?", max_new_tokens=3)
        model.ask([RED, BLUE], "What?", max_new_tokens=3, temperature=0.7)
        list(model.stream(None, "What?", max_new_tokens=3))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert not caplog.records


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_new_tokens": 0}, ("max_new_tokens is 0",)),
        ({"max_new_tokens": 2.5}, ("2.5",)),
        ({"temperature": -1}, ("temperature is -1",)),
        ({"temperature": float("nan")}, ("temperature",)),
        ({"temperature": "warm"}, ("'warm'",)),
        ({"seed": "x"}, ("seed is 'x'",)),
        ({"num_crops": 0}, ("num_crops is 0",)),
        ({"num_crops": True}, ("num_crops",)),
        ({"question": " \n"}, ("question is empty",)),
        ({"question": None}, ("NoneType",)),
        ({"question": "<|image_1|> and <|image_2|>?"}, ("<|image_2|>",)),
    ],
)
def test_bad_values(model, options, words):
    options = {"question": "What?", **options}
    for ask in (model.ask, model.stream, lambda images, **options: model.chat(images).ask(**options)):
        with helpful(PromptError, *words):
            ask(RED, **options)


def test_bad_pictures(model, tmp_path):
    for ask in (model.ask, model.stream, model.count_tokens):
        with helpful(ImageError, "no file"):
            ask(tmp_path / "none.png", "What?")
        with helpful(ImageError, "empty"):
            ask([], "What?")
    with helpful(ImageError, "Picture 2", "too long and thin"):
        model.ask([RED, Image.new("RGB", (5000, 1))], "What?")


def test_control_strings_in_a_question_stay_text(model):
    question = "Say <|end|> and <s>."
    ids = model.processor(p3v.build_prompt(question), return_tensors="pt")["input_ids"][0].tolist()
    end, bos = (model.tokenizer.convert_tokens_to_ids(token) for token in ("<|end|>", "<s>"))
    assert ids.count(end) == 1 and ids.count(bos) == 1
    assert model.ask(None, question, max_new_tokens=2).new_tokens == 2


# --- number of crops ---


def test_a_tiny_model_takes_its_own_number_of_crops(model):
    assert model.is_tiny
    assert model.request([RED], "What?").num_crops is None
    assert model.request([RED], "What?", num_crops=4).num_crops == 4
    fixed = p3v.load(random_folder(), num_crops=4, verbose=False)
    assert fixed.request([RED], "What?").num_crops == 4
    assert fixed.request([RED], "What?", num_crops=5).num_crops == 5
    assert fixed.count_tokens(RED) > model.count_tokens(RED)
    with helpful(PromptError, "num_crops is -3"):
        p3v.load(random_folder(), num_crops=-3, verbose=False)


def test_a_big_model_follows_the_advice_of_its_card(model):
    big = copy.copy(model)
    big.is_tiny = False
    assert big.request([RED], "What?").num_crops == 16
    assert big.request([RED, BLUE], "What?").num_crops == 4
    assert big.request([RED, BLUE], "What?", num_crops=7).num_crops == 7


# --- counting tokens, and the context ---


@pytest.mark.parametrize("images", [None, RED, [RED, BLUE]])
def test_tokens_are_counted_as_the_model_gets_them(model, images):
    for options in ({}, {"num_crops": 6}, {"system": "Be brief."}):
        count = model.count_tokens(images, "What is this?", **options)
        asked = model.ask(images, "What is this?", max_new_tokens=1, **options)
        assert count == asked.prompt_tokens
        assert count == count.image_tokens + count.text_tokens
        assert len(count.per_image) == (
            0 if images is None else len(images) if isinstance(images, list) else 1
        )
        assert "tokens" in repr(count)
    assert 0 < model.count_tokens(images) < model.count_tokens(images, "What is this?")


def test_too_long_for_the_context(model):
    with refused_before_any_computing(model):
        with helpful(PromptError, f"{CONTEXT:,}", "answer up to 4,096", "num_crops"):
            model.ask(RED, "What?", max_new_tokens=CONTEXT)
        with helpful(PromptError, "pictures"):
            model.ask([RED] * 100, "What?", num_crops=16)
        with helpful(PromptError, "tokens"):
            model.ask(None, "word " * 2000)
        with helpful(PromptError, "tokens"):
            list(model.stream(None, "word " * 2000))
    room = CONTEXT - model.count_tokens(RED, "What?")
    assert model.request([RED], "What?", max_new_tokens=int(room))


class refused_before_any_computing:
    def __init__(self, model):
        self.model, self.ran = model, []

    def __enter__(self):
        self.handle = self.model.model.register_forward_pre_hook(lambda *_: self.ran.append(1))

    def __exit__(self, *_):
        self.handle.remove()
        assert not self.ran


def test_out_of_memory_is_explained(model):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    handle = model.model.register_forward_pre_hook(fail)
    try:
        with helpful(Phi3VError, "memory of the device is full", "tiny"):
            model.ask(RED, "What?")
    finally:
        handle.remove()
    still_works(model)


# --- streaming ---


@pytest.mark.parametrize("images", [None, RED, [RED, BLUE]])
def test_the_pieces_are_the_answer(model, images):
    stream = model.stream(images, "What is this?", max_new_tokens=60)
    assert stream.answer is None
    pieces = list(stream)
    assert len(pieces) > 5 and all(isinstance(piece, str) and piece for piece in pieces)
    assert "".join(pieces) == stream.answer == model.ask(images, "What is this?", max_new_tokens=60)
    assert stream.answer.new_tokens == 60 and stream.answer.model == model.name
    assert list(stream) == []


def test_pieces_come_while_the_model_writes(model):
    stream = model.stream(RED, "What?", max_new_tokens=400)
    started = time.perf_counter()
    next(stream)
    first = time.perf_counter() - started
    list(stream)
    assert first < (time.perf_counter() - started) / 2


def test_nothing_runs_before_the_first_piece_is_asked_for(model):
    before = threading.active_count()
    stream = model.stream(RED, "What?", max_new_tokens=LONG)
    assert threading.active_count() == before
    del stream
    still_works(model)


def test_stop_is_prompt(model):
    before, stop = threading.active_count(), threading.Event()
    stream = model.stream(RED, "What?", max_new_tokens=LONG, stop=stop)
    said = [next(stream), next(stream)]
    started = time.perf_counter()
    stop.set()
    said += list(stream)
    assert time.perf_counter() - started < SOON
    assert stream.answer == "".join(said)
    assert not stream.answer.finished and 2 <= stream.answer.new_tokens < LONG / 2
    assert no_thread_left(before)
    still_works(model)


def test_a_stop_before_the_start(model):
    stop = threading.Event()
    stop.set()
    stream = model.stream(RED, "What?", stop=stop)
    assert list(stream) == []
    assert stream.answer == "" and stream.answer.new_tokens == 0 and not stream.answer.finished


def test_a_stop_while_another_answer_is_written(model):
    other = model.stream(RED, "What?", max_new_tokens=LONG)
    next(other)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    started = time.perf_counter()
    assert list(model.stream(RED, "And?", stop=stop)) == []
    assert time.perf_counter() - started < SOON
    other.close()
    still_works(model)


@pytest.mark.parametrize("how", ["close", "delete", "break", "error"])
def test_a_dropped_stream_ends_its_thread(model, how):
    before, stop = threading.active_count(), threading.Event()
    stream = model.stream(RED, "What?", max_new_tokens=LONG, stop=stop)
    next(stream)
    if how == "close":
        stream.close()
        assert stream.answer.new_tokens > 0
    elif how == "break":
        for _ in stream:
            break
    elif how == "error":
        with pytest.raises(ZeroDivisionError):
            for _ in stream:
                1 / 0  # noqa: B018
    del stream
    assert no_thread_left(before)
    assert not stop.is_set(), "an event of the caller's is for the caller to set"
    still_works(model)


def test_an_error_inside_the_model_surfaces(model):
    def fail(*_):
        raise ArithmeticError("inside")

    before = threading.active_count()
    handle = model.model.register_forward_pre_hook(fail)
    try:
        stream = model.stream(RED, "What?")
        with pytest.raises(ArithmeticError, match="inside"):
            list(stream)
        assert stream.answer is None
        with pytest.raises(ArithmeticError, match="inside"):
            model.ask(RED, "What?")
    finally:
        handle.remove()
    assert no_thread_left(before)
    still_works(model)


def test_an_error_in_the_middle_of_an_answer_surfaces(model):
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == 20:
            raise ArithmeticError("later")

    handle = model.model.register_forward_pre_hook(fail)
    try:
        stream, said = model.stream(RED, "What?"), []
        with pytest.raises(ArithmeticError, match="later"):
            said.extend(stream)  # noqa: B038
    finally:
        handle.remove()
    still_works(model)


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
@pytest.mark.parametrize("way", ["ask", "stream"])
def test_keyboard_interrupt_leaves_the_model_usable(model, way):
    before = threading.active_count()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs begin with it ignored
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        if way == "ask":
            model.ask(RED, "What?", max_new_tokens=LONG)
        else:
            list(model.stream(RED, "What?", max_new_tokens=LONG))
        time.sleep(5)
    assert time.perf_counter() - started < SOON + 0.5
    timer.join()
    assert no_thread_left(before)
    still_works(model)


def test_threads_get_the_answers_of_their_own_questions(model):
    questions = [f"Question {number}?" for number in range(6)]
    expected = [str(model.ask(RED, question, max_new_tokens=20)) for question in questions]
    got = [None] * len(questions)

    def ask(number):
        if number % 2:
            got[number] = str(model.ask(RED, questions[number], max_new_tokens=20))
        else:
            got[number] = "".join(model.stream(RED, questions[number], max_new_tokens=20))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(questions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == expected


def test_a_question_while_a_stream_is_half_read(model):
    stream = model.stream(RED, "What?", max_new_tokens=40)
    first = next(stream)
    answer = model.ask(
        RED, "And?", max_new_tokens=5
    )  # waits until the stream's thread is done, not for its reader
    assert answer.new_tokens == 5
    assert first + "".join(stream) == model.ask(RED, "What?", max_new_tokens=40)


def test_spaces_after_line_breaks_are_kept():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_folder() / "Phi-3-vision-128k-instruct")
    text = "Table:\n\n  - one  two\n    - three\n\n\nWord é 数字 🙂\n 1. end  \n"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    streamer = PieceStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    streamer.put(torch.tensor([[1, 2, 13]]))  # the prompt, which may end with a line break
    for id in [*ids, tokenizer.convert_tokens_to_ids("<|end|>")]:
        streamer.put(torch.tensor([id]))
    streamer.end()
    assert "".join(streamer) == tokenizer.decode(ids, skip_special_tokens=True) == text


# --- chat ---


def test_a_chat_remembers(model):
    chat = model.chat([RED, BLUE], system="Be brief.")
    assert chat.history == [] and [image.size for image in chat.images] == [RED.size, BLUE.size]
    first = chat.ask("What is this?", max_new_tokens=6)
    assert chat.history == [("What is this?", str(first))]
    stream = chat.stream("And why?", max_new_tokens=6)
    second = "".join(stream)
    assert chat.history[1:] == [("And why?", second)]
    third = chat.ask("Sure?", max_new_tokens=6)
    prompt = p3v.build_prompt("Sure?", 2, "Be brief.", [("What is this?", first), ("And why?", second)])
    ids = model.processor(prompt, [RED, BLUE], return_tensors="pt")["input_ids"]
    assert third.prompt_tokens == ids.shape[1] > stream.answer.prompt_tokens > first.prompt_tokens
    assert "2 pictures, 3 turns" in repr(chat)
    chat.rewind(1)
    assert "2 pictures, 1 turn" in repr(chat) and "1 turns" not in repr(chat)


def test_a_chat_without_pictures(model):
    chat = model.chat()
    chat.ask("Hello?", max_new_tokens=2)
    assert len(chat.history) == 1 and chat.images == []


def test_history_and_images_cannot_be_changed_from_outside(model):
    chat = model.chat(RED)
    chat.history.append(("x", "y"))
    chat.images.clear()
    assert chat.history == [] and len(chat.images) == 1


def test_a_failed_question_leaves_the_chat_as_it_was(model):
    chat = model.chat(RED)
    chat.ask("One?", max_new_tokens=4)
    before = chat.history
    for question, options in (("", {}), ("What is <|image_1|>?", {}), ("Two?", {"max_new_tokens": CONTEXT})):
        with helpful(PromptError):
            chat.ask(question, **options)
        with helpful(PromptError):
            list(chat.stream(question, **options))
    with pytest.raises(TypeError):
        chat.ask("Two?", colour="red")
    handle = model.model.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        chat.ask("Two?")
    with pytest.raises(ZeroDivisionError):
        list(chat.stream("Two?"))
    handle.remove()
    assert chat.history == before
    chat.ask("Two?", max_new_tokens=4)
    assert len(chat.history) == 2


def test_a_stopped_answer_is_kept_as_what_was_said(model):
    chat, stop = model.chat(RED), threading.Event()
    said = ""
    for piece in chat.stream("Tell me all.", stop=stop, max_new_tokens=LONG):
        said += piece
        if len(said) > 30:
            stop.set()
    assert chat.history == [("Tell me all.", said)]
    assert len(said) > 30
    stream = chat.stream("Go on.", max_new_tokens=LONG)
    first = next(stream)
    stream.close()
    question, kept = chat.history[1]
    assert question == "Go on." and kept == stream.answer and kept.startswith(first)
    stop.set()
    assert list(chat.stream("And?", stop=stop)) == []
    assert len(chat.history) == 2, "nothing was said, so nothing is kept"
    assert chat.ask("Well?", max_new_tokens=3).new_tokens == 3


# --- what answers look like ---


def answer(text="A <b>stock</b> & more", **changes):
    values = {"model": "tiny phi3v (embedded)", "prompt_tokens": 1142, "new_tokens": 31, "seconds": 0.93}
    return Answer(text, **{**values, "finished": True, **changes})


def test_an_answer_shows_its_model():
    line = "tiny phi3v (embedded) · 1,142 tokens in, 31 out · 0.9 s"
    assert repr(answer()) == f"A <b>stock</b> & more\n[{line}]"
    assert str(answer()) == f"{answer()}" == "A <b>stock</b> & more"
    html = answer()._repr_html_()
    assert "A &lt;b&gt;stock&lt;/b&gt; &amp; more" in html and line in html
    assert repr(answer(finished=False)).endswith(f"{line} · cut short]")


def test_an_answer_is_an_ordinary_str_otherwise():
    assert answer("Ab").upper() == "AB" and type(answer("Ab") + "c") is str
    assert {answer("Ab"): 1}["Ab"] == 1
    assert answer(seconds=0.0).tokens_per_second == 0.0


def test_answers_and_counts_can_be_pickled_and_copied():
    for same in (pickle.loads(pickle.dumps(answer())), copy.copy(answer()), copy.deepcopy(answer())):
        assert vars(same) == vars(answer()) and same == answer()
    count = pickle.loads(pickle.dumps(TokenCount(120, [49, 50])))
    assert (count, count.image_tokens, count.text_tokens, count.per_image) == (120, 99, 21, [49, 50])


def test_the_model_says_what_it_is(model):
    assert repr(model) == f"Phi3Vision: {model.name} on cpu, float32, sdpa"
    assert (model.device.type, model.dtype, model.attention) == ("cpu", torch.float32, "sdpa")
