"""Every name of OpenTelemetry's and OpenInference's conventions that traces are told in; nowhere else are they written.

GenAI conventions, v1.41.1, all of them "Development":
https://opentelemetry.io/docs/specs/semconv/gen-ai/ ; OpenInference: https://arize-ai.github.io/openinference/spec/
"""

from __future__ import annotations

from typing import Final

# OpenTelemetry

SERVICE_NAME: Final = "service.name"
ENVIRONMENT: Final = "deployment.environment.name"
ERROR_TYPE: Final = "error.type"
EXCEPTION: Final = "exception"
"""An event of a span."""
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

# GenAI

OPERATION: Final = "gen_ai.operation.name"
CHAT, EXECUTE_TOOL, INVOKE_AGENT = "chat", "execute_tool", "invoke_agent"
PROVIDER: Final = "gen_ai.provider.name"
AGENT_NAME: Final = "gen_ai.agent.name"
AGENT_VERSION: Final = "gen_ai.agent.version"
CONVERSATION: Final = "gen_ai.conversation.id"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_PARAMETERS: Final = {
    "temperature": "gen_ai.request.temperature",
    "max_tokens": "gen_ai.request.max_tokens",
    "top_p": "gen_ai.request.top_p",
    "seed": "gen_ai.request.seed",
}
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_ID: Final = "gen_ai.response.id"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
USAGE_INPUT: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT: Final = "gen_ai.usage.output_tokens"
USAGE_CACHED: Final = "gen_ai.usage.cache_read.input_tokens"
TOOL_NAME: Final = "gen_ai.tool.name"
EVALUATION: Final = "gen_ai.evaluation.result"
"""An event of a span: one opinion."""
EVALUATION_NAME: Final = "gen_ai.evaluation.name"
EVALUATION_SCORE: Final = "gen_ai.evaluation.score.value"
EVALUATION_LABEL: Final = "gen_ai.evaluation.score.label"
EVALUATION_EXPLANATION: Final = "gen_ai.evaluation.explanation"

# OpenInference

SPAN_KIND: Final = "openinference.span.kind"
SPAN_KINDS: Final = {
    "run": "AGENT",
    "lm": "LLM",
    "tool": "TOOL",
    "evaluate": "EVALUATOR",
}
"""By the kind of a span; all others are steps of a chain."""
CHAIN: Final = "CHAIN"
INPUT, INPUT_TYPE = "input.value", "input.mime_type"
OUTPUT, OUTPUT_TYPE = "output.value", "output.mime_type"
JSON, TEXT = "application/json", "text/plain"
MODEL: Final = "llm.model_name"
PARAMETERS: Final = "llm.invocation_parameters"
INPUT_MESSAGES, OUTPUT_MESSAGES = "llm.input_messages", "llm.output_messages"
MESSAGE_ROLE, MESSAGE_CONTENT = "message.role", "message.content"
TOKENS_INPUT: Final = "llm.token_count.prompt"
TOKENS_OUTPUT: Final = "llm.token_count.completion"
TOKENS_TOTAL: Final = "llm.token_count.total"
TOKENS_CACHED: Final = "llm.token_count.prompt_details.cache_read"
COST: Final = "llm.cost.total"
OPENINFERENCE_TOOL_NAME: Final = "tool.name"
SESSION: Final = "session.id"
USER: Final = "user.id"
TAGS: Final = "tag.tags"
METADATA: Final = "metadata"

# dspyserve

STATUS: Final = "dspyserve.status"
TRANSPORT: Final = "dspyserve.transport"
FIRST_TOKEN: Final = "dspyserve.first_token_ms"  # noqa: S105 - no secret
TRUNCATION: Final = "dspyserve.truncation"
