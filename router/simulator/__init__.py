"""A simulated vLLM server: its API on the wire, a model of time behind it, no GPU.

`serve(SimulatorSettings(...))` runs one on a free port within the event loop; `router simulate`
runs one as a process. It knows nothing of the router and is useful without it.
"""

from router.simulator.app import make_app
from router.simulator.server import RunningEngine, serve
from router.simulator.settings import SimulatorSettings

__all__ = ["RunningEngine", "SimulatorSettings", "make_app", "serve"]
