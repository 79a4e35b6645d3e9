"""The entry of the zygote's process, before anything is imported that wants to be called at each fork."""

from __future__ import annotations

from . import forkhooks


def main(control_fd: str) -> None:
    """What the host starts; never returns."""
    forkhooks.keep()
    from . import zygote  # with ctypes, which from Python 3.14 on has threading come with it

    zygote.main(control_fd)
