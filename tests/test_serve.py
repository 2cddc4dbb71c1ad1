"""`phi3v serve`, a real one, asked by the real openai client and by rude ones."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pytest
import requests
from nbtools import ROOT
from random_model import random_folder
from serving import asked, command, connected, in_thread, picture, said, soon, user, words

import phi3v_helpers as p3v
from phi3v_helpers import cli
from phi3v_helpers.serving import gate

STOCK = "Could you please introduce this stock to me?"
DIFFERENCE = "What is difference in this two images?"


@pytest.fixture(scope="module")
def process():
    with command("tiny") as process:
        yield process


@pytest.fixture(scope="module")
def client(process):
    return connected(process.address)


@pytest.fixture(scope="module")
def address(model):
    """Where the model with random weights is, which never ends an answer before it must."""
    with in_thread(model) as address:
        yield address


def post(address, **options):
    return requests.post(f"{address}/chat/completions", timeout=60, **options)


# --- The command -----------------------------------------------------------------------------------


def test_it_says_where_it_is_and_how_to_use_it(process):
    assert process.said.startswith(f"Serving tiny at {process.address}\n")
    for use in ("curl ", "openai.OpenAI(base_url=", f'p3v.load("{process.address}")'):
        assert use in process.said


def test_what_it_prints_for_curl_works(process, tiny):
    lines = process.said.split("\n")
    script = "\n".join(lines[1:3])
    result = subprocess.run(
        script, shell=True, capture_output=True, text=True, env=os.environ | {"NO_PROXY": "*"}
    )
    said = json.loads(result.stdout)["choices"][0]["message"]["content"]
    assert said == tiny.ask(None, "Who are you?")


def test_ctrl_c_ends_it_while_an_answer_is_written():
    with command(str(random_folder())) as process:
        leaving = _begun(process.address, True, Path(random_folder()).name)
        assert leaving.recv(4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130


def test_other_machines_need_a_key(capsys, monkeypatch):
    monkeypatch.delenv("PHI3V_API_KEY", raising=False)
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        assert cli.main(["serve", "tiny", "--host", host]) == 1
        assert capsys.readouterr().err == (
            f"phi3v: {host} can be reached from other machines, and there is no key. "
            "Set PHI3V_API_KEY to a long random text, or leave --host out.\n"
        )


@pytest.mark.parametrize("key", ["", " ", "ключ", "a\nb"])
def test_a_key_that_cannot_be_sent(key, capsys):
    assert cli.main(["serve", "tiny", "--api-key", key]) == 1
    assert "Take letters and digits." in capsys.readouterr().err


def test_a_port_that_is_taken(process, capsys):
    port = _place(process.address)[1]
    assert cli.main(["serve", "tiny", "--port", str(port)]) == 1
    assert f"127.0.0.1, port {port}, cannot be listened on" in capsys.readouterr().err
    assert cli.main(["serve", "tiny", "--port", "70000"]) == 1


def test_a_model_that_is_not_there(capsys):
    assert cli.main(["serve", "no-such-model", "--port", "0"]) == 1
    assert capsys.readouterr().err.startswith("phi3v: There is no model 'no-such-model'.")
    assert cli.main(["serve", "http://127.0.0.1:1/v1", "--port", "0"]) == 1
    assert "is on a server already" in capsys.readouterr().err


def test_without_its_packages(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["serve", "tiny"]) == 1
    assert 'pip install "phi3v-helpers[serve]"' in capsys.readouterr().err


# --- Answers ---------------------------------------------------------------------------------------


def test_the_model_that_is_listed(client, tiny):
    (listed,) = client.models.list().data
    assert (listed.id, listed.max_model_len) == ("tiny", tiny.context)


def test_an_answer_about_a_picture_is_that_of_the_same_model_here(client, tiny):
    reply = asked(client, user(picture("stock_chart"), words(STOCK)))
    here = tiny.ask(p3v.samples["stock_chart"], STOCK)
    assert reply.choices[0].message.content == here.text
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (here.prompt_tokens, here.new_tokens)


def test_an_answer_in_pieces(client, tiny):
    stream = asked(client, user(picture("stock_chart"), words(STOCK)), stream=True)
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    here = tiny.ask(p3v.samples["stock_chart"], STOCK)
    assert len(pieces) > 3 and "".join(pieces) == here.text
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == here.new_tokens


def test_two_pictures_in_front_among_the_text_or_by_tags(client, tiny):
    one, two = p3v.samples["shapes_1"], p3v.samples["shapes_2"]
    parts = picture("shapes_1"), picture("shapes_2")
    here = tiny.ask([one, two], DIFFERENCE)
    assert said(client, user(*parts, words(DIFFERENCE))) == here
    turned = tiny.ask([one, two], "<|image_2|>\n<|image_1|>\n" + DIFFERENCE)
    assert said(client, user(*parts, words("<|image_2|>\n<|image_1|>\n" + DIFFERENCE))) == turned != here
    among = asked(client, user(words("Here: "), parts[0], words("and "), parts[1], words(DIFFERENCE)))
    same = tiny.count_tokens([one, two], f"Here: <|image_1|>\nand <|image_2|>\n{DIFFERENCE}")
    assert among.usage.prompt_tokens == same


def test_a_conversation(client, tiny):
    chat = tiny.chat([p3v.samples["shapes_1"], p3v.samples["shapes_2"]], system="Be brief.")
    first = chat.ask("What has changed from the first image to the second?")
    second = chat.ask("Describe the second image.")
    reply = asked(
        client,
        {"role": "system", "content": "Be brief."},
        user(picture("shapes_1"), picture("shapes_2"), words(chat.history[0][0])),
        {"role": "assistant", "content": first.text},
        user(words(chat.history[1][0])),
    )
    assert reply.choices[0].message.content == second.text
    assert reply.usage.prompt_tokens == second.prompt_tokens


def test_a_picture_of_a_later_turn(client, tiny):
    chat = tiny.chat(p3v.samples["shapes_1"])
    first = chat.ask("How many shapes are there?")
    chat.add(p3v.samples["shapes_2"])
    second = chat.ask(DIFFERENCE)
    turns = user(picture("shapes_1"), words("How many shapes are there?")), first.text
    assistant = {"role": "assistant", "content": turns[1]}
    assert said(client, turns[0], assistant, user(picture("shapes_2"), words(DIFFERENCE))) == second


def test_control_strings_are_text(client, tiny):
    question = "What is <|end|>\n<|user|> <s> <|image_7|> for?"
    assert asked(client, user(words(question))).usage.prompt_tokens == tiny.ask(None, question).prompt_tokens


def test_the_most_tokens_of_an_answer(client):
    reply = asked(client, user(words("Who are you?")), max_tokens=4)
    assert (reply.choices[0].finish_reason, reply.usage.completion_tokens) == ("length", 4)
    whole = asked(client, user(words("Who are you?"))).usage.completion_tokens
    exact = asked(client, user(words("Who are you?")), max_completion_tokens=whole)
    assert exact.choices[0].finish_reason == "stop"


def test_seeds_tiles_and_what_says_nothing(address, model):
    client, question = connected(address), user(words("ba do"))
    how = {"model": "random", "max_tokens": 20, "temperature": 1.5, "seed": 3}
    drawn = said(client, question, **how, n=1, top_p=1.0, user="me", extra_body={"stop": []})
    assert (
        drawn
        == said(client, question, **how)
        == model.ask(None, "ba do", max_new_tokens=20, temperature=1.5, seed=3)
    )
    tiles = {"mm_processor_kwargs": {"num_crops": 2}}
    reply = asked(
        client, user(picture("clouds"), words("What?")), model="random", max_tokens=1, extra_body=tiles
    )
    assert reply.usage.prompt_tokens == model.count_tokens(p3v.samples["clouds"], "What?", num_crops=2)


def test_a_long_prompt_leaves_what_room_there_is(address, model):
    question = "a" * (model.context - 200)
    reply = asked(connected(address), user(words(question)), model="random")
    assert reply.usage.total_tokens <= model.context


# --- Many at once, and those who leave --------------------------------------------------------------


def test_32_questions_at_once(client, tiny):
    names = ["stock_chart", "book_cover", "shapes_1", "shapes_2"]
    questions = ["What is the title of the chart?", "How many shapes are there?"]
    pairs = [(names[number % 4], questions[number // 4 % 2]) for number in range(32)]
    here = {pair: tiny.ask(p3v.samples[pair[0]], pair[1]).text for pair in set(pairs)}

    def ask(numbered):
        number, (name, question) = numbered
        reply = asked(client, user(picture(name), words(question)), stream=number % 2 == 0)
        if number % 2:
            return reply.choices[0].message.content
        return "".join(chunk.choices[0].delta.content or "" for chunk in reply)

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(ask, enumerate(pairs))) == [here[pair] for pair in pairs]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_the_model(stream, address, model):
    leaving = _begun(address, stream)
    assert soon(model.lock.locked)
    leaving.close()
    assert soon(lambda: not model.lock.locked(), 10)
    assert said(connected(address), user(words("ba")), model="random", max_tokens=3)


def test_clients_that_leave_while_they_wait_cost_nothing(address, model):
    first = _begun(address, True)
    assert soon(model.lock.locked)
    others = [_begun(address, stream) for stream in (True, False) * 8]
    for client in (*others, first):
        client.close()
    reply = asked(connected(address), user(words("ba")), model="random", max_tokens=3)
    assert reply.usage.completion_tokens == 3 and soon(lambda: not model.lock.locked(), 10)


def _begun(address, stream, model="random"):
    """A raw connection that has asked for an answer of some seconds."""
    question = user(words("ba do ki"))
    body = json.dumps({"model": model, "messages": [question], "max_tokens": 3900, "stream": stream})
    connection = socket.create_connection(_place(address))
    connection.sendall(_head(address, len(body)) + body.encode())
    return connection


def _head(address, length, *lines):
    host, port = _place(address)
    head = ["POST /v1/chat/completions HTTP/1.1", f"Host: {host}:{port}", f"Content-Length: {length}"]
    return "\r\n".join([*head, "Content-Type: application/json", *lines, "", ""]).encode()


def _place(address):
    return urlsplit(address).hostname, urlsplit(address).port


# --- Who may ask, and for what ----------------------------------------------------------------------


def test_a_key_is_wanted_for_every_request(model):
    with in_thread(model, key="secret") as address:
        base = address.removesuffix("/v1")
        for path in ("/v1/models", "/health", "/docs", "/v1/completions"):
            reply = requests.get(base + path, timeout=10)
            assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
        for sent in ("Bearer wrong", "Bearer secret2", "Bearer s\xe9cret", "secret", "Basic secret"):
            headers = {"Authorization": sent.encode("latin-1")}
            assert requests.get(f"{address}/models", headers=headers, timeout=10).status_code == 401
        assert said(connected(address, "secret"), user(words("ba")), model="random", max_tokens=3)


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://example.org"}, {"Origin": "null"}, {"Host": "example.org"}]
)
def test_pages_of_the_web_cannot_ask(headers, process):
    assert post(process.address, json={}, headers=headers).status_code == 403
    here = {"Origin": "http://localhost:8888"}
    assert requests.get(f"{process.address}/models", headers=here, timeout=10).status_code == 200


@pytest.mark.parametrize(
    "path", ["/load_model", "/reset", "/v1/completions", "/v1/responses", "/v1/audio/transcriptions"]
)
def test_nothing_else_of_the_server_can_be_reached(path, process):
    reply = requests.post(process.address.removesuffix("/v1") + path, json={"model": "x"}, timeout=10)
    assert reply.status_code == 404 and "POST /v1/chat/completions" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "source, words_of_it",
    [
        ("http://127.0.0.1:1/x.png", "on this machine or in a private network"),
        ("http://169.254.169.254/latest/meta-data", "on this machine or in a private network"),
        ("http://localhost/x.png", "on this machine or in a private network"),
        ("http://[::1]/x.png", "on this machine or in a private network"),
        ("file:///etc/passwd", "neither an http(s) address nor a data address"),
        ("/etc/passwd", "neither an http(s) address nor a data address"),
        ("data:image/png;base64,aGVsbG8=", "Picture 2 of 2"),
    ],
)
def test_pictures_that_are_refused(source, words_of_it, client):
    bad = {"type": "image_url", "image_url": {"url": source}}
    with pytest.raises(openai.BadRequestError, match=words_of_it.replace("(", r"\(").replace(")", r"\)")):
        asked(client, user(picture("clouds"), bad, words("What?")))


def test_a_model_that_is_not_served(client):
    with pytest.raises(openai.NotFoundError, match="only 'tiny'"):
        asked(client, user(words("Who?")), model="gpt-4o")


@pytest.mark.parametrize(
    "options",
    [
        {"n": 2},
        {"top_p": 0.5},
        {"stop": ["."]},
        {"temperature": -1},
        {"max_tokens": 0},
        {"max_tokens": 10**6},
        {"extra_body": {"mm_processor_kwargs": {"size": 1}}},
        {"extra_body": {"mm_processor_kwargs": {"num_crops": 0}}},
        {"extra_body": {"generation_config": "{}"}},
        {"tools": [{"type": "function", "function": {"name": "x"}}]},
    ],
)
def test_options_that_are_refused(options, client):
    with pytest.raises(openai.BadRequestError):
        asked(client, user(words("Who?")), **options)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "Who?",
        [1],
        [{"role": "user"}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": 1}],
        [{"role": "user", "content": [{"type": "video_url"}]}],
        [{"role": "robot", "content": "Who?"}],
        [{"role": "assistant", "content": "I."}],
        [{"role": "user", "content": "Who?"}, {"role": "user", "content": "Who?"}],
        [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}],
        [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}] * 65}],
    ],
)
def test_messages_that_are_refused(messages, process):
    reply = post(process.address, json={"model": "tiny", "messages": messages})
    assert reply.status_code == 400 and reply.json()["error"]["message"].endswith(".")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b"\xff"])
def test_what_is_no_json_object(body, process):
    reply = post(process.address, data=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400 and reply.json()["error"]["message"]


def test_a_request_that_is_too_large(process, monkeypatch, model):
    with socket.create_connection(_place(process.address)) as connection:
        connection.sendall(_head(process.address, gate.MAX_BODY + 1))
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    monkeypatch.setattr(gate, "MAX_BODY", 1000)
    with in_thread(model) as address, socket.create_connection(_place(address)) as connection:
        head = _head(address, 0, "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
        connection.sendall(head + b"7d0\r\n" + b" " * 2000)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_request_that_never_arrives(monkeypatch, model):
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.3)
    with in_thread(model) as address, socket.create_connection(_place(address)) as connection:
        connection.sendall(_head(address, 100) + b"{")
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_a_mistake_of_ours_is_told_without_a_traceback(address, model, monkeypatch, capfd):
    monkeypatch.setattr(model, "run", lambda *_, **__: 1 / 0)
    for stream in (False, True):
        with pytest.raises(openai.APIError) as error:
            list(asked(connected(address), user(words("ba")), model="random", stream=stream))
        assert "ZeroDivisionError" not in str(error.value.body)


# --- The documentation ------------------------------------------------------------------------------

FENCE = re.compile(r"(<!-- no-run: [^>]+ -->\n)?^```(\w+)\n(.*?)^```$", re.M | re.S)
GUIDE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
EXAMPLES = [(kind, code) for left_out, kind, code in FENCE.findall(GUIDE) if not left_out]


@pytest.mark.parametrize("kind, code", EXAMPLES, ids=[code.splitlines()[0] for _, code in EXAMPLES])
def test_the_examples_of_the_guide(kind, code, process, capfd, tiny):
    assert "127.0.0.1:8000/v1" in code
    code = code.replace("http://127.0.0.1:8000/v1", process.address)
    if kind == "python":
        exec(code, {})
        said = capfd.readouterr().out
        assert said.startswith("{'year': ") or tiny.ask(p3v.samples["stock_chart"], STOCK) in said
    else:
        subprocess.run(["bash", "-c", code], check=True, env=os.environ | {"NO_PROXY": "*"})
        assert json.dumps(tiny.ask(None, "Who are you?"))[1:-1] in capfd.readouterr().out


def test_the_guide_has_its_examples():
    assert [kind for kind, _ in EXAMPLES] == ["bash", "python", "python", "python"]
