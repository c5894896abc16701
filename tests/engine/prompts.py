"""Twenty prompts for comparing engines."""

from __future__ import annotations

QUESTIONS = [
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "List three prime numbers.",
    "Explain what a stack is in one sentence.",
    "Translate 'good morning' into German.",
    "def add(a, b):",
    "What is 12 times 12?",
    "Name the planets of the solar system.",
    "Who wrote Hamlet?",
    "Write a SQL query that counts the rows of table users.",
    "Summarise: The cat sat on the mat because it was warm.",
    "Give a synonym for 'quick'.",
    "How do I reverse a list in Python?",
    "What does HTTP stand for?",
    "Continue: Once upon a time there was a",
    "Is water wet? Answer yes or no.",
    "Extract the total: Invoice 7, total due EUR 84.80.",
    "What colour is the sky?",
    "Write JSON with a key name and value Ada.",
    "Why do leaves fall in autumn?",
]


def rendered(question: str) -> str:
    """A question in the chat format that Qwen and SmolLM2 share."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
