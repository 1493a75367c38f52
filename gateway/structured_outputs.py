"""Which field asks for structured output, and whether the engine failed over it.

vLLM refuses most grammars that it can't follow with 400 and a reason. Some pass that check and fail
when they are compiled: then it answers 500, or an error in the stream, before the first token and
without a reason. That is what the client asked for, not what the engine is.
"""

import re

from byline.errors import EngineError, EngineRefused, GenerationFailed
from gateway.wire import JsonObject, Question

# What the engine's refusals of a grammar speak of, whichever of its back ends they come from.
ABOUT_GRAMMARS = re.compile(
    r"gramm[ae]r|json.?schema|schema|regex|structured|structural|xgrammar|guidance|outlines|ebnf"
    r"|choice",
    re.IGNORECASE,
)
ABOUT_TOOL_CHOICE = re.compile(r"tool[ _]choice")
UNCOMPILED = (
    "The engine failed to prepare the structured output that '{}' asks for, and gave no reason. "
    "Simplify the schema, regular expression or grammar."
)


def structured_param(fields: JsonObject) -> str | None:
    """The field that binds the answer to a grammar, if there is one."""
    if fields.get("structured_outputs") is not None:
        return "structured_outputs"
    response_format = fields.get("response_format")
    if isinstance(response_format, dict) and response_format.get("type") != "text":
        return "response_format"
    choice = fields.get("tool_choice")
    return "tool_choice" if isinstance(choice, dict) or choice == "required" else None


def explained(problem: EngineError, question: Question, *, came: bool = False) -> EngineError:
    """The engine's failure, as the client's where it is about the grammar that it asked for.

    It names the field as the client wrote it. `came` says whether a token came before.
    """
    structured = structured_param(question.fields)
    if isinstance(problem, EngineRefused):
        param = question.written(_named(problem, structured))
        return EngineRefused(str(problem), status=problem.status, param=param)
    if isinstance(problem, GenerationFailed) and structured is not None and not came:
        param = question.written(structured)
        return EngineRefused(UNCOMPILED.format(param), status=400, param=param)
    return problem


def _named(problem: EngineRefused, structured: str | None) -> str | None:
    """The field that a refusal is about; the engine says it by its place in the body, or not."""
    if problem.param is not None:
        return problem.param.removeprefix("body.")
    if ABOUT_TOOL_CHOICE.search(str(problem)):
        return "tool_choice"
    return structured if ABOUT_GRAMMARS.search(str(problem)) else None
