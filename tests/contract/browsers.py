"""Clients with cookies: over a socket, and a framework's own test client in its own process."""

import base64
import itertools
import json
import select
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

ANSWER_SECONDS = 20.0
HEADER = "x-request-id"


class Reply(NamedTuple):
    """A response, with its headers as they came: one pair each, in order."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    connection: object = None
    """What tells the connection that it came over from others."""
    whole: bool = True
    """Whether the body came to its end."""

    @property
    def ids(self) -> list[str]:
        """Every X-Request-ID that it carries."""
        return self.values(HEADER)

    @property
    def id(self) -> str:
        """The one X-Request-ID that it carries."""
        (only,) = self.ids
        return only

    def values(self, name: str) -> list[str]:
        """The values of a header, each as often as it was sent."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Browser(ABC):
    """A client that keeps its cookies."""

    @abstractmethod
    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "",
    ) -> Reply:
        """Send one request."""

    @abstractmethod
    def close(self) -> None:
        """Let its connection go."""


class HttpBrowser(Browser):
    """A client of a server on this machine, with one connection."""

    def __init__(self, port: int) -> None:
        import httpx  # here: this module is read where nothing but the core is installed

        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            limits=httpx.Limits(max_connections=1),
            timeout=ANSWER_SECONDS,
            trust_env=False,
            verify=False,  # there is nothing to verify, and loading certificates takes long
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "",
    ) -> Reply:
        import httpx

        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        if content_type:
            pairs.append(("Content-Type", content_type))
        raw = [(key.encode("ascii"), value.encode("latin-1")) for key, value in pairs]
        with self._client.stream(method, path, headers=raw, content=body) as response:
            connection = response.extensions["network_stream"].get_extra_info("client_addr")
            received, whole = b"", True
            try:
                for piece in response.iter_raw():
                    received += piece
            except httpx.RemoteProtocolError:
                whole = False
        got = [
            (key.decode("latin-1"), value.decode("latin-1")) for key, value in response.headers.raw
        ]
        return Reply(response.status_code, got, received, connection, whole)

    def forget(self) -> None:
        """Throw the cookies away, and keep the connection."""
        self._client.cookies.clear()

    def close(self) -> None:
        self._client.close()


_numbers = itertools.count()


class InProcess(Browser):
    """A framework's test client, in the process that ``in_process.py`` of the application runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._name = f"browser {next(_numbers)}"

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        content_type: str = "",
    ) -> Reply:
        asked = {
            "client": self._name,
            "method": method,
            "path": path,
            "headers": dict(headers),
            "body": base64.b64encode(body).decode(),
            "content_type": content_type,
        }
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(asked).encode() + b"\n")
        stdin.flush()
        assert select.select([stdout], [], [], ANSWER_SECONDS)[0], "no answer in time"
        line = stdout.readline()
        assert line, "the test client's process has ended"
        answer = json.loads(line)
        return Reply(
            answer["status"],
            [(key, value) for key, value in answer["headers"]],
            base64.b64decode(answer["body"]),
            whole=answer.get("whole", True),
        )

    def close(self) -> None:
        """Nothing is open."""
