"""A peer in another process that sends back whatever it gets over a TCP connection."""

import socket
import subprocess
import sys

# A plain child interpreter: starts fast, and ends by itself when its connection closes.
# The length goes first: a peer that echoed at once could block on a sender that is not yet reading.
_SOCKET_PEER = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection.makefile("rb") as incoming:
        while head := incoming.read(8):
            connection.sendall(incoming.read(int.from_bytes(head, "big")))
"""


class EchoSocket:
    """A TCP connection over loopback to a process that echoes; use as a context manager."""

    def __enter__(self) -> "EchoSocket":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(20)
            port = str(listener.getsockname()[1])
            self._peer = subprocess.Popen([sys.executable, "-I", "-S", "-c", _SOCKET_PEER, port])
            try:
                self._socket, _ = listener.accept()
            except BaseException:
                self._peer.kill()
                self._peer.wait()
                raise
        self._socket.settimeout(20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._incoming = self._socket.makefile("rb")
        return self

    def __exit__(self, *_exception) -> None:
        self._incoming.close()
        self._socket.close()
        try:
            self._peer.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._peer.kill()
            self._peer.wait()

    def round_trip(self, message: bytes) -> bytes:
        """Send the message and wait until all of it has come back."""
        self._socket.sendall(len(message).to_bytes(8, "big") + message)
        answer = self._incoming.read(len(message))
        if len(answer) < len(message):
            raise ConnectionError("the echo process has gone; start a new EchoSocket")
        return answer
