"""A program that admits as a gateway does: `python -m tests.byline.quota_gateway URL SCOPES COUNT`.

SCOPES have commas between them. Prints how many of COUNT inferences were admitted. With `--die` it
is killed after the first one.
"""

import asyncio
import os
import signal
import sys
import uuid

from byline.quotas.quotas import Quotas
from byline.quotas.scopes import Admitted, Scope, Want


async def main(url: str, given: str, count: int, dies: bool) -> None:
    quotas = Quotas.of(url)
    scopes = tuple(map(Scope.parse, given.split(",")))

    async def ask() -> bool:
        want = Want(uuid.uuid4().hex, "shop", scopes, tokens=3, nano=5)
        found = await quotas.admit(want, lasts_ms=200)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return isinstance(found, Admitted)

    print(sum(await asyncio.gather(*(ask() for _ in range(count)))))
    await quotas.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), "--die" in sys.argv))
