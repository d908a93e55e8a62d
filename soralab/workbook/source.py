"""The source of stubs and solutions, as it stands in the notebooks."""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Callable


def of(fn: Callable, name: str) -> str:
    """The source of a function (or class), which is called `name` in it, without blank lines around it."""
    text = textwrap.dedent(inspect.getsource(fn)).strip()
    return _renamed(text, fn.__name__, name)


def with_imports(fn: Callable, name: str) -> str:
    """`of(fn, name)` below the imports that it needs: those of its file, and what else it uses of that file."""
    lines, text = imports(fn, name), of(fn, name)
    return "\n".join([*lines, "", "", text]) if lines else text


def imports(fn: Callable, name: str) -> list[str]:
    """The lines that import what `of(fn, name)` uses of its file."""
    return _imports(of(fn, name), name, inspect.getmodule(fn))


def _renamed(text: str, old: str, new: str) -> str:
    """`text` with the name `old` replaced in code; strings and comments stay."""
    lines = text.splitlines()
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text + "\n").readline)
              if token.type == tokenize.NAME and token.string == old]
    for token in reversed(tokens):  # from the end, so that the places before it still hold
        (row, start), (_, end) = token.start, token.end
        lines[row - 1] = lines[row - 1][:start] + new + lines[row - 1][end:]
    return "\n".join(lines)


def _imports(text: str, own: str, module) -> list[str]:
    """Import lines for the names that `text` uses and `module` has at its top, in the module's order."""
    used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)} - {own}
    lines, local = [], []
    for node in _top(inspect.getsource(module)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias for alias in node.names if (alias.asname or alias.name.partition(".")[0]) in used]
            if names and getattr(node, "module", "") != "__future__":
                node.names = names
                lines.append(ast.unparse(node))
        else:
            local += [name for name in _bound(node) if name in used]
    if local:
        lines.append(f"from {module.__name__} import {', '.join(dict.fromkeys(local))}")
    plain = [line for line in lines if line.startswith("import ")]
    blocks = [plain, [line for line in lines if line not in plain]]
    return [line for block in blocks for line in block]


def _top(text: str) -> list[ast.stmt]:
    """The statements at the top of a file, those under `if TYPE_CHECKING:` too: imports that only the reader makes."""
    return [inner for node in ast.parse(text).body for inner in
            (node.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" else [node])]


def _bound(node: ast.stmt) -> list[str]:
    """The names that a statement at the top of a file defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return [leaf.id for target in targets if target for leaf in ast.walk(target) if isinstance(leaf, ast.Name)]
