"""POST /v1/embeddings: no model of a release has any, which is said clearly."""

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from byline.errors import InvalidInput
from gateway.auth import ASKERS, caller_of
from gateway.models import Models
from gateway.services import Services
from gateway.wire import invalid, read_object
from gateway.wire.bodies import MODEL_NAME_CHARACTERS_MAX


class EmbeddingsBody(BaseModel):
    """What is looked at before it is refused."""

    model_config = ConfigDict(strict=True)
    model: str = Field(min_length=1, max_length=MODEL_NAME_CHARACTERS_MAX)


def embeddings_routes(services: Services, models: Models) -> APIRouter:
    """POST /v1/embeddings."""
    routes = APIRouter()

    @routes.post("/v1/embeddings", response_model=None)
    async def embed(request: Request) -> Response:
        await caller_of(request, services.keys, ASKERS)
        try:
            body = EmbeddingsBody.model_validate(read_object(await request.body()))
        except ValidationError as problem:
            raise invalid(problem) from problem
        models.described(body.model)  # NotFound for a name that is not served
        raise InvalidInput(f"Model '{body.model}' has no embeddings: it writes.", param="model")

    return routes
