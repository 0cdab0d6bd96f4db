"""The socket that a server of this program listens with, and its address in a browser."""

from __future__ import annotations

import socket

from fastsam3d.errors import UserError


def listening_socket(host: str, port: int) -> socket.socket:
    """Makes a socket that is bound to an address, before anything is loaded or told.

    Args:
        host: name or address, IPv4 or IPv6.
        port: 0 takes any free one.

    Raises:
        UserError: the address is taken, or is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"cannot serve at {host}, port {port} ({error.strerror or error}): choose another with port=N."
        ) from None
    return listener


def web_address(host: str, port: int) -> str:
    """Returns the address of a server for a browser; an IPv6 address stands in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
