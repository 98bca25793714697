"""Keep notes: GET lists them, POST adds one. Answers datagrams with the port."""

import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

PORT, DISCOVERY_PORT = int(os.environ["NOTES_PORT"]), int(os.environ["NOTES_DISCOVERY_PORT"])
FILE = f"{os.environ.get('STATE_DIRECTORY', '.')}/notes.txt"


class Notes(BaseHTTPRequestHandler):
    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if not os.path.exists(FILE):
            self.reply(200, b"")
            return
        with open(FILE, "rb") as file:
            self.reply(200, file.read())

    def do_POST(self) -> None:
        note = self.rfile.read(int(self.headers.get("Content-Length", 0))).replace(b"\n", b" ")
        with open(FILE, "ab") as file:
            file.write(note + b"\n")
        self.reply(201, b"")


def answer_discovery() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as discovery:
        discovery.bind(("0.0.0.0", DISCOVERY_PORT))
        while True:
            _, sender = discovery.recvfrom(64)
            discovery.sendto(str(PORT).encode(), sender)


threading.Thread(target=answer_discovery, daemon=True).start()
HTTPServer(("0.0.0.0", PORT), Notes).serve_forever()
