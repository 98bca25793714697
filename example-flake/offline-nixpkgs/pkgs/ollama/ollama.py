"""A stand-in for Ollama: the documented HTTP API and the `serve`, `pull`, `list` and `run` commands, and no language model.

Words are made, not inferred. Set OLLAMA_STAND_IN_START_DELAY (seconds) to have `serve` listen late, as a server with large models may, and
OLLAMA_STAND_IN_LOAD_SECONDS for how long the first use of a model takes, OLLAMA_STAND_IN_WORD_SECONDS for each word.
"""

import hashlib
import http.client
import json
import os
import socket
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "0.12.0-offline-stand-in"
HOME = os.environ.get("HOME", "/root")
MODELS = os.environ.get("OLLAMA_MODELS") or f"{HOME}/.ollama/models"
LOAD_SECONDS = float(os.environ.get("OLLAMA_STAND_IN_LOAD_SECONDS", "0.2"))
WORD_SECONDS = float(os.environ.get("OLLAMA_STAND_IN_WORD_SECONDS", "0.002"))
KEEP_ALIVE_S = 300
SIZE = 1024


def address() -> tuple[str, int]:
    text = os.environ.get("OLLAMA_HOST", "127.0.0.1:11434").removeprefix("http://").rstrip("/")
    host, _, port = text.rpartition(":")
    return (host.strip("[]") or text, int(port)) if port.isdigit() else (text, 11434)


def full_name(model: str) -> str:
    return model if ":" in model else f"{model}:latest"


def manifest_path(model: str) -> str:
    name, tag = full_name(model).split(":", 1)
    return f"{MODELS}/manifests/registry.ollama.ai/library/{name}/{tag}"


def now() -> str:
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


def pull(model: str) -> None:
    """Store a model: a manifest and one small blob, laid out as Ollama lays them out."""
    blob = (full_name(model) + "\n").encode().ljust(SIZE, b"\0")
    digest = hashlib.sha256(blob).hexdigest()
    os.makedirs(f"{MODELS}/blobs", exist_ok=True)
    with open(f"{MODELS}/blobs/sha256-{digest}", "wb") as file:
        file.write(blob)
    path = manifest_path(model)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    layer = {
        "mediaType": "application/vnd.ollama.image.model",
        "digest": f"sha256:{digest}",
        "size": SIZE,
    }
    with open(path, "w") as file:
        json.dump(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
                "layers": [layer],
            },
            file,
        )


def installed() -> list[dict]:
    root = f"{MODELS}/manifests/registry.ollama.ai/library"
    found = []
    for folder, _, tags in os.walk(root):
        for tag in tags:
            name = f"{os.path.relpath(folder, root)}:{tag}"
            path = f"{folder}/{tag}"
            with open(path, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            modified = (
                datetime.fromtimestamp(os.stat(path).st_mtime, timezone.utc)
                .isoformat()
                .replace("+00:00", "Z")
            )
            found.append(
                {
                    "name": name,
                    "model": name,
                    "modified_at": modified,
                    "size": SIZE,
                    "digest": digest,
                    "details": details(),
                }
            )
    return sorted(found, key=lambda model: model["name"])


def details() -> dict:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": "stand-in",
        "families": ["stand-in"],
        "parameter_size": "0B",
        "quantization_level": "Q4_0",
    }


class Loaded:
    """Models in memory, and until when."""

    def __init__(self) -> None:
        self.until: dict[str, float] = {}
        self.lock = threading.Lock()

    def use(self, model: str, keep_alive_s: float) -> int:
        """Load a model if need be; return the nanoseconds that it took."""
        started = time.monotonic_ns()
        with self.lock:
            if self.until.get(model, 0) < time.time():
                time.sleep(LOAD_SECONDS)
            self.until[model] = time.time() + keep_alive_s
        return time.monotonic_ns() - started

    def current(self) -> list[dict]:
        return [
            {"name": m, "model": m, "size": SIZE, "digest": "", "details": details(), "size_vram": 0,
             "expires_at": (datetime.now(timezone.utc) + timedelta(seconds=until - time.time())).isoformat()}
            for m, until in self.until.items() if until > time.time()
        ]  # fmt: skip


LOADED = Loaded()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, form: str, *args) -> None:
        print(f"[stand-in] {self.client_address[0]} {form % args}", flush=True)

    def reply(
        self, status: int, body: bytes, kind: str = "application/json; charset=utf-8"
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_json(self, value: dict, status: int = 200) -> None:
        self.reply(status, json.dumps(value).encode())

    def reply_lines(self, values: list[dict]) -> None:
        self.reply(
            200,
            b"".join(json.dumps(value).encode() + b"\n" for value in values),
            "application/x-ndjson",
        )

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        routes = {
            "/": lambda: self.reply(200, b"Ollama is running", "text/plain; charset=utf-8"),
            "/api/version": lambda: self.reply_json({"version": VERSION}),
            "/api/tags": lambda: self.reply_json({"models": installed()}),
            "/api/ps": lambda: self.reply_json({"models": LOADED.current()}),
        }
        routes.get(self.path, lambda: self.reply(404, b"404 page not found", "text/plain"))()

    def do_POST(self) -> None:
        try:
            request = json.loads(
                self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}"
            )
        except ValueError:
            self.reply_json({"error": "invalid request"}, 400)
            return
        routes = {
            "/api/show": self.show,
            "/api/pull": self.pull,
            "/api/generate": self.generate,
            "/api/chat": self.generate,
        }
        routes.get(self.path, lambda _: self.reply(404, b"404 page not found", "text/plain"))(
            request
        )

    def do_DELETE(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        path = manifest_path(request.get("model") or request.get("name", ""))
        if self.path != "/api/delete" or not os.path.exists(path):
            self.reply_json({"error": "model not found"}, 404)
            return
        os.unlink(path)
        self.reply(200, b"")

    def missing(self, model: str) -> bool:
        if os.path.isfile(manifest_path(model)):
            return False
        self.reply_json({"error": f"model '{model}' not found"}, 404)
        return True

    def show(self, request: dict) -> None:
        model = request.get("model") or request.get("name", "")
        if not self.missing(model):
            self.reply_json(
                {
                    "modelfile": f"FROM {full_name(model)}",
                    "parameters": "",
                    "template": "{{ .Prompt }}",
                    "details": details(),
                    "model_info": {},
                    "capabilities": ["completion"],
                }
            )

    def pull(self, request: dict) -> None:
        pull(request.get("model") or request.get("name", ""))
        lines = [
            {"status": "pulling manifest"},
            {"status": "verifying sha256 digest"},
            {"status": "writing manifest"},
            {"status": "success"},
        ]
        self.reply_json(lines[-1]) if request.get("stream") is False else self.reply_lines(lines)

    def generate(self, request: dict) -> None:
        model = request.get("model", "")
        if self.missing(model):
            return
        started = time.monotonic_ns()
        chat = self.path == "/api/chat"
        prompt = (
            request["messages"][-1].get("content", "")
            if chat and request.get("messages")
            else request.get("prompt", "")
        )
        load = LOADED.use(
            full_name(model),
            float(request.get("keep_alive", KEEP_ALIVE_S) or 0)
            if str(request.get("keep_alive", "1")).isdigit()
            else KEEP_ALIVE_S,
        )
        words = (
            (["This", "is", "the", "offline", "stand-in", "for", "Ollama."] + prompt.split())[
                : int(request.get("options", {}).get("num_predict", 64))
            ]
            if prompt
            else []
        )
        evaluated = time.monotonic_ns()
        time.sleep(WORD_SECONDS * len(words))
        spent = max(1, time.monotonic_ns() - evaluated)

        def part(text: str, done: bool) -> dict:
            content = (
                {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
            )
            return {"model": model, "created_at": now(), **content, "done": done}

        counts = {"done_reason": "stop" if words else "load", "total_duration": time.monotonic_ns() - started, "load_duration": load,
                  "prompt_eval_count": len(prompt.split()), "prompt_eval_duration": 1_000_000, "eval_count": len(words), "eval_duration": spent}  # fmt: skip
        if request.get("stream") is False:
            self.reply_json({**part(" ".join(words), True), **counts})
        else:
            self.reply_lines(
                [part(f"{word} ", False) for word in words] + [{**part("", True), **counts}]
            )


def serve() -> None:
    delay_s = float(os.environ.get("OLLAMA_STAND_IN_START_DELAY", "0"))
    if delay_s:
        print(f"[stand-in] loading for {delay_s} s before listening", flush=True)
        time.sleep(delay_s)
    os.makedirs(MODELS, exist_ok=True)
    host, port = address()
    ThreadingHTTPServer.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = ThreadingHTTPServer((host, port), Handler)
    print(f"[stand-in] Listening on {host}:{port} (version {VERSION})", flush=True)
    server.serve_forever()


def call(method: str, path: str, body: dict | None = None) -> dict:
    host, port = address()
    connection = http.client.HTTPConnection(
        "127.0.0.1" if host in ("0.0.0.0", "::") else host, port, timeout=60
    )
    connection.request(method, path, json.dumps(body) if body is not None else None)
    answer = json.loads(connection.getresponse().read() or b"{}")
    if "error" in answer:
        sys.exit(f"Error: {answer['error']}")
    return answer


def main() -> None:
    command, *rest = sys.argv[1:] or ["help"]
    if command == "serve":
        serve()
    elif command == "pull" and rest:
        print(call("POST", "/api/pull", {"model": rest[0], "stream": False})["status"])
    elif command in ("list", "ls"):
        print("NAME\tID\tSIZE")
        for model in call("GET", "/api/tags")["models"]:
            print(f"{model['name']}\t{model['digest'][:12]}\t{model['size']} B")
    elif command == "run" and len(rest) > 1:
        print(
            call(
                "POST",
                "/api/generate",
                {"model": rest[0], "prompt": " ".join(rest[1:]), "stream": False},
            )["response"]
        )
    elif command in ("--version", "-v"):
        print(f"ollama version is {VERSION}")
    else:
        sys.exit(
            "usage: ollama serve | pull MODEL | list | run MODEL PROMPT | --version  (offline stand-in)"
        )


main()
