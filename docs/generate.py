"""Writes the reference pages that follow from the code.

Commands, errors, settings, devices and the pure library.

``python docs/generate.py`` writes them; a test compares them with what is checked in.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click

from edvac.cli.main import COMMANDS, cli
from edvac.core import errors
from edvac.core.schema import show
from edvac.core.signature import REQUIRED, Signature
from edvac.device import CATALOGUE
from edvac.engine import catalogue, pretokenizer
from edvac.engine._native import KINDS
from edvac.engine.gguf import BLOCK_TYPES
from edvac.machine.settings import Settings
from edvac.program import library
from edvac.program.written import WRITTEN, written

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
SOURCE = ROOT / "src" / "edvac"
NOTE = "<!-- written by docs/generate.py; do not edit -->\n"
FAILURE = "a step's failure"  # data of the program, not an exception
# What is called with something before the code, and the class of what it makes.
MAKERS = {"Failed": FAILURE, "fail": "ProgramError", "refusal": "ProgramError"}


def commands() -> str:
    lines = [NOTE, "# Commands", ""]
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        lines += _command(["edvac", name], command)
    return "\n".join(lines)


def _command(path: list[str], command: click.Command) -> list[str]:
    context = click.Context(
        command,
        info_name=" ".join(path),
        max_content_width=100,
        terminal_width=100,
        help_option_names=["-h", "--help"],
    )
    text = command.get_help(context)
    lines = [f"## {' '.join(path)}", "", "```text", text.rstrip(), "```", ""]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            lines += _command([*path, name], below)
    return lines


def error_codes() -> dict[str, tuple[str, str]]:
    """Every code that the source raises, with the class and the sentence it is raised with."""
    classes = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.EdvacError)
    }
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            for code, kind, what in _raised(node, classes):
                found.setdefault(code, (kind, _sentence(_meant(what, tree))))
    return dict(sorted(found.items()))


def _raised(node: ast.AST, classes: set[str]) -> Iterator[tuple[str, str, ast.expr | None]]:
    """Code, class and sentence of an error that is made here, or of a step's failure."""
    if not isinstance(node, ast.Call):
        return
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
    arguments = node.args[1:] if name in MAKERS else node.args
    if name not in classes | MAKERS.keys() | {"Failure"} or not arguments:
        return
    code = arguments[0]
    if isinstance(code, ast.Constant) and re.fullmatch(r"[a-z0-9_]+", str(code.value)):
        kind = name if name in classes else MAKERS.get(name, FAILURE)
        yield code.value, kind, arguments[1] if len(arguments) > 1 else None


def _meant(node: ast.expr | None, tree: ast.Module) -> ast.expr | None:
    """What a name stands for: its last assignment above."""
    if not isinstance(node, ast.Name):
        return node
    above = [
        one
        for one in ast.walk(tree)
        if isinstance(one, ast.Assign)
        and one.lineno < node.lineno
        and isinstance(one.targets[0], ast.Name)
        and one.targets[0].id == node.id
    ]
    return max(above, key=lambda one: one.lineno).value if above else None


def _sentence(node: ast.expr | None) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts
            )
    return ""


def errors_page() -> str:
    exits: dict[str, object] = {FAILURE: "–"}  # a run goes on, and ends as its failures decide
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.EdvacError):
            exits[name] = kind.exit_code
    lines = [
        NOTE,
        "# Errors",
        "",
        "An error says what happened, why, and what to do. Its code is stable; its class fixes the",
        "exit code of a command that ends with it. The sentence below is how it begins; … stands",
        "for names and numbers.",
        "",
        "| exit code | meaning |",
        "|---:|---|",
        "| 0 | done |",
        "| 1 | the task failed, in part or as a whole |",
        "| 2 | usage: something was asked that cannot be meant |",
        "| 3 | transient: try again |",
        "| 4 | needs approval, or was denied |",
        "| 5 | a budget is spent |",
        "| 6 | the store is damaged |",
        "| 130 | interrupted |",
        "",
        "| code | class | exit | what |",
        "|---|---|---:|---|",
    ]
    for code, (kind, what) in error_codes().items():
        shown = what.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| `{code}` | {kind} | {exits[kind]} | {shown} |")
    return "\n".join(lines) + "\n"


def settings() -> str:
    about: dict[str, str] = {}
    key = ""
    for line in (Settings.__doc__ or "").split("Attributes:")[1].split("\n"):
        name, mark, rest = line.strip().partition(": ")
        if mark and name.isidentifier():
            key, about[name] = name, rest
        elif key and line.strip():
            about[key] += " " + line.strip()
    lines = [
        NOTE,
        "# Settings",
        "",
        "A flag counts before the environment, that before `edvac.toml` in the workspace, and that",
        "before `config.toml` in the user's configuration directory. `edvac config` shows each",
        "value with its origin. An unknown key is an error.",
        "",
        "| setting | environment | default | meaning |",
        "|---|---|---|---|",
    ]
    for one in fields(Settings):
        lines.append(
            f"| `{one.name}` | `EDVAC_{one.name.upper()}` | `{one.default!r}` | "
            f"{about.get(one.name, '')} |"
        )
    return "\n".join(lines) + "\n"


def devices() -> str:
    lines = [NOTE, "# Devices", "", "Every call of a device is a step.", ""]
    for device in CATALOGUE.devices:
        lines += [f"## {device}", ""]
        for signature in CATALOGUE.functions(device):
            lines += [
                f"`{_call(signature)}`",
                "",
                f"{signature.doc} Effect: {signature.effect}.",
                "",
            ]
    return "\n".join(lines)


def _call(signature: Signature) -> str:
    parts = []
    for param in signature.params:
        text = f"*{param.name}" if param.variadic else f"{param.name}: {show(param.type)}"
        if param.default is not REQUIRED and not param.variadic:
            text += f" = {param.default!r}"
        parts.append(text)
    result = show(signature.result) if signature.result is not None else "T"
    return f"{signature.op}({', '.join(parts)}) -> {result}"


def functions() -> str:
    lines = [
        NOTE,
        "# Pure library",
        "",
        "Part of the language: no import. Nothing here touches the world or takes a step.",
        "",
        "| function | result | |",
        "|---|---|---|",
    ]
    for doc in library():
        signature = doc.signature.replace("|", "\\|")
        lines.append(f"| `{signature}` | {doc.result.replace('|', chr(92) + '|')} | {doc.doc} |")
    for name in WRITTEN:
        lines += ["", f"## {name}", "", "Written in the language itself: a program that calls it"]
        lines += ["carries this text below its own.", "", "```python", written(name).rstrip(), "```"]
    return "\n".join(lines) + "\n"


FAMILIES = {
    "qwen2": "Qwen2, Qwen2.5, DeepSeek-R1-Distill-Qwen",
    "qwen3": "Qwen3 without experts",
    "llama": "Llama 1 to 3.3, Mistral as GGUF, SmolLM2, and whatever else is one of them inside",
    "mistral": "Mistral as safetensors; windows are kept to",
    "smollm2": "SmolLM2",
    "gemma": "Gemma 1",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3, text alone (`gemma3_text` as safetensors)",
}


def models() -> str:
    cuttings = ", ".join(f"`{name}`" for name in pretokenizer.names())
    lines = [
        NOTE,
        "# Models that the engine reads",
        "",
        "One `.gguf` file, or one `.safetensors` file with its `config.json` and `tokenizer.json`.",
        "A setting of a file that changes what is computed and is not known here is refused in",
        "words (`model_unsupported`): other scalings of rotation than linear and Llama 3's, heads",
        "that rotate in part, experts, other activations.",
        "",
        "| architecture | families | attention on a CPU |",
        "|---|---|---|",
    ]
    for name in catalogue.ARCHITECTURES:
        kernels = "torch" if name in catalogue.BY_TENSORS else "compiled kernels"
        lines.append(f"| `{name}` | {FAMILIES[name]} | {kernels} |")
    lines += [
        "",
        "Torch attends, more slowly, in every family where a window is shorter than the context",
        "that the engine serves (setting `context`), where scores are capped, and where the",
        "kernels are not installed. Windows save no memory yet: keys that no row sees any more",
        "are kept.",
        "",
        "## Vocabularies",
        "",
        "SentencePiece's BPE with byte fallback (`llama` in GGUF, BPE with `byte_fallback` in a",
        "tokenizer.json), and byte-level BPE (`gpt2`) with these ways of cutting text before it is",
        f"merged: {cuttings}.",
        "",
        "## Quantisations",
        "",
        "All kinds are decoded; products with rows of answers multiply some as they lie in the",
        "file, the others, and rows of prompts, go by 8-bit weights made from them at the first",
        "load. Embeddings are decoded row by row as they are looked up.",
        "",
        "| kind | bits a number | multiplied as it lies |",
        "|---|---:|---|",
    ]
    for kind in sorted(BLOCK_TYPES.values(), key=lambda one: -one.size / one.items):
        native = "yes" if kind.name in KINDS else "no"
        lines.append(f"| {kind.name} | {8 * kind.size / kind.items:.4g} | {native} |")
    lines += ["", "Not read: IQ1 to IQ3, TQ, NVFP4, and files in several parts.", ""]
    return "\n".join(lines)


PAGES = {
    "commands.md": commands,
    "errors.md": errors_page,
    "settings.md": settings,
    "devices.md": devices,
    "library.md": functions,
    "models.md": models,
}


def main() -> None:
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (REFERENCE / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
