"""Servers with OpenAI's API for tests: `phi3v serve` as a process, the same in a thread, and a fake one.

And what the openai client asks them.
"""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import openai
from server import send, serve

import phi3v_helpers as p3v

SECONDS = 60


@contextmanager
def command(*words, **environment):
    """`phi3v serve WORDS` on a free port. Gives the process, with `.address` and `.said`, what it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "phi3v_helpers", "serve", *words, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        process.said = ""
        while not process.said.endswith("Ctrl-C ends it.\n"):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            process.said += line
        # Read on, or the process would wait for it.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        process.address = process.said.split()[3]
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def in_thread(vision, name="random", key=None):
    """The same application around a model of this process. Gives its address."""
    import uvicorn

    from phi3v_helpers.serving.app import make_app

    config = uvicorn.Config(make_app(vision, name, key), log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def fake(reply, models=("fake",), owner="vllm", **about):
    """A server that lists models, and leaves each question to reply(handler, body).

    Gives the server of `serve`, with `.address` and `.bodies`, what was sent.
    """

    def answer(handler):
        if handler.command == "GET":
            listed = [{"id": name, "object": "model", "owned_by": owner, **about} for name in models]
            return send_json(handler, {"object": "list", "data": listed})
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        server.bodies.append(body)
        reply(handler, body)

    with serve(answer) as server:
        server.address, server.bodies = f"{server.url}/v1", []
        yield server


def send_json(handler, data, status=200):
    send(handler, json.dumps(data).encode(), status, Content_Type="application/json")


def send_error(handler, status, message):
    send_json(handler, {"error": {"message": message, "type": "x", "code": None}}, status)


def completion(text="ten", finish_reason="stop"):
    """What OpenAI's API answers."""
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def soon(condition, seconds=SECONDS):
    """Whether it becomes true within these seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


# --- Questions of the openai client -----------------------------------------------------------------


def connected(address, key="none"):
    return openai.OpenAI(base_url=address, api_key=key, max_retries=0, timeout=60)


def picture(name):
    data = base64.b64encode(p3v.samples.path(name).read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def words(text):
    return {"type": "text", "text": text}


def user(*parts):
    return {"role": "user", "content": list(parts) if len(parts) > 1 else parts[0]["text"]}


def asked(client, *messages, model="tiny", **options):
    return client.chat.completions.create(model=model, messages=list(messages), **options)


def said(client, *messages, **options):
    return asked(client, *messages, **options).choices[0].message.content
