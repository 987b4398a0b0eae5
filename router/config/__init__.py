"""What the operator wrote: frozen settings, read from a file with every problem told at once."""

from router.config.loading import load, load_services
from router.config.problems import ConfigurationError, Problem
from router.config.settings import Settings, service_specs

__all__ = [
    "ConfigurationError",
    "Problem",
    "Settings",
    "load",
    "load_services",
    "service_specs",
]
