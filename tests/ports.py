"""A port for each app that the tests start; two test processes side by side never ask for one port."""

import socket


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
