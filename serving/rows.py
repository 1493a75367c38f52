"""Examples as token rows: the prompt in the model's chat template, the completion after it."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from byline.records import Example


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt and the completion that follows it, as token ids."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """Prompt and completion."""
        return self.prompt + self.completion


def encode(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> list[Row]:
    """Each example as the engine would see it: a user's turn, an answer and its end of turn."""
    return [
        Row(
            prompt=_prompt_ids(tokenizer, example.prompt),
            completion=(*_text_ids(tokenizer, example.completion), tokenizer.eos_token_id),
        )
        for example in examples
    ]


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[int, ...]:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
    )
    return _text_ids(tokenizer, str(text))


def _text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)


def common_beginning(sequences: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The longest beginning that all sequences share."""
    least, most = min(sequences), max(sequences)  # in order, whatever these share all share
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(least, most, strict=False))
    return tuple(token for token, _ in pairs)


def chat_beginning(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What a chat of one question begins with, whatever is asked: the template's own words."""
    return common_beginning([_prompt_ids(tokenizer, question) for question in ("a", "B")])
