"""API key -> caller. The secret is looked up and forgotten: never logged, never kept."""

from starlette.requests import Request

from byline.api_keys import ApiKeys
from byline.errors import Forbidden, Unauthenticated
from byline.records import Caller, KeyRole
from gateway.observed import observed

ASKERS = frozenset({KeyRole.APPLICATION, KeyRole.OPERATOR})
ANY_ROLE = frozenset(KeyRole)

NO_KEY = "No API key: send it as `Authorization: Bearer <key>`."


async def caller_of(
    request: Request, keys: ApiKeys, roles: frozenset[KeyRole] = ANY_ROLE
) -> Caller:
    """Who is asking. Raises Unauthenticated without a known key, Forbidden for another role."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthenticated(NO_KEY)
    caller = await keys.find(secret.strip())
    if caller.role in ASKERS:  # contributors' and owners' names are left out of the logs
        observed(request).application = caller.subject
    if caller.role not in roles:
        allowed = " or ".join(sorted(roles))
        raise Forbidden(f"A key of role {caller.role} may not do this: it takes {allowed}.")
    return caller
