"""Whose account a payee's request is about: its own, one of its own, or anybody's for operators."""

import re

from starlette.requests import Request

from byline.errors import Forbidden, InvalidInput, NotFound
from byline.records import Caller, KeyRole, Release
from byline.statements.statement import is_payee
from gateway.auth import caller_of
from gateway.models import Models
from gateway.services import Services

PAYEES = frozenset({KeyRole.CONTRIBUTOR, KeyRole.OWNER, KeyRole.OPERATOR})
LEDGER = re.compile(r"[A-Za-z0-9._-]{1,64}")


async def asked_of(request: Request, services: Services, models: Models) -> tuple[list[str], str]:
    """Whose statements are asked for, and of which ledger."""
    caller = await caller_of(request, services.keys, PAYEES)
    ledger = request.query_params.get("ledger", "usd")
    if not LEDGER.fullmatch(ledger):
        raise InvalidInput("That is no ledger's name.", param="ledger")
    return accounts_of(request, caller, models.release), ledger


def accounts_of(request: Request, caller: Caller, release: Release) -> list[str]:
    """The caller's accounts, or the one of them that it names; anybody's for an operator."""
    asked = request.query_params.get("account")
    if caller.role is KeyRole.OPERATOR:
        if asked is None or not is_payee(asked):
            raise InvalidInput(
                "An operator names whose statements: ?account=contrib:<id>, owner:<adapter>, "
                "base:<model>, host or platform.",
                param="account",
            )
        return [asked]
    own = [f"contrib:{caller.subject}"]
    if caller.role is KeyRole.OWNER:
        own = [f"owner:{each.adapter}" for each in release.adapters if each.owner == caller.subject]
    if asked is None:
        return own
    if asked not in own:
        raise Forbidden("That is not an account of this key.")
    return [asked]


def only(accounts: list[str]) -> str:
    """The one account of which a statement is asked for."""
    if not accounts:
        raise NotFound("No adapter that is being served is yours.")
    if len(accounts) > 1:
        names = ", ".join(accounts)
        raise InvalidInput(f"Say which account's: ?account= one of {names}.", param="account")
    return accounts[0]
