"""POST /v1/responses."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway.charging import Inference
from gateway.inferences import Asked, Inferences
from gateway.presenting import Presenter
from gateway.responses.asking import read_response
from gateway.responses.events import ResponsePresenter
from gateway.responses.replies import response_object


def read_asked(raw: bytes) -> Asked:
    """The body as a question whose answer is shown as a response."""
    asked = read_response(raw)

    def presenter(inference: Inference) -> Presenter:
        return ResponsePresenter(
            response_object(
                f"resp_{inference.id}",
                inference.time_ms // 1_000,
                inference.target.served_by,
                asked.echo,
            )
        )

    return Asked(asked.question, presenter)


def responses_routes(inferences: Inferences) -> APIRouter:
    """POST /v1/responses: a plain route, like a chat's."""
    routes = APIRouter()

    async def respond(request: Request) -> Response:
        return await inferences.answer(request, read_asked)

    routes.add_route("/v1/responses", respond, methods=["POST"])
    return routes
