"""A model on a server: the same answers as on this machine, and words for whatever a server does wrong."""

import base64
import io
import sys
import threading
import time

import numpy as np
import pytest
from helpful import helpful
from PIL import Image
from server import send, serve
from serving import command, completion, fake, in_thread, send_error, send_json, soon

import phi3v_helpers as p3v
from phi3v_helpers import cli
from phi3v_helpers.demo import QUESTIONS
from phi3v_helpers.errors import ImageError, LoadError, Phi3VError, PromptError
from phi3v_helpers.remote.messages import LARGE, messages_of

# Of notebooks 01 to 03, with those of the demo.
ASKED = [
    *QUESTIONS,
    (("stock_chart",), "What is the value for 2021?"),
    (("stock_chart",), "List the years and their values."),
    (("shapes_1",), "List all objects with their colour and position."),
    (("shapes_2",), "Describe this image."),
    (("clouds",), "What is shown in this image?"),
    (("book_cover",), "Read the text in this image."),
    (("shapes_1", "shapes_2"), "<|image_2|>\n<|image_1|>\nWhat is difference in this two images?"),
    (("shapes_1", "shapes_1"), "Are these two images the same?"),
    (("book_cover", "book_cover_2"), "Compare the two images."),
    ((), "Who are you?"),
    ((), "What is <|end|>\n<|user|> for?"),
]


@pytest.fixture(scope="module")
def address():
    with command("tiny") as process:
        yield process.address


@pytest.fixture(scope="module")
def remote(address):
    return p3v.load(address, verbose=False)


@pytest.fixture(scope="module")
def babbler(model):
    """The model with random weights, which never ends an answer before it must, on a server."""
    with in_thread(model) as address:
        yield p3v.load(address, verbose=False)


def pictures(names):
    return [p3v.samples[name] for name in names] or None


def loaded(server, **options):
    return p3v.load(server.address, verbose=False, **options)


# --- The same as on this machine -------------------------------------------------------------------


@pytest.mark.parametrize("names, question", ASKED)
def test_the_same_answers(names, question, remote, tiny):
    there, here = remote.ask(pictures(names), question), tiny.ask(pictures(names), question)
    assert there == here and (there.model, there.finished) == ("tiny", here.finished)
    assert (there.prompt_tokens, there.new_tokens) == (here.prompt_tokens, here.new_tokens)
    assert there.seconds > 0


def test_the_same_conversation(remote, tiny):
    chats = [model.chat(p3v.samples["shapes_1"], system="Be brief.") for model in (remote, tiny)]
    for question in ("How many shapes are there?", "What colour is the star?"):
        there, here = [chat.ask(question) for chat in chats]
        assert (there, there.prompt_tokens) == (here, here.prompt_tokens)
    for chat in chats:
        chat.add(p3v.samples["shapes_2"])
    there, here = ["".join(chat.stream("What is different in the second image?")) for chat in chats]
    assert there == here and chats[0].history == chats[1].history and chats[0].image_counts == [1, 0, 1]


def test_pieces_are_the_answer(remote):
    stream = remote.stream(None, "Who are you?")
    pieces = list(stream)
    assert len(pieces) > 3 and "".join(pieces) == stream.answer and stream.answer.finished
    assert stream.answer.prompt_tokens > 0 and stream.answer.parts.keys() == {"prompt", "answer"}


def test_many_in_order(remote, tiny, capsys):
    pairs = [(p3v.samples[name], question) for (name, *_), question in ASKED[3:8]]
    assert list(remote.ask_many(iter(pairs), at_once=2, progress=False)) == [
        tiny.ask(*pair).text for pair in pairs
    ]
    with helpful(PromptError, "Pair 2", "The question is empty"):
        list(remote.ask_many([(None, "Who?"), (None, " ")], progress=False))


def test_tiles_temperature_and_seed(babbler, model):
    options = {"max_new_tokens": 12, "temperature": 1.2, "seed": 4, "num_crops": 2}
    picture = p3v.samples["shapes_1"]
    there, here = [one.ask(picture, "ba do", **options) for one in (babbler, model)]
    assert there == here and there.prompt_tokens == here.prompt_tokens and not there.finished
    assert babbler.count_tokens(picture, "ba do", num_crops=2).per_image != babbler.count_tokens(
        picture, "ba do", num_crops=1
    )


def test_tokens_are_counted_as_there(remote, tiny):
    for names, question in (ASKED[0], ASKED[2], ASKED[-1]):
        there, here = [model.count_tokens(pictures(names), question) for model in (remote, tiny)]
        assert (there, there.per_image, repr(there)) == (here, here.per_image, repr(here))
    assert remote.context == tiny.context
    assert remote.image_tokens(pictures(["clouds"])) == tiny.image_tokens(pictures(["clouds"]))
    weights, cache = remote.memory(1000)
    assert weights > 1e6 and cache > 0


def test_tokens_of_other_servers_are_guessed():
    with fake(None, models=["microsoft/Phi-3.5-vision-instruct"], max_model_len=4096) as server:
        model = loaded(server)
        count = model.count_tokens(p3v.samples["clouds"], "What is shown?")
        assert repr(count).startswith("about ") and count.image_tokens == 757 and count.text_tokens < 30
        assert model.context == 4096 and model.memory(0)[0] == pytest.approx(8.3e9, rel=0.01)
    with fake(None, models=["mine"]) as server:
        assert repr(loaded(server).count_tokens(None, "What?")).startswith("about ")


# --- Its place in the package ----------------------------------------------------------------------


def test_forms_work_with_it(remote, tiny):
    form = p3v.playground(remote, images=p3v.samples["shapes_1"], question="How many shapes are there?")
    assert f"of the context of {tiny.context:,}" in form._facts.value
    job = form.run()
    assert job.wait(60) and job.state == "done", job.error
    assert job.text == tiny.ask(p3v.samples["shapes_1"], "How many shapes are there?")
    assert f'p3v.load("{remote.load_options["model"]}", name="tiny")' in form.code()
    p3v.chat_ui(remote, images=p3v.samples["shapes_1"])
    p3v.compare_ui(remote, other=tiny)


def test_the_command_asks_a_server(address, capsys, tiny):
    assert cli.main(["ask", "--model", address, "Who are you?"]) == 0
    assert capsys.readouterr().out.startswith(tiny.ask(None, "Who are you?").text)


def test_the_environment_may_name_a_server(address, monkeypatch, capsys):
    monkeypatch.setenv("PHI3V_MODEL", address)
    assert p3v.load().name == "tiny"
    assert capsys.readouterr().out == f"RemoteVision: tiny on {address.split('/')[2]}\n"


def test_it_can_be_loaded_again_from_its_options(remote):
    assert p3v.load(**remote.load_options, verbose=False).name == remote.name


@pytest.mark.parametrize("what", ["raw", "look_up"])
def test_what_needs_the_model_here(what, remote):
    with helpful(PromptError, what, "on this machine only"):
        remote.ask(None, "Who?", **{what: True})


def test_methods_that_need_the_model_here(remote):
    with helpful(Phi3VError, "is not to be had", "load it on this machine"):
        _ = remote.device
    with helpful(Phi3VError, "is not to be had"):
        p3v.estimate(remote, None, "Who?")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = remote.nonsense


def test_mistakes_are_found_before_anything_is_sent():
    with fake(None) as server:
        model = loaded(server)
        with helpful(PromptError, "The question is empty"):
            model.ask(None, "")
        with helpful(PromptError, "max_new_tokens is 0"):
            model.ask(None, "Who?", max_new_tokens=0)
        with helpful(PromptError, "names <|image_1|>, but no picture is given"):
            model.ask(None, "What is in <|image_1|>?")
        with helpful(ImageError, "There is no file"):
            model.ask("no-such-file.png", "What?")
        assert server.bodies == []


@pytest.mark.parametrize("option", [{"device": "cuda"}, {"compile": True}, {"revision": "main"}])
def test_options_for_models_on_this_machine(option):
    with helpful(LoadError, "are for a model on this machine"):
        p3v.load("http://127.0.0.1:1/v1", **option)


def test_options_for_models_on_servers():
    with helpful(LoadError, "are for a model on a server"):
        p3v.load("tiny", api_key="secret")


# --- What is sent ----------------------------------------------------------------------------------


def always(data):
    return lambda handler, body: send_json(handler, data)


def test_what_a_server_gets():
    with fake(always(completion())) as server:
        model = loaded(server)
        chat = model.chat(p3v.samples["clouds"], "Be <|end|> brief.", history=[("Who?", "I <|user|>.")])
        chat.ask("And now?", max_new_tokens=5, temperature=0.5, seed=9, num_crops=4)
    body = server.bodies[0]
    picture = body["messages"][1]["content"].pop(0)
    assert Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].split(",")[1]))).format == "PNG"
    assert body == {
        "model": "fake",
        "messages": [
            {"role": "system", "content": "Be < |end|> brief."},
            {"role": "user", "content": [{"type": "text", "text": "Who?"}]},
            {"role": "assistant", "content": "I < |user|>."},
            {"role": "user", "content": "And now?"},
        ],
        "max_tokens": 5,
        "temperature": 0.5,
        "seed": 9,
        "mm_processor_kwargs": {"num_crops": 4},
    }


def test_large_photographs_go_as_jpeg_and_all_others_unchanged():
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    small, large = Image.fromarray(noise), Image.new("RGB", (4000, LARGE // 4000 + 1), "red")
    sent = messages_of("What?", [small, large], [2])[0]["content"]
    addresses = [part["image_url"]["url"] for part in sent[:2]]
    assert [address.split(";")[0] for address in addresses] == ["data:image/png", "data:image/jpeg"]
    back = Image.open(io.BytesIO(base64.b64decode(addresses[0].split(",")[1])))
    assert np.array_equal(np.asarray(back), noise)


def test_the_key_is_that_of_this_package_alone(monkeypatch, model):
    monkeypatch.setenv("OPENAI_API_KEY", "of-others")
    monkeypatch.delenv("PHI3V_API_KEY", raising=False)
    with fake(None) as server:
        loaded(server)
        monkeypatch.setenv("PHI3V_API_KEY", "ours")
        loaded(server)
        loaded(server, api_key="given")
        keys = [{name.lower(): value for name, value in headers.items()} for _, _, headers in server.seen]
        assert [headers["authorization"] for headers in keys] == [
            "Bearer none",
            "Bearer ours",
            "Bearer given",
        ]
        with helpful(LoadError, "characters that a header cannot carry"):
            loaded(server, api_key="ключ")
    monkeypatch.delenv("PHI3V_API_KEY")
    with in_thread(model, key="secret") as address:
        with helpful(LoadError, "refuses the API key, or wants one (401)", "PHI3V_API_KEY"):
            p3v.load(address)
        answer = p3v.load(address, api_key="secret", verbose=False).ask(None, "ba", max_new_tokens=2)
        assert answer.new_tokens == 2


def test_a_server_that_cannot_be_told_num_crops():
    with fake(None, owner="sglang") as server:
        with helpful(PromptError, "cannot be told num_crops"):
            loaded(server).ask(None, "What?", num_crops=4)
        with helpful(PromptError, "cannot be told num_crops"):
            loaded(server, num_crops=4)


# --- Finding the server and its model --------------------------------------------------------------


def test_nobody_answers():
    with fake(None) as server:
        pass
    with helpful(LoadError, f"No server answers at {server.address.split('/')[2]}", "phi3v serve"):
        loaded(server)


@pytest.mark.parametrize("address", ["http://", "http://:80", "http://x:99999/v1", "https://[::1/v1"])
def test_addresses_that_are_none(address):
    with helpful(LoadError, "names no host and port"):
        p3v.load(address)


def test_secrets_in_an_address_are_not_repeated():
    with helpful(LoadError, "has a login in it") as caught:
        p3v.load("http://me:hunter2@127.0.0.1:1/v1")
    assert "hunter2" not in str(caught.value)


def test_which_of_several_models():
    with fake(None, models=["one", "two"]) as server:
        assert loaded(server, name="two").name == "two"
        with helpful(LoadError, "has 2 models", "one, two"):
            loaded(server)
        with helpful(LoadError, "has no model 'three'", "one, two"):
            loaded(server, name="three")
    with fake(None, models=[]) as server, helpful(LoadError, "lists no model"):
        loaded(server)


@pytest.mark.parametrize(
    "body, kind",
    [(b"<html>Hello</html>", "text/html"), (b"{", "application/json"), (b'{"data": 3}', "application/json")],
)
def test_what_is_no_such_server(body, kind):
    def reply(handler, _):
        send(handler, body, Content_Type=kind)

    with fake(reply) as server:
        model = loaded(server)
        with helpful(LoadError, "is not of OpenAI's API"):
            model.ask(None, "Who?")
    with serve(lambda handler: send(handler, body, Content_Type=kind)) as server:
        with helpful(LoadError, "is not of OpenAI's API"):
            p3v.load(server.url)
    with serve(lambda handler: send(handler, b"gone", 404)) as server:
        with helpful(LoadError, "is not of OpenAI's API"):
            p3v.load(server.url)


# --- What a server does wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, message, kind, words",
    [
        (401, "no", LoadError, "refuses the API key"),
        (404, "The model does not exist.", LoadError, "has no model 'fake'"),
        (400, "This model's maximum context length is 4096 tokens.", PromptError, "is too long for"),
        (413, "too big", PromptError, "is too long for"),
        (400, "At most 1 image(s) may be provided in one prompt.", PromptError, "At most 1 image(s)"),
        (422, "what?", PromptError, "does not take the question (422: what?)"),
        (500, "CUDA error", Phi3VError, "failed (500: CUDA error)"),
        (503, "overloaded", Phi3VError, "has too much to do"),
        (418, "x" * 999, Phi3VError, "failed (418"),
    ],
)
def test_refusals(status, message, kind, words):
    with fake(lambda handler, _: send_error(handler, status, message)) as server:
        model = loaded(server)
        model.client = model.client.with_options(max_retries=0)
        with helpful(kind, words):
            model.ask(None, "Who?")
        with helpful(kind, words):
            list(model.stream(None, "Who?"))


def test_a_server_that_is_too_slow():
    with fake(lambda handler, _: time.sleep(1)) as server:
        model = loaded(server)
        model.client = model.client.with_options(max_retries=0, timeout=0.2)
        with helpful(Phi3VError, "did not answer in time"):
            model.ask(None, "Who?")
        with helpful(Phi3VError, "did not answer in time"):
            list(model.stream(None, "Who?"))


def test_a_long_prompt_is_refused_by_the_server(babbler):
    with helpful(PromptError, "is too long for", "more than the"):
        babbler.ask(None, "a" * 5000)


def in_pieces(*pieces, end=""):
    """A reply in pieces; `end` is what comes last."""

    def reply(handler, _):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Content-Length", "100000")  # more than there is
        handler.end_headers()
        for piece in pieces:
            choice = f'{{"index": 0, "delta": {{"content": "{piece}"}}, "finish_reason": null}}'
            handler.wfile.write(f'data: {{"id": "1", "choices": [{choice}]}}\n\n'.encode())
            handler.wfile.flush()
        handler.wfile.write(end.encode())

    return reply


@pytest.mark.parametrize(
    "end, words",
    [
        ("", "broke before the answer was complete"),
        ("data: [DONE]\n\n", "broke before the answer was complete"),
        ('data: {"error": "CUDA died"}\n\n', "broke off the answer: CUDA died"),
        ("data: {oops\n\n", "is not of OpenAI's API"),
    ],
)
def test_a_stream_that_breaks_midway(end, words):
    with fake(in_pieces("ba", "do", end=end)) as server:
        stream, pieces = loaded(server).stream(None, "Who?"), []
        with helpful(Phi3VError, words):
            for piece in stream:
                pieces.append(piece)
        assert pieces == ["ba", "do"] and stream.answer is None


def test_a_failure_within_many_names_its_pair():
    def reply(handler, body):
        if "bad" in body["messages"][0]["content"]:
            return send_error(handler, 400, "No.")
        send_json(handler, completion(body["messages"][0]["content"]))

    with fake(reply) as server:
        answers = loaded(server).ask_many([(None, word) for word in ("a", "b", "bad", "c")], progress=False)
        assert [next(answers), next(answers)] == ["a", "b"]
        with helpful(PromptError, "Pair 3", "does not take the question"):
            next(answers)


def test_several_are_sent_at_a_time():
    busy, most, lock = set(), [], threading.Lock()

    def reply(handler, body):
        with lock:
            busy.add(id(body))
            most.append(len(busy))
        time.sleep(0.2)
        with lock:
            busy.remove(id(body))
        send_json(handler, completion(body["messages"][0]["content"]))

    with fake(reply) as server:
        words = [str(number) for number in range(24)]
        pairs = [(None, word) for word in words]
        assert list(loaded(server).ask_many(pairs, progress=False)) == words
    assert max(most) == 8


# --- Stopping --------------------------------------------------------------------------------------


def test_stopping_frees_the_server(babbler, model):
    stop = threading.Event()
    stream = babbler.stream(None, "ba do ki", max_new_tokens=3900, stop=stop)
    text = next(stream)
    stop.set()
    text += "".join(stream)
    assert stream.answer == text and not stream.answer.finished
    assert stream.answer.new_tokens > 0 and stream.answer.prompt_tokens > 0
    assert soon(lambda: not model.lock.locked(), 10)


def test_dropping_a_stream_frees_the_server(babbler, model):
    stream = babbler.stream(None, "ba do ki", max_new_tokens=3900)
    next(stream)
    stream.close()
    assert soon(lambda: not model.lock.locked(), 10)


def test_stopping_does_not_wait_for_a_server_that_hangs():
    hanging = threading.Event()
    with fake(lambda handler, _: hanging.wait(20)) as server:
        stop = threading.Event()
        stream = loaded(server).stream(None, "Who?", stop=stop)
        threading.Timer(0.3, stop.set).start()
        started = time.monotonic()
        assert list(stream) == [] and time.monotonic() - started < 5
        hanging.set()


def test_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with helpful(LoadError, 'pip install "phi3v-helpers[remote]"'):
        p3v.load("http://127.0.0.1:1/v1")
