"""core/openrag_core/retrieval/server.py: a server that is not there, or answers nothing."""

import socket
from collections.abc import Iterator

import pytest

from openrag_core import IndexUnreachableError
from openrag_core.retrieval import ServerStore


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        yield listener.getsockname()[1]


def test_a_silent_server_is_given_up_on(silent: int) -> None:
    url = f"http://127.0.0.1:{silent}"
    with pytest.raises(IndexUnreachableError, match=rf"{url} \(collection x\).*timed out"):
        ServerStore.connect(url, "x", timeout=1)


def test_a_closed_port_is_named(silent: int) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert port != silent
    with pytest.raises(IndexUnreachableError, match=f"127.0.0.1:{port}.*refused"):
        ServerStore.connect(f"http://127.0.0.1:{port}", "x", timeout=1)


@pytest.mark.parametrize("url", ["localhost:6333:6333", "ftp://x", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(IndexUnreachableError):
        ServerStore.connect(url, "x", timeout=1)
