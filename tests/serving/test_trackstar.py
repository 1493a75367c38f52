"""TrackStar by Bergson reads our adapter, rows and answers as we mean them."""

import pytest
import torch

from byline.datasets import read_dataset
from serving.checkpoints import load_base_model, load_tokenizer
from serving.fidelity.trackstar import CONFIG, is_installed, trackstar_scores
from serving.gradients import row_gradients
from serving.lora import load_lora
from serving.rows import Row, encode
from tests.serving.tiny import TinyHome

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def rows(tiny_home: TinyHome) -> list[Row]:
    examples = read_dataset(tiny_home.dataset).canonical
    return encode(load_tokenizer(tiny_home.base.path), examples)


@pytest.fixture(scope="session")
def scores(tiny_home: TinyHome, rows: list[Row]) -> torch.Tensor:
    return trackstar_scores(tiny_home.base.path, tiny_home.adapter.path, rows, rows)


def test_it_is_installed_where_tests_run() -> None:
    assert is_installed()


def test_every_row_is_most_like_itself(rows: list[Row], scores: torch.Tensor) -> None:
    """Gradients of length 1: nothing has a larger inner product than a row with itself."""
    assert scores.shape == (len(rows), len(rows))
    best = scores.argmax(dim=1)
    assert all(rows[place] == rows[each] for place, each in enumerate(best.tolist()))


def test_its_order_is_that_of_our_gradients_cosines(
    tiny_home: TinyHome, rows: list[Row], scores: torch.Tensor
) -> None:
    """It projects and preconditions too; of another model's weights it would be noise."""
    model = load_lora(load_base_model(tiny_home.base.path), tiny_home.adapter.path)
    gradients = torch.nn.functional.normalize(row_gradients(model, rows).gradients, dim=1)
    apart = ~torch.eye(len(rows), dtype=torch.bool)
    ours, theirs = (gradients @ gradients.T)[apart], scores.float()[apart]
    assert torch.corrcoef(torch.stack([ours, theirs]))[0, 1] > 0.5


def test_the_adapter_on_disk_stays_as_it_was(tiny_home: TinyHome, scores: torch.Tensor) -> None:
    """A copy is told where its base model lies; an artifact never changes."""
    assert len(scores)
    assert str(tiny_home.base.path) not in (tiny_home.adapter.path / CONFIG).read_text()


def test_it_says_the_same_twice(tiny_home: TinyHome, rows: list[Row], scores: torch.Tensor) -> None:
    """Its random projection is drawn from a fixed seed."""
    again = trackstar_scores(tiny_home.base.path, tiny_home.adapter.path, rows, rows[:3])
    assert torch.equal(again.argmax(dim=1), scores[:3].argmax(dim=1))
