"""What the tests of the data plane share."""

from __future__ import annotations

import pytest
from hypothesis import settings

from unit.proxy.client_fakes import Client, waiting_client

# Property tests are not timed: a loaded machine is no failure.

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def client() -> Client:
    """A client that is answered at once."""
    return Client()


@pytest.fixture
def waiting() -> Client:
    """A client whose answers the test gives."""
    return waiting_client()
