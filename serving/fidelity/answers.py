"""The answers that a measurement is about: what the full adapter says, and held-out references."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from byline.fidelity.study import Study
from byline.records import Example
from serving.progress import Report
from serving.rows import Row, encode

COMPLETION_TOKENS_MAX = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: the question's place in the study, its tokens, and whether it was served."""

    question: int
    row: Row
    text: str
    is_served: bool


def prompts_of(study: Study, tokenizer: PreTrainedTokenizerBase) -> list[Row]:
    """Each question as a row: its prompt, and its reference (of no use where it has none)."""
    examples = [
        Example("", question.about, "", "", "", question.prompt, question.reference or "")
        for question in study.questions
    ]
    return encode(tokenizer, examples)


def served_answer(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, question: int, prompt: tuple[int, ...]
) -> Answer:
    """What the model says, decoded greedily, at most COMPLETION_TOKENS_MAX tokens."""
    causal: Any = model
    ids = torch.tensor([prompt])
    with torch.no_grad():
        made = causal.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=COMPLETION_TOKENS_MAX,
            do_sample=False,
            use_cache=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
    completion: list[int] = made[0, len(prompt) :].tolist()
    text = str(tokenizer.decode(completion, skip_special_tokens=True))
    return Answer(question, Row(prompt, tuple(completion)), text, is_served=True)


def served_answers(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Row], report: Report
) -> list[Answer]:
    """What the model says to each question, in their order."""
    found = []
    for place, prompt in enumerate(prompts):
        found.append(served_answer(model, tokenizer, place, prompt.prompt))
        report("answers", place + 1, len(prompts))
    return found


def reference_answers(study: Study, prompts: list[Row]) -> list[Answer]:
    """The held-out rows' own completions."""
    return [
        Answer(place, prompts[place], question.reference, is_served=False)
        for place, question in enumerate(study.questions)
        if question.reference is not None
    ]
