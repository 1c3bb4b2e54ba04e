"""A mail server of this machine, as small as it can be."""

import socketserver
import threading

SECONDS = 30


class _Session(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as smtplib needs."""

    server: "Post"

    def handle(self) -> None:
        self.server.called.set()
        assert self.server.open.wait(SECONDS)
        self.wfile.write(b"220 ready\r\n")
        for line in self.rfile:
            verb = line[:4].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                self.server.letters.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
            elif verb == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            elif verb == b"RCPT" and self.server.full:
                self.wfile.write(b"452 mailbox full\r\n")
                continue
            self.wfile.write(b"250 ok\r\n")


class Post(socketserver.ThreadingTCPServer):
    """A mail server of this machine. While ``open`` is not set it accepts and says nothing."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.letters: list[str] = []
        self.full = False
        self.called = threading.Event()
        self.open = threading.Event()
        self.open.set()
