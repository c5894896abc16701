"""The processor's socket: what executes `llm.*`.

Three fit: the embedded engine, any OpenAI-compatible endpoint, and a scripted one for tests. Knows
nothing of programs, journals or devices.
"""

from edvac.processor.port import (
    FREE,
    Answer,
    Message,
    OnStage,
    OnText,
    OnTokens,
    Price,
    Processor,
    Request,
    Sampling,
    Segment,
    Timings,
    Token,
    ToolCall,
    Tools,
)

__all__ = [
    "FREE",
    "Answer",
    "Message",
    "OnStage",
    "OnText",
    "OnTokens",
    "Price",
    "Processor",
    "Request",
    "Sampling",
    "Segment",
    "Timings",
    "Token",
    "ToolCall",
    "Tools",
]
