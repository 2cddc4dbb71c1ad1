"""A server of ours that speaks as much of the Hugging Face Hub's language as a download needs, and its troubles."""

import json
import os
import subprocess
import sys
import time

from random_model import random_folder
from server import send

COMMIT = "0123456789abcdef0123456789abcdef01234567"

LOADER = """
import sys, phi3v_helpers as p3v
from phi3v_helpers.weights import find_weights
for call in sys.argv[1:]:
    try:
        print(eval(call))
    except p3v.LoadError as error:
        print("LoadError:", error)
"""


def answer(handler):
    """What the Hub would answer. The name of the model says what is wrong with it, if anything is."""
    path = handler.path.partition("?")[0]
    is_api = path.startswith("/api/models/")
    name = path.removeprefix("/api/models").split("/")[2]
    files = random_folder()
    if name == "missing":
        return send(handler, b"{}", status=401, X_Error_Code="RepoNotFound")
    if "no-such-revision" in path:
        return send(handler, b"{}", status=404, X_Error_Code="RevisionNotFound")
    if is_api:
        tree = [
            {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": COMMIT} for f in files.iterdir()
        ]
        about = {
            "id": f"us/{name}",
            "sha": COMMIT,
            "siblings": [{"rfilename": f.name} for f in files.iterdir()],
        }
        body = json.dumps(tree if "/tree/" in path else about).encode()
        return send(handler, body, Content_Type="application/json")
    file = files / path.rsplit("/", 1)[1]
    if name == "gated":
        return send(handler, b"{}", status=403, X_Error_Code="GatedRepo")
    if not file.is_file() or name == "no-config":
        return send(handler, status=404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
    body = b'{"model_type": "llama"}' if name == "other" else file.read_bytes()
    about = {"ETag": f'"{file.name}"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
    if name == "slow" and file.suffix == ".safetensors" and handler.command == "GET":
        return _drip(handler, body, about)
    return send(handler, body, **about)


def _drip(handler, body, about):
    """A part of the file from where it is asked for, over two seconds."""
    start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
    handler.send_response(206 if start else 200)
    headers = {**about, "Content_Length": len(body) - start}
    if start:
        headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()
    for place in range(start, len(body), len(body) // 40):
        handler.wfile.write(body[place : place + len(body) // 40])
        handler.wfile.flush()
        time.sleep(0.05)


def environment(url, folder, **more):
    """The variables of a process whose Hub is at `url`, and which keeps what it downloads in `folder`."""
    ours = {"HF_ENDPOINT": url, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    return {**os.environ, **ours, "HF_HUB_DISABLE_XET": "1", **more}


def start(url, folder, *calls, **more):
    """A process that evaluates expressions, and prints what each gives."""
    return subprocess.Popen(
        [sys.executable, "-c", LOADER, *calls],
        env=environment(url, folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
