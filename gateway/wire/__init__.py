"""Bodies that cross HTTP.

`bodies` says which fields are looked at, `forbidden` which never pass, `questions` what a checked
question is and what the engine is sent for it, `json_objects` how bytes are read.
"""

from gateway.wire.json_objects import JsonObject, dumped, invalid, read_object
from gateway.wire.questions import Endpoint, Question, engine_body, question_of, read_question

__all__ = [
    "Endpoint",
    "JsonObject",
    "Question",
    "dumped",
    "engine_body",
    "invalid",
    "question_of",
    "read_object",
    "read_question",
]
