"""One call of one script: events of one operation that travel together, each posted for itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hiredis import ReplyError

from byline.posting.answers import Answer, NotItsAnswer, answer_to
from byline.posting.keys import Keys
from byline.posting.pipeline import Reply
from byline.posting.postings import Posting
from byline.posting.scripts import Script

KEY_BYTES = 60  # of a key's name, about


@dataclass(slots=True)
class Call:
    """An EVALSHA in the making; prelude.lua tells its KEYS and ARGV."""

    script: Script
    postings: list[Posting] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _words: list[str | int] = field(default_factory=list)

    def add(self, posting: Posting, keys: Keys) -> int:
        """One more event; about how many bytes it takes on the wire."""
        names, words = keys.of(posting), posting.words()
        self.postings.append(posting)
        self._names += names
        self._words.append(len(words))
        self._words += words
        return sum(map(len, words)) + KEY_BYTES * len(names)

    def command(self, keys: Keys, epoch: int) -> tuple[str | int, ...]:
        """The command's words."""
        names = [*keys.shared(), *self._names]
        return (
            "EVALSHA", self.script.sha1, len(names), *names,
            epoch, len(self.postings), *self._words,
        )  # fmt: skip

    def answers(self, reply: Reply) -> list[Answer]:
        """What each event was answered, in their order. Raises NotItsAnswer."""
        if isinstance(reply, ReplyError):  # nothing ran
            return [answer_to(posting, reply) for posting in self.postings]
        if not isinstance(reply, list) or len(reply) != len(self.postings):
            raise NotItsAnswer(f"{self.postings[0].key} was given something that is no answer")
        each: Sequence[Reply] = reply
        return [
            answer_to(posting, answer) for posting, answer in zip(self.postings, each, strict=True)
        ]
