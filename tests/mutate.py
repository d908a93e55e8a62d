"""Break the code on purpose, one change of meaning at a time, and see whether its tests notice.

    python tests/mutate.py soralab/world -- python -m pytest -xq tests/test_world.py tests/test_referee.py

Draws `--number` single changes from the files (the kinds in turn: comparisons, arithmetic, and/or, constants,
conditions, removed statements, swapped or dropped arguments, min for max), makes each in a copy of the tree and runs
the command there. The command must pass on the unchanged copy. Survivors and the score of each folder are printed;
a survivor either changes nothing that counts, or shows a test that is missing.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLIPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
PAIRS = (("min", "max"), ("any", "all"), ("floor", "ceil"), ("argmin", "argmax"), ("sin", "cos"),
         ("minimum", "maximum"))  # fmt: skip
TWINS = {a: b for pair in PAIRS for a, b in (pair, pair[::-1])}


def changes(node: ast.AST):
    """(kind, changed source) of every single change of meaning at this node."""
    match node:
        case ast.Compare(left, [op, *ops], values):
            yield "comparison", ast.Compare(left, [FLIPS[type(op)](), *ops], values)
            if isinstance(op, ast.Lt | ast.Gt):
                yield "comparison", ast.Compare(left, [(ast.Gt if isinstance(op, ast.Lt) else ast.Lt)(), *ops], values)
        case ast.BinOp(left, op, right) if type(op) in FLIPS:
            yield "arithmetic", ast.BinOp(left, FLIPS[type(op)](), right)
        case ast.BoolOp(op, [first, *rest] as values):
            yield "and/or", ast.BoolOp(FLIPS[type(op)](), values)
            yield "and/or", first if len(rest) == 1 else ast.BoolOp(op, rest)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield "arithmetic", operand
        case ast.Constant(bool() as value):
            yield "constant", ast.Constant(not value)
        case ast.Constant(int() as value):
            yield from (("constant", ast.Constant(value + step)) for step in (1, -1))
        case ast.Constant(float() as value) if value:
            yield from (("constant", ast.Constant(value * factor)) for factor in (0.5, 1.25))
        case ast.If() | ast.IfExp() | ast.While():
            yield from (("condition", ast.Constant(value)) for value in (True, False))
        case ast.Attribute(value, name) if name in TWINS:
            yield "twin", ast.Attribute(value, TWINS[name])
        case ast.Name(name) if name in TWINS:
            yield "twin", ast.Name(TWINS[name])
        case ast.AugAssign() | ast.Raise() | ast.Assign([ast.Subscript() | ast.Attribute()]):
            yield "statement", ast.Pass()
        case ast.Expr(value) if not isinstance(value, ast.Constant | ast.Yield | ast.YieldFrom):
            yield "statement", ast.Pass()
    if isinstance(node, ast.Call):
        first, second, *rest = [*node.args, None, None][: max(len(node.args), 2)]
        if second and not any(isinstance(a, ast.Starred) for a in (first, second)):
            yield "argument", ast.Call(node.func, [second, first, *rest], node.keywords)
        for keyword in (k for k in node.keywords if k.arg != "strict"):  # zip's: it raises, and changes nothing
            yield "argument", ast.Call(node.func, node.args, [k for k in node.keywords if k is not keyword])


def edits(path: Path):
    """(kind, line, first byte, last byte, new text) of each change of a file; no messages, no annotations."""
    source = path.read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        for kind, new in changes(node):
            old = node.test if kind == "condition" else node  # not the whole statement
            first, last = starts[old.lineno - 1] + old.col_offset, starts[old.end_lineno - 1] + old.end_col_offset
            text = ast.unparse(new)
            if text != ast.unparse(old):
                yield kind, old.lineno, first, last, f"({text})" if isinstance(new, ast.expr) else text
        skipped = {"annotation", "returns", "decorator_list"}
        children = [c for name, value in ast.iter_fields(node) if name not in skipped for c in
                    (value if isinstance(value, list) else [value]) if isinstance(c, ast.AST)]  # fmt: skip
        waiting += [c for c in children if not isinstance(c, ast.JoinedStr) and not isinstance(node, ast.Raise)]


def draw(files: list[Path], number: int, seed: int) -> list[tuple]:
    """`number` changes, one kind after the other, so that the many constants do not crowd out the rest."""
    every = [(file, *edit) for file in files for edit in edits(file)]
    random.Random(seed).shuffle(every)
    seen, ranked = Counter(), []
    for change in every:
        ranked.append((seen[change[1]], change))
        seen[change[1]] += 1
    return [change for _, change in sorted(ranked, key=lambda pair: pair[0])][:number]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="files or folders to change")
    parser.add_argument("--number", type=int, default=75)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=600, help="seconds a run; a change that never ends is noticed")
    mine, command = (sys.argv[1:], []) if "--" not in sys.argv else (
        sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :])  # fmt: skip
    options = parser.parse_args(mine)
    if not command:
        parser.error("no command; it takes one after --, such as: -- python -m pytest -xq tests/test_unet.py")
    files = [f.resolve() for path in options.files for f in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "tree")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "downloads"))
        # no compiled files: Python takes an old one for a change of the same length within a second
        env = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}

        def passes() -> bool:
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            try:
                return not subprocess.run(command, cwd=copy, env=env, timeout=options.timeout, **quiet).returncode
            except subprocess.TimeoutExpired:
                return False

        if not passes():
            print("the command fails on the unchanged tree (or needs longer than --timeout)")
            return 2
        made, caught = Counter(), Counter()
        for file, _, line, first, last, text in draw(files, options.number, options.seed):
            name, source = file.relative_to(ROOT), file.read_bytes()
            (copy / name).write_bytes(source[:first] + text.encode() + source[last:])
            noticed = not passes()
            (copy / name).write_bytes(source)
            made[name.parent] += 1
            caught[name.parent] += noticed
            if not noticed:
                print(f"{name}:{line}: {' '.join(source[first:last].decode().split())}  ->  {text}", flush=True)
    for room in made:
        print(f"{room}: {caught[room]} of {made[room]} changes noticed ({100 * caught[room] / made[room]:.0f} %)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
