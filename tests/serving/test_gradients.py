"""Theorems about per-row gradients.

For every row: the gradient that the hooks put together is autograd's own gradient of that row's
summed completion log-probability on all LoRA weights; it agrees with finite differences; and it
does not depend on which rows share its batch, nor on their order.
"""

import pytest
import torch
from peft import PeftModel

from serving.attention import PLAIN_TOKENS_MAX
from serving.gradients import completion_log_probabilities, row_gradients
from serving.lora import flat_weights, lora_parts, lora_size
from serving.rows import Row


def autograd_gradient(model: PeftModel, row: Row) -> torch.Tensor:
    weights = [weight for part in lora_parts(model) for weight in part.weights]
    total = completion_log_probabilities(model, [row]).sum()
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(total, weights)])


def test_each_rows_gradient_is_autograds_own(adapter: PeftModel, rows: list[Row]) -> None:
    found = row_gradients(adapter, rows).gradients
    assert found.shape == (len(rows), lora_size(adapter))
    for row, gradient in zip(rows, found, strict=True):
        torch.testing.assert_close(gradient, autograd_gradient(adapter, row), rtol=1e-4, atol=1e-5)


def test_a_gradient_does_not_depend_on_its_batch(adapter: PeftModel, rows: list[Row]) -> None:
    together = row_gradients(adapter, rows)
    backwards = row_gradients(adapter, rows[::-1])
    alone = torch.cat([row_gradients(adapter, [row]).gradients for row in rows])
    torch.testing.assert_close(together.gradients, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        together.gradients, backwards.gradients.flip(0), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(together.log_probabilities, backwards.log_probabilities.flip(0))


def test_in_bfloat16_not_even_the_last_bit_depends_on_the_batch(
    adapter: PeftModel, rows: list[Row]
) -> None:
    adapter.to(torch.bfloat16)
    together = row_gradients(adapter, rows)
    for place, row in enumerate(rows):
        alone = row_gradients(adapter, [row])
        assert torch.equal(alone.gradients[0], together.gradients[place])
        assert torch.equal(alone.log_probabilities[0], together.log_probabilities[place])


def test_a_shared_beginning_changes_nothing_but_the_work(
    adapter: PeftModel, rows: list[Row]
) -> None:
    beginning = (3, 4, 5)
    behind = [Row((*beginning, *row.prompt), row.completion) for row in rows]
    mixed = [behind[0], rows[0], *behind[1:], Row(beginning, (6, 7))]  # two are not behind it
    with torch.no_grad():
        whole = completion_log_probabilities(adapter, mixed)
        shared = completion_log_probabilities(adapter, mixed, beginning)
        torch.testing.assert_close(shared, whole)
        long = Row((*beginning, *(7 for _ in range(PLAIN_TOKENS_MAX))), (6, 7, 8))
        torch.testing.assert_close(
            completion_log_probabilities(adapter, [long], beginning),
            completion_log_probabilities(adapter, [long]),
        )


def test_behind_a_beginning_not_even_the_last_bit_depends_on_the_batch(
    adapter: PeftModel, rows: list[Row]
) -> None:
    adapter.to(torch.bfloat16)
    beginning = (3, 4, 5)
    behind = [Row((*beginning, *row.prompt), row.completion) for row in rows]
    mixed = [*behind, rows[0], Row((*beginning, 9), (6,))]
    with torch.no_grad():
        together = completion_log_probabilities(adapter, mixed, beginning)
        for place, row in enumerate(mixed):
            alone = completion_log_probabilities(adapter, [row], beginning)
            assert torch.equal(alone[0], together[place])


def test_a_gradient_agrees_with_finite_differences(adapter: PeftModel, rows: list[Row]) -> None:
    row = rows[0]
    gradient = row_gradients(adapter, [row]).gradients[0]
    torch.manual_seed(8)
    direction = torch.randn_like(flat_weights(adapter))
    step = 3e-3  # the model's norms and its log-probabilities are single precision

    def moved(amount: float) -> float:
        place = 0
        with torch.no_grad():
            for part in lora_parts(adapter):
                for weight in part.weights:
                    end = place + weight.numel()
                    weight.add_(direction[place:end].view_as(weight), alpha=amount)
                    place = end
            return completion_log_probabilities(adapter, [row]).item()

    forward = moved(step)
    backward = moved(-2 * step)
    expected = (gradient @ direction).item()
    assert (forward - backward) / (2 * step) == pytest.approx(expected, rel=5e-3)


def test_the_log_probability_is_that_of_the_completion_alone(
    adapter: PeftModel, rows: list[Row]
) -> None:
    row = rows[3]
    logits = adapter(input_ids=torch.tensor([row.ids])).logits[0].float()
    expected = sum(
        torch.log_softmax(logits[len(row.prompt) + place - 1], dim=-1)[token].item()
        for place, token in enumerate(row.completion)
    )
    found = row_gradients(adapter, [row]).log_probabilities
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_no_hook_stays_behind(adapter: PeftModel, rows: list[Row]) -> None:
    row_gradients(adapter, rows[:1])
    assert not any(part.a._forward_hooks or part.b._forward_hooks for part in lora_parts(adapter))
