"""The transparency log as static files, for everybody: tiles, bundles, tree head, public keys.

Any web server can serve the same folder. A tile never changes; the tree head always does.
"""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from byline.errors import NotFound
from gateway.services import Services

FOR_EVER = "public, max-age=31536000, immutable"
ALWAYS_ASK = "public, no-cache"
OCTETS, TEXT = "application/octet-stream", "text/plain; charset=utf-8"


def log_files_routes(services: Services) -> APIRouter:
    """GET and HEAD of /log/{ledger}/…: no key is asked for, and no name of an account is in it."""
    routes = APIRouter()

    @routes.api_route("/log/{ledger}/{path:path}", methods=["GET", "HEAD"], response_model=None)
    async def log_file(request: Request, ledger: str, path: str) -> Response:
        logs, found = services.logs, None
        if logs is not None and ledger in services.shards.ledgers:
            found = await logs.published(ledger, path)
        if found is None:
            raise NotFound("The published log has no such file.")
        is_tile = path.startswith("tile/")
        headers = {
            "cache-control": FOR_EVER if is_tile else ALWAYS_ASK,
            "access-control-allow-origin": "*",
            "content-length": str(len(found)),
        }
        body = b"" if request.method == "HEAD" else found
        return Response(body, headers=headers, media_type=OCTETS if is_tile else TEXT)

    return routes
