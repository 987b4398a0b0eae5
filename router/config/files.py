"""Reads the files of a configuration, whatever may stand in their place."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_file(path: Path, most: int) -> bytes:
    """Read up to `most` bytes of a regular file, without ever waiting for one who writes.

    A pipe in its place is refused. To open one as a file is opened would wait for its writer, and
    a thread that waits so cannot be ended; what it holds could be read only once, too.

    Raises:
        OSError: it cannot be read, is no regular file, or its path can be none.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "no path holds a null")
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no regular file, so a reload could not read it again")
        return file.read(most)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
