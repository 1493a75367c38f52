"""What tokens say: where each begins in the text, and where words begin and end."""

from collections.abc import Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

REMEMBERED = 65_536  # tokens whose texts are kept, and pairs


class TokenTexts:
    """The texts of one tokenizer's tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._text_of = lru_cache(maxsize=REMEMBERED)(self._decoded_one)
        self.breaks = lru_cache(maxsize=REMEMBERED)(self._breaks)
        """Whether a word ends or begins between two tokens, one after the other."""

    def offsets(self, tokens: Sequence[int]) -> tuple[str, list[int]]:
        """The text of all tokens, and where each begins in it; last, the text's length.

        A token that is a part of a character begins where the character does. Special tokens are
        in the text, so that no offset depends on what is left out.
        """
        text = self._decoded(tokens)
        lengths = [len(self._text_of(token)) for token in tokens]
        if sum(lengths) == len(text) and "\ufffd" not in text:
            offsets = [0]
            for length in lengths:
                offsets.append(offsets[-1] + length)
            return text, offsets
        # Some character has several tokens, or the tokenizer joins tokens in its own way.
        beginnings = [
            len(self._decoded(tokens[:place]).rstrip("\ufffd")) for place in range(len(tokens))
        ]
        return text, [*beginnings, len(text)]

    def words(self, tokens: Sequence[int]) -> int:
        """How many words the tokens say."""
        return len(self._decoded(tokens).split())

    def _breaks(self, before: int, after: int) -> bool:
        left, right = self._text_of(before), self._text_of(after)
        both = self._decoded((before, after))  # some tokenizers put the space only between two
        if both.startswith(left):
            right = both[len(left) :]
        return not left or not right or not (_in_word(left[-1]) and _in_word(right[0]))

    @staticmethod
    def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
        """[start, end) without white space at its ends."""
        piece = text[start:end]
        return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(
            self._tokenizer.decode(
                list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def _decoded_one(self, token: int) -> str:
        return self._decoded((token,))


def _in_word(character: str) -> bool:
    return character.isalnum() or character in "_\ufffd"  # a part of a character is inside a word
