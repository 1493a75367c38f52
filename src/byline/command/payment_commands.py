"""`byline payment`: which adapter versions are not paid for now, and an operator's word on that."""

import time
from typing import Annotated

import typer

from byline.auditing.payment import PaymentPauses
from byline.command.options import DEFAULT_HOME, HomeOption, JsonOption
from byline.command.running import show
from byline.errors import NotFound
from byline.home import Home

payment_app = typer.Typer(
    no_args_is_help=True,
    help="Show which adapter versions are not paid, as their audits are bad; pay one again.",
)


@payment_app.command("paused")
def paused(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Show the adapter versions whose pools wait open, and why."""
    pauses = PaymentPauses(Home(home).payment).in_force()
    facts = [
        {"adapter_version": version, "since_ms": pause.since_ms, "reason": pause.reason}
        for version, pause in sorted(pauses.items())
    ]
    lines = [f"{version}: {pause.reason}" for version, pause in sorted(pauses.items())]
    show(as_json, {"paused": facts}, "\n".join(lines) or "every adapter version is paid")


@payment_app.command("resume")
def resume(
    version: Annotated[str, typer.Argument(help="The adapter version, such as `healthcare@...`.")],
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
) -> None:
    """Pay a version again, what has waited too; it is judged by answers served from now on."""
    pauses = PaymentPauses(Home(home).payment)
    if version not in pauses.in_force():
        raise NotFound(f"'{version}' is not paused: see `byline payment paused`", param="version")
    # After its pause by any clock: the auditor's may be ahead of this one.
    now_ms = max(time.time_ns() // 1_000_000, pauses.in_force()[version].since_ms)
    pauses.resume(version, now_ms=now_ms)
    show(as_json, {"adapter_version": version, "resumed_ms": now_ms}, f"{version} is paid again")
