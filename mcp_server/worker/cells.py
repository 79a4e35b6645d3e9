"""Source text into code objects: what makes a cell more than a module.

The last statement, where it is an expression, is compiled apart, so that its value can be shown. A `;` after it
suppresses that, as notebooks do. `await`, `async for` and `async with` may stand at the top level. A `from __future__
import` holds for the cells that follow. Source that plain Python accepts is never changed; only what it refuses is
tried again without the fence that Markdown has around code, as a uniformly indented cell, and with `!command` and
`%pip` lines read as commands.
"""

from __future__ import annotations
import __future__

import ast
import re
from types import CodeType
from typing import NamedTuple

from . import commands
from .sources import SourceStore

_TOP_LEVEL_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_ONLY_TREE = ast.PyCF_ONLY_AST

_FUTURE_FLAGS = 0
for _name in __future__.all_feature_names:
    _FUTURE_FLAGS |= getattr(__future__, _name).compiler_flag

_COROUTINE = 0x80
"""CO_COROUTINE of `inspect`, which is dear to import."""

_AFTER_EXPRESSION = re.compile(r"#[^\n]*|[^;]")

_NO_ONE_EXPRESSION = re.compile(r"[\n;\\]|[0-9][A-Za-z_]")
"""What a cell that is tried as one expression must not hold. Of backslashes and of letters after digits the tokenizer
may warn, and would again at the second attempt."""


_FENCED = re.compile(r"\s*(?P<fence>```+|~~~+)[ \t]*[\w+-]*[ \t]*\n(?P<code>(?:.*\n)?)[ \t]*(?P=fence)\s*", re.DOTALL)
"""Code within a fence of Markdown's, as some models give it."""


class Cell(NamedTuple):
    """A compiled cell. `last` is the expression at its end; `shown` says whether its value is a result."""

    body: CodeType | None
    last: CodeType | None
    shown: bool

    @property
    def awaits(self) -> bool:
        return any(is_coroutine(code) for code in (self.body, self.last) if code is not None)


def is_coroutine(code: CodeType) -> bool:
    """Whether evaluating the code gives a coroutine that is to be awaited."""
    return bool(code.co_flags & _COROUTINE)


class Compiler:
    """Compiles the cells of one context, in order."""

    def __init__(self, sources: SourceStore) -> None:
        self._sources = sources
        self._flags = _TOP_LEVEL_AWAIT

    def compile(self, source: str, filename: str) -> Cell:
        """Raises what `compile` raises; the lines of a SyntaxError are those of `source`."""
        if "\r" in source:  # as Python reads files; `compile` does the same
            source = source.replace("\r\n", "\n").replace("\r", "\n")
        if source[:1] == "\ufeff":
            source = source[1:]
        self._sources.keep(filename, source)
        if not _NO_ONE_EXPRESSION.search(source):
            try:  # a name or a call: half the work, without a tree between
                return Cell(None, self._code(source, filename, "eval"), True)
            except SyntaxError:
                pass  # a statement; or the fault is told below, by the same parser
        tree = self._parse(source, filename)
        last = tree.body[-1] if tree.body else None
        if not isinstance(last, ast.Expr):
            return Cell(self._code(tree, filename, "exec"), None, False)
        tree.body.pop()
        body_code = self._code(tree, filename, "exec") if tree.body else None
        last_code = self._code(ast.Expression(last.value), filename, "eval")
        return Cell(body_code, last_code, not _ends_with_semicolon(source, last))

    def _parse(self, source: str, filename: str) -> ast.Module:
        try:
            return self._tree(source, filename)
        except SyntaxError as error:
            refusal = error
        try:  # outside the handler, so that an error of the second attempt is not told as the first one's
            tree = self._second_attempt(source, filename, isinstance(refusal, IndentationError))
            if tree is None:
                raise refusal
            return tree
        finally:
            del refusal  # it holds this frame

    def _second_attempt(self, source: str, filename: str, has_odd_indent: bool) -> ast.Module | None:
        """The tree of source that plain Python refuses; None where there is no other way to read it."""
        fenced = _FENCED.fullmatch(source)
        if fenced is not None:
            return self._parse("\n" * source.count("\n", 0, fenced.start("code")) + fenced.group("code"), filename)
        commanded = commands.translate(source, filename)
        if has_odd_indent and _is_indented(source):
            return self._indented_tree(commanded, filename)
        return None if commanded == source else self._tree(commanded, filename)

    def _indented_tree(self, source: str, filename: str) -> ast.Module:
        """The tree of a cell all of whose lines are indented: as the body of a block, so that no text is changed."""
        try:
            tree = self._tree("if True:\n" + source, filename)
        except SyntaxError as error:
            if error.lineno is not None:
                error.lineno -= 1
            if getattr(error, "end_lineno", None) is not None:
                error.end_lineno -= 1  # type: ignore[operator]  # not None, as the line before says
            raise
        block = tree.body[0]
        if len(tree.body) != 1 or not isinstance(block, ast.If) or block.orelse:
            raise IndentationError("unindent does not match the first line", (filename, 1, 1, source.split("\n", 1)[0]))
        tree.body = block.body
        return ast.increment_lineno(tree, -1)

    def _tree(self, source: str, filename: str) -> ast.Module:
        tree = compile(source, filename, "exec", self._flags | _ONLY_TREE, True)
        assert isinstance(tree, ast.Module)  # noqa: S101  (what the flag asks for)
        return tree

    def _code(self, source: str | ast.Module | ast.Expression, filename: str, mode: str) -> CodeType:
        code = compile(source, filename, mode, self._flags, True)
        assert isinstance(code, CodeType)  # noqa: S101  (no flag asks for a tree)
        self._flags |= code.co_flags & _FUTURE_FLAGS
        return code


def _is_indented(source: str) -> bool:
    """Whether the first line that is code is indented."""
    for line in source.split("\n"):
        text = line.strip()
        if text and not text.startswith("#"):
            return line[0] in " \t"
    return False


def _ends_with_semicolon(source: str, last: ast.Expr) -> bool:
    """Whether a `;` follows the last expression. Only brackets, blanks and comments can stand there beside it."""
    if ";" not in source or last.end_lineno is None or last.end_col_offset is None:
        return False
    lines = source.split("\n")[last.end_lineno - 1 :]
    lines[0] = lines[0].encode("utf-8", "surrogatepass")[last.end_col_offset :].decode("utf-8", "surrogatepass")
    return bool(_AFTER_EXPRESSION.sub("", "\n".join(lines)))
