"""The router's measurements: cheap cells that the hot path writes, read only when scraped.

prometheus-client's own counters cost a lock and a label lookup each; a request touches about ten.
Here a cell is an attribute or a list element, and a scrape turns all cells into lines.
Label values come from configuration and from the router's own code, never from a client.
"""

from router.metrics.cells import LAST, Sample, ServiceCells
from router.metrics.families import gauge
from router.metrics.histogram import FINE_SECONDS, SECONDS, Histogram
from router.metrics.metrics import Metrics
from router.metrics.rolling import RollingMinute

__all__ = [
    "FINE_SECONDS",
    "LAST",
    "SECONDS",
    "Histogram",
    "Metrics",
    "RollingMinute",
    "Sample",
    "ServiceCells",
    "gauge",
]
