"""Prompts that people pick in their client: what each asks for, and its text once that is known. Pure.

Each is a Markdown file. Its head, between two lines `+++`, is TOML: title, description and arguments. Its body is a
template in paragraphs. One that starts with `?name ` stands only where the argument `name` was given, one with `!name `
only where it was not. An argument of one line is shown in code quotes, one of many as a fenced block.

What was given is set in once and never looked at again, so that no `$` in it can mean anything, and is quoted so that
no backquote in it can end the quotation.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcp_server.errors import InvalidArgument, SetupFailed

MAX_LINE_CHARS = 1_000
MAX_TEXT_CHARS = 100_000
"""Of one argument: more than a model is well served with in a question."""

_HEAD = re.compile(r"\A\+\+\+\n(.*?)^\+\+\+\n(.*)\Z", re.DOTALL | re.MULTILINE)
_CONDITION = re.compile(r"([?!])(\w+) ")
_BREAKS_LINE = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_BACKQUOTES = re.compile("`+")


class PromptArgument(BaseModel):
    """``many_lines``: a text of any shape; otherwise one line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    description: str
    required: bool = False
    many_lines: bool = False


class _Head(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    description: str
    arguments: tuple[PromptArgument, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class PickedPrompt:
    """One prompt, filled with the server's facts already; what a caller gives is still to come."""

    name: str
    title: str
    description: str
    arguments: tuple[PromptArgument, ...]
    paragraphs: tuple[str, ...]

    def argument(self, name: str) -> PromptArgument | None:
        return next((argument for argument in self.arguments if argument.name == name), None)

    def text(self, given: Mapping[str, str]) -> str:
        """The message. Raises InvalidArgument for an argument that is missing, unknown, too long or of wrong shape."""
        for name in given:
            if self.argument(name) is None:
                taken = ", ".join(argument.name for argument in self.arguments)
                raise InvalidArgument(f"The prompt {self.name} has no argument {name[:64]!a}. It takes {taken}.")
        values = {}
        for argument in self.arguments:
            value = _readable(given.get(argument.name, ""))
            if value:
                values[argument.name] = _quoted(argument, value)
            elif argument.required:
                raise InvalidArgument(f"The prompt {self.name} needs {argument.name}: {argument.description}")
        kept = (_where_it_stands(paragraph, values) for paragraph in self.paragraphs)
        return "\n\n".join(Template(paragraph).substitute(values) for paragraph in kept if paragraph)


def parse(name: str, source: str, facts: Mapping[str, str]) -> PickedPrompt:
    """Read a prompt's file. Raises SetupFailed where it does not hold together."""
    where = f"prompts/picked/{name}.md"
    parts = _HEAD.match(source)
    if parts is None:
        raise SetupFailed(f"{where} has no head between two lines +++.")
    try:
        head = _Head.model_validate(tomllib.loads(parts[1]))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise SetupFailed(f"The head of {where} cannot be read: {error}") from error
    names = {argument.name for argument in head.arguments}
    body = parts[2].strip()
    try:
        known = {*Template(body).get_identifiers(), *(found for _, found in _CONDITION.findall(body))}
        if unknown := known - names - set(facts):
            raise SetupFailed(f"{where} names what is neither an argument nor a fact: {', '.join(sorted(unknown))}.")
        # An argument stays a placeholder, and a `$` of a fact's own stays a `$`.
        filling = {key: value.replace("$", "$$") for key, value in facts.items()} | {
            key: f"${{{key}}}" for key in names
        }
        filled = Template(body).substitute(filling)
    except ValueError as error:
        raise SetupFailed(f"{where} cannot be filled: {error}.") from error
    paragraphs = tuple(re.split(r"\n{2,}", filled))
    required = {argument.name for argument in head.arguments if argument.required}
    for paragraph in paragraphs:
        if unsure := _needed_by(paragraph) - required:
            raise SetupFailed(f"{where} shows {', '.join(sorted(unsure))} where it may not have been given.")
    return PickedPrompt(name, head.title, head.description, head.arguments, paragraphs)


def _where_it_stands(paragraph: str, values: Mapping[str, str]) -> str:
    """The paragraph without its condition; empty where that, or an argument that it shows alone, does not hold."""
    condition = _CONDITION.match(paragraph)
    if condition is not None:
        sign, name = condition.groups()
        return paragraph[condition.end() :] if (name in values) == (sign == "?") else ""
    alone = re.fullmatch(r"\$\{(\w+)\}", paragraph)
    return "" if alone is not None and alone[1] not in values else paragraph


def _needed_by(paragraph: str) -> set[str]:
    """The arguments without which a paragraph cannot be filled though it stands."""
    condition = _CONDITION.match(paragraph)
    if condition is None and re.fullmatch(r"\$\{\w+\}", paragraph):
        return set()
    settled = {condition[2]} if condition is not None and condition[1] == "?" else set()
    return set(Template(paragraph).get_identifiers()) - settled


def _readable(value: str) -> str:
    """Half characters, which no message can carry, become question marks."""
    return value.strip().encode("utf-8", "replace").decode("utf-8")


def _quoted(argument: PromptArgument, value: str) -> str:
    """As Markdown quotes code: with more backquotes than the value has in a row."""
    limit = MAX_TEXT_CHARS if argument.many_lines else MAX_LINE_CHARS
    if len(value) > limit:
        raise InvalidArgument(f"{argument.name} has {len(value):,} characters; at most {limit:,} are taken.")
    longest = max((len(run) for run in _BACKQUOTES.findall(value)), default=0)
    if argument.many_lines:
        fence = "`" * max(3, longest + 1)
        return f"{fence}\n{value}\n{fence}"
    if _BREAKS_LINE.search(value):
        raise InvalidArgument(f"{argument.name} must be one line, without control characters.")
    fence = "`" * (longest + 1)
    gap = " " if longest else ""
    return f"{fence}{gap}{value}{gap}{fence}"
