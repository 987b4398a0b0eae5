"""`kill -9` under load: what is missing afterwards is at most the last second."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

PROGRAM = Path(__file__).with_name("ledger_process.py")
FILES = 4
KILLS_A_FILE = 5
LOST_AT_MOST_S = 1.0
# Longer than what may be lost, so that something is due; and not a multiple of any period.
LIFE_S = (1.37, 1.61, 1.13, 1.79)


class Life:
    """One process: what it began with, and what it had told by the time it was killed."""

    def __init__(self) -> None:
        self.used_at_start = 0
        self.told: list[tuple[float, int, int]] = []
        self.killed_at = 0.0

    async def live(self, path: Path, life_s: float) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, PROGRAM, path, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            _, used = (await process.stdout.readline()).split()
            self.used_at_start = int(used)
            reading = asyncio.create_task(self._read(process.stdout))
            await asyncio.sleep(life_s)
        finally:
            self.killed_at = time.monotonic()
            process.kill()
            await process.wait()
        await reading

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        async for line in stdout:
            if not line.endswith(b"\n"):
                return
            at, settled, seen = line.split()
            self.told.append((float(at), int(settled), int(seen)))

    def told_before(self, moment: float) -> int:
        """Tokens of what was settled, and of what was under way, a while before the end."""
        return max((settled + seen for at, settled, seen in self.told if at <= moment), default=0)


async def kill_again_and_again(path: Path) -> list[Life]:
    lives = [Life() for _ in range(KILLS_A_FILE + 1)]
    for index, life in enumerate(lives):
        last = index == KILLS_A_FILE
        await life.live(path, 0.01 if last else LIFE_S[index % len(LIFE_S)])
    return lives


async def test_twenty_kills_lose_at_most_the_last_second(
    tmp_path: Path, finding: Callable[[str], None]
) -> None:
    """Nothing older is missing, and nothing appears that was never told."""
    files = [tmp_path / f"{index}.db" for index in range(FILES)]
    chains = await asyncio.gather(*map(kill_again_and_again, files))
    missing = []
    for lives in chains:
        for before, after in pairwise(lives):
            gained = after.used_at_start - before.used_at_start
            assert gained >= before.told_before(before.killed_at - LOST_AT_MOST_S)
            assert before.told_before(before.killed_at - LOST_AT_MOST_S) > 0
            told = before.told_before(before.killed_at)
            # The turn of the loop that the kill cut off may be on disk and not yet told.
            assert gained <= told + 20 * 7 + 1
            missing.append(max(0, told - gained) / max(1, told))
    finding(
        f"kill -9 under load, {len(missing)} times: missing after the restart at most"
        f" {max(missing):.1%}, on average {sum(missing) / len(missing):.1%}, of a life of"
        f" about {sum(LIFE_S) / len(LIFE_S):.1f} s; nothing older than {LOST_AT_MOST_S:.0f} s"
    )
