"""One running gateway for the days on which its ledger is well; the others start their own."""

from collections.abc import Iterator

import pytest

from tests.bad_days.asking import ask, eventually
from tests.gateway_program import GatewayProgram, holds_in, running_program


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProgram]:
    with running_program(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def program(shared: GatewayProgram) -> GatewayProgram:
    """The shared gateway, alive. What an earlier test has left open is that test's failure."""
    assert shared.process.poll() is None, shared.log()[-3_000:]
    # An engine that has failed three times in a row is left alone for a while.
    eventually(lambda: ask(shared).status == 200, "the gateway answers")
    shared.engine.let_go.clear()
    shared.left_open = holds_in(shared.books()[1])
    return shared
