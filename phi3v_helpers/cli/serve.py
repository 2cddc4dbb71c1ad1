"""`phi3v serve`: an OpenAI-compatible server on this machine."""

import os
import socket
import sys
import time
from contextlib import redirect_stdout

from ..errors import Phi3VError
from .options import add_command, add_machine_options
from .terminal import tell

SECONDS_TO_END = 2  # at Ctrl-C, for answers that are being written
HINT = """\
Serving {name} at {address}
  curl {address}/chat/completions{header} -H "Content-Type: application/json" \\
    -d '{{"model": "{name}", "messages": [{{"role": "user", "content": "Who are you?"}}]}}'
  openai.OpenAI(base_url="{address}", api_key={key})
  p3v.load("{address}"{given})
Ctrl-C ends it."""


def add_serve(commands):
    parser = add_command(
        commands,
        "serve",
        _serve,
        "serve a model to other programs, as OpenAI's API",
        "Serve a model to other programs, as OpenAI's API has it: chats with pictures, streamed or whole. Answers are "
        "written one after the other. Only this machine can ask, unless --host says otherwise, which needs a key.",
    )
    parser.add_argument(
        "model",
        nargs="?",
        default="auto",
        help='"auto", "tiny", "phi-3-vision", "phi-3.5-vision", a Hub id or a folder (default: auto)',
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help="what clients must send; better in PHI3V_API_KEY, which other users cannot see",
    )
    add_machine_options(parser)


def _serve(options):
    uvicorn = _uvicorn()
    key = _key(options)
    listener = _bound(options.host, options.port, key)
    from transformers.utils import logging

    from ..loading import load
    from ..serving.app import make_app

    with redirect_stdout(sys.stderr):
        vision = load(_on_this_machine(options.model), options.device, options.dtype)
    logging.set_verbosity_error()
    name = name_for_clients(options.model, vision)
    config = uvicorn.Config(
        make_app(vision, name, key, _log),
        log_level="info" if options.debug else "critical",
        access_log=options.debug,
        timeout_graceful_shutdown=SECONDS_TO_END,
        server_header=False,
    )
    listener.listen()  # so that whoever reads the next line may ask at once
    print(_hint(name, listener, key), flush=True)
    # After Ctrl-C it gives the signal back, which ends the program as it does everywhere: see `terminal`.
    uvicorn.Server(config).run(sockets=[listener])


def name_for_clients(asked, vision):
    """Short for the tiny model, the Hub's id, or the name of a folder: never its path."""
    return "tiny" if asked == "tiny" or vision.name.startswith("tiny phi3v") else vision.name


def _uvicorn():
    try:
        import fastapi  # noqa: F401
        import openai  # noqa: F401
        import transformers.cli.serving.server  # noqa: F401
        import uvicorn
    except ImportError as error:
        if str(error.name).startswith("transformers."):
            raise Phi3VError(
                "phi3v serve needs a newer transformers, whose server is made of parts.",
                'Install it: pip install -U "transformers>=5.23".',
            ) from error
        raise Phi3VError(
            f"phi3v serve needs packages that are not here ({error.name}).",
            'Install them: pip install "phi3v-helpers[serve]".',
        ) from error
    return uvicorn


def _on_this_machine(model):
    if model.lower().startswith(("http://", "https://")):
        raise Phi3VError("That model is on a server already.", "Give its address to your programs instead.")
    return model


def _key(options):
    key = options.api_key if options.api_key is not None else os.environ.get("PHI3V_API_KEY") or None
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
        raise Phi3VError(
            "The API key is empty, or has characters that a header cannot carry.",
            "Take letters and digits.",
        )
    return key


def _bound(host, port, key):
    """A socket at this address; before the model is loaded, so that mistakes show at once."""
    from ..serving.gate import is_loopback

    if not 0 <= port < 65536:  # the system would take what is left of it beyond that
        raise Phi3VError(f"{port} is no port.", "Give a number from 1 to 65535, or 0 for a free one.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":  # else the port would be taken for a minute after the last server
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if key is None and not is_loopback(address[0]):
            listener.close()
            raise Phi3VError(
                f"{host} can be reached from other machines, and there is no key.",
                "Set PHI3V_API_KEY to a long random text, or leave --host out.",
            )
        listener.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Phi3VError(
            f"{host[:60]}, port {port}, cannot be listened on ({reason[:80]}).",
            "Give another --host or --port.",
        ) from error
    return listener


def _hint(name, listener, key):
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    host = f"[{host}]" if ":" in host else host
    return HINT.format(
        name=name,
        address=f"http://{host}:{port}/v1",
        header=' -H "Authorization: Bearer $PHI3V_API_KEY"' if key else "",
        key='os.environ["PHI3V_API_KEY"]' if key else '"none"',
        given="" if key is None or os.environ.get("PHI3V_API_KEY") == key else ", api_key=…",
    )


def _log(answer):
    tell(f"{time.strftime('%H:%M:%S')} {answer.summary()}")
