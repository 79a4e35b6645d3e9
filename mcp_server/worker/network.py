"""Whether there is a network. Most contexts have none, and code that looks for one should be told."""

from __future__ import annotations

import errno
import socket

NONE = "There is no network here: what lies on this machine is all that can be had."

_LOOPBACK = "lo"
_UNREACHABLE = frozenset((errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL))
_LONGEST_CHAIN = 20


def is_there() -> bool:
    """Whether anything but this machine could be reached."""
    try:
        return any(name != _LOOPBACK for _, name in socket.if_nameindex())
    except OSError:  # sockets are refused
        return False


def was_sought(error: BaseException) -> bool:
    """Whether it, or an error that led to it, is one of a machine without network."""
    current: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if current is None:
            break
        if isinstance(current, socket.gaierror) or (isinstance(current, OSError) and current.errno in _UNREACHABLE):
            return True
        current = current.__cause__ or current.__context__
    return False
