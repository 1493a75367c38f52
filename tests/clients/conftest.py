"""One running gateway for all clients."""

from collections.abc import Iterator

import pytest

from tests.gateway_program import GatewayProgram, running_program


@pytest.fixture(scope="package")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProgram]:
    with running_program(tmp_path_factory.mktemp("gateway")) as running:
        yield running
