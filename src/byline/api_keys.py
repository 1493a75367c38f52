"""API keys: 256 random bits shown once, SHA-256 at rest, one Redis hash."""

from byline.records import Caller, KeyRole


class ApiKeys:
    """Creates and looks up API keys. The secret itself is never stored or logged."""

    @classmethod
    async def open(cls, url: str) -> "ApiKeys":
        """Connect."""
        raise NotImplementedError

    async def create(self, role: KeyRole, subject: str, *, now_ms: int) -> str:
        """A new secret, `byl_` and 43 URL-safe characters. It can't be had again."""
        raise NotImplementedError

    async def find(self, secret: str) -> Caller:
        """Who the key stands for. Raises Unauthenticated; LedgerUnavailable if Redis is away."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the connection."""
        raise NotImplementedError
