"""Fixtures that every room's tests share."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as the programs do."""
    return "asyncio"
