"""A process to be killed: settles in a loop, and prints what it has settled and seen.

Each line is `monotonic-time settled seen`: tokens settled so far in this life, and the progress
of the one reservation that stays open.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from router.ledger import Limits, Reservation, SqliteLedger
from router.log import configure_logging
from router.model import Usage
from router.storage import Database

# No calendar window ends while a test runs.
NOW = 1_769_860_800.0


async def main(path: Path) -> None:
    with Database.open(path) as database:
        ledger = SqliteLedger(database, {"acme": Limits()}, clock=lambda: NOW)
        await ledger.start(NOW)
        background = asyncio.create_task(ledger.run())
        streaming = ledger.reserve("acme", 0, 10**6, NOW)
        assert isinstance(streaming, Reservation)
        print("used", ledger.windows("acme", NOW)[1].used, flush=True)
        settled = seen = 0
        while not background.done():
            for _ in range(20):
                reservation = ledger.reserve("acme", 3, 4, NOW)
                assert isinstance(reservation, Reservation)
                ledger.settle(reservation, Usage(3, 4))
                settled += 7
            seen += 1
            streaming.progress(0, seen)
            print(time.monotonic(), settled, seen, flush=True)
            await asyncio.sleep(0.002)


if __name__ == "__main__":
    configure_logging("json", "error")
    asyncio.run(main(Path(sys.argv[1])))
