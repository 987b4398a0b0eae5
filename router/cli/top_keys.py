"""Key presses of a terminal, one by one and not shown, for as long as a context lasts."""

from __future__ import annotations

import asyncio
import os
import re
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}
_KEY = re.compile(r"\x1b[\[O]([A-D])|\x1b[\[O][0-?]*[ -/]*[@-~]|(.)", re.DOTALL)


def keys_of(data: bytes) -> Iterator[str]:
    """The keys of what a terminal sent: letters, and `up`, `down`, `left`, `right`."""
    for arrow, sign in _KEY.findall(data.decode("utf-8", "replace")):
        if arrow:
            yield _ARROWS[arrow]
        elif sign:
            yield sign


@contextmanager
def keys(file: int, on_key: Callable[[str], None], on_end: Callable[[], None]) -> Iterator[None]:
    """Have `on_key` called for each press on the terminal `file`, on the running loop.

    Args:
        file: descriptor of a terminal; its mode is put back at the end.
        on_key: gets a name of `keys_of`.
        on_end: the terminal is gone.
    """
    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(file)

    def read() -> None:
        try:
            data = os.read(file, 1024)
        except OSError:
            data = b""
        if not data:
            loop.remove_reader(file)
            on_end()
        for key in keys_of(data):
            on_key(key)

    tty.setcbreak(file)
    loop.add_reader(file, read)
    try:
        yield
    finally:
        loop.remove_reader(file)
        with suppress(termios.error):  # it is gone, and its mode with it
            termios.tcsetattr(file, termios.TCSADRAIN, before)
