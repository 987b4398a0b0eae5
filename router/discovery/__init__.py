"""Where services come from beside the configuration: labels of containers, a folder of files."""

from router.discovery.discovery import Discovery
from router.discovery.status import SourceStatus

__all__ = ["Discovery", "SourceStatus"]
