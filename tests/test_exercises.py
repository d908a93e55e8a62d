"""Every exercise holds what it promises, and the framework says so if one does not.

`problems` is the judge of exercises; the second half of this file shows it broken ones.
"""

import ast
import inspect
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_exercises
from torch import Tensor
from toy_exercises import CROP, centre_crop, crop

from soralab import exercises as package
from soralab.exercises import chapters, exercise, exercises
from soralab.figures import CHAPTERS
from soralab.workbook.task import Case, Exercise, Mistake, WrongAnswer
from soralab.workbook.watch import copied, plain, unchanged

APART = {"triton_attention.moving_window"}  # needs a Python whose Triton interprets: kernel_checks/exercises.py
TOGETHER = [task for task in exercises() if task.name not in APART]
TASKS = [crop(), *TOGETHER]


def gives_away(task: Exercise) -> list[int]:
    """The tiers whose hint holds every line of the solution's body."""
    definition = ast.parse(task.solution_source()).body[-1]
    lines = {_squeezed(line) for part in definition.body if not _is_docstring(part)
             for line in ast.unparse(part).splitlines()}
    return [tier for tier, hint in enumerate(task.hints, 1) if all(line in _squeezed(hint) for line in lines)]


def _squeezed(code):
    """Without space, and without brackets: Python 3.10 unparses `a, b = c` as `(a, b) = c`."""
    return re.sub(r"[\s()]", "", code)


def _is_docstring(part):
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)


def problems(task: Exercise, seeds=(1, 2)) -> list[str]:
    """Everything that is wrong with an exercise. seeds: of further cases."""
    found = []
    verdict = task.judge(task.solution)
    if verdict.state != "own":
        found.append(f"the solution is {'taken for an answer' if verdict.state == 'right' else 'refused'}: {verdict}")
    if (verdict := task.judge(task.stub)).state != "open":
        found.append(f"the stub is not 'not attempted': {verdict}")
    for name, wrong in {**task.wrong, **task.mistakes}.items():
        verdict, whole = task.judge(wrong.fn), name in task.mistakes
        if verdict.state != "wrong":
            found.append(f"the wrong answer {name} is accepted: {verdict}")
        elif not wrong.says.strip() or wrong.says not in verdict.message or len(verdict.message.split()) < 5 or (
                whole and wrong.says != verdict.message):
            found.append(f"the wrong answer {name} is told {verdict.message!r}")
    if inspect.signature(task.stub).parameters.keys() != inspect.signature(task.solution).parameters.keys():
        found.append("stub and solution take other arguments")
    if not inspect.getdoc(task.stub):
        found.append("the stub has no docstring")
    found += [f"hint {tier} is the solution" for tier in gives_away(task)]
    if (verdict := task.judge(pasted(task))).state != "right":
        return [*found, f"the solution as the notebook shows it is refused: {verdict}"]
    return [*found, *slips_let_through(task), *other_numbers(task, seeds)]


def pasted(task: Exercise):
    """The solution as a reader has it who copied the folded text."""
    names = {}
    exec(task.solution_source(), names)
    return names[task.function]


def calls_of(task: Exercise) -> list[tuple]:
    """The arguments of all calls that the check makes with data alone."""
    calls, right = [], pasted(task)

    def spy(*args, **options):
        calls.append(copied(args))
        return right(*args, **options)

    assert task.judge(spy).state == "right"
    return [args for args in calls if all(map(plain, args))]


def slips_let_through(task: Exercise) -> list[str]:
    """Right answers that write into an argument or cut the gradients, and are taken."""
    found, right, calls = [], pasted(task), calls_of(task)
    for k, name in enumerate(inspect.signature(task.stub).parameters):
        if any(len(args) > k and spoilt(copied(args[k])) for args in calls) and not task.in_place:

            def vandal(*args, _k=k, **options):
                result = copied(right(*args, **options))
                if len(args) > _k:
                    spoilt(args[_k])
                return result

            if (verdict := task.judge(vandal)).state != "wrong":
                found.append(f"an answer may write into {name}: {verdict}")

    def cut(*args, **options):
        with torch.no_grad():
            return detached(right(*args, **options))

    if task.gradients and any(learns(task.solution, args) for args in calls) and task.judge(cut).state != "wrong":
        found.append("an answer may cut the gradients")
    return found


def spoilt(value) -> bool:
    """Write into a value, if it is of a kind that can be written into and there is something in it."""
    if isinstance(value, (Tensor, np.ndarray)) and 0 not in value.shape:
        value[(0,) * value.ndim] = not value[(0,) * value.ndim] if "bool" in str(value.dtype) else 77
        return True
    if isinstance(value, list) and value:
        value.append(value[0])
        return True
    return isinstance(value, (tuple, dict)) and any([spoilt(one) for one in getattr(value, "values", lambda: value)()])


def detached(value):
    if isinstance(value, (list, tuple)):
        return type(value)(map(detached, value))
    return value.detach() if isinstance(value, Tensor) else value


def learns(fn, args) -> bool:
    """Whether some number that `fn` returns depends on a tensor of `args` in a way that gradients follow."""
    leaves = [value.detach().clone().requires_grad_() if isinstance(value, Tensor) and value.is_floating_point()
              else copied(value) for value in args]
    results = fn(*leaves)
    results = results if isinstance(results, (list, tuple)) else [results]
    total = sum(result.sum() for result in results if isinstance(result, Tensor) and result.requires_grad)
    leaves = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
    return isinstance(total, Tensor) and any(
        grad is not None and bool(grad.isfinite().all() and grad.any())
        for grad in torch.autograd.grad(total, leaves, allow_unused=True))


def other_numbers(task: Exercise, seeds) -> list[str]:
    """Whether the solution stops in float64, or cases of other seeds tell another story than those of the check."""
    found = []
    for args in calls_of(task):
        try:
            task.solution(*in_float64(args))
        except Exception as error:
            found = [f"the solution stops in float64: {error}"]
    for seed in seeds if task.cases else ():
        if (verdict := task.judge(pasted(task), seed)).state != "right":
            found.append(f"the solution is refused with cases of seed {seed}: {verdict}")
        for name, mistake in task.mistakes.items():
            if task.judge(mistake.fn, seed).message != mistake.says:
                found.append(f"the mistake {name} is told another thing with cases of seed {seed}")
    return found


def in_float64(value):
    if isinstance(value, (list, tuple)):
        return type(value)(map(in_float64, value))
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else copied(value)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_exercise_holds_what_it_promises(task):
    assert problems(task) == []


@pytest.mark.parametrize("task", TOGETHER, ids=lambda task: task.name)
def test_the_cells_of_an_exercise_run_alone(task, capsys):
    """Statement, stub and check, in a notebook in which nothing else was run; then the reader's right answer."""
    names = {"__name__": "__main__"}
    for cell in (task.first_cell(), task.stub_source(), f"{task.function} = task.check({task.function})"):
        exec(cell, names)
    assert names["task"] is task and names[task.function] is task.solution
    assert capsys.readouterr().out.startswith("☐ not attempted\n")
    exec(task.solution_source() + f"\n\n{task.function} = task.check({task.function})", names)
    assert capsys.readouterr().out.startswith("✓ right\n") and names[task.function] is not task.solution


@pytest.mark.parametrize("task", [task for task in exercises() if task.cases], ids=lambda task: task.name)
def test_the_cases_are_many_and_differ(task):
    first, other = task.drawn(0), task.drawn(1)
    assert len(first) >= 8 and any(case.note for case in first)
    assert any(not unchanged(a.args, b.args) for a, b in zip(first, other, strict=True)) or all(
        isinstance(value, (int, float)) for case in first for value in case.args)


def test_names_are_unique_and_their_chapters():
    names = [task.name for task in exercises()]
    assert len(names) == len(set(names))
    for chapter in chapters():
        assert {task.chapter for task in exercises(chapter.name)} == {chapter.name}


def test_every_folder_is_a_chapter_and_every_file_an_exercise():
    """So a slip in a file's name, or an exercise that ORDER forgets, is not passed over in silence."""
    here = Path(package.__file__).parent
    assert [path.name for path in here.glob("*.py")] == ["__init__.py"]
    syllabus = {chapter.name for chapter in CHAPTERS}
    assert {path.parent.name for path in here.glob("*/*.py")} <= syllabus
    for chapter in chapters():
        files = {path.stem for path in (here / chapter.name).glob("*.py")} - {"__init__"}
        assert files == {task.function for task in exercises(chapter.name)} and files


# ----------------------------------------------------------------------------------- the judge is shown broken ones


def lenient(fn):
    yield True, ""


def lenient_but_asking(fn):
    fn(torch.zeros(1, 2, 2), 1, 1)
    yield True, ""


def strict(fn):
    fn(torch.zeros(1, 2, 2), 1, 1)
    yield False, "No, not at all, and for no reason."


def other_stub(x, size):
    """Another."""
    raise NotImplementedError


def silent_stub(x, height, width):
    raise NotImplementedError


def polite_stub(x, height, width):
    """Gives something back."""
    return x


def out_of_reach():
    hidden = 2

    def solution(x, height, width):
        top, left = (x.shape[-2] - height) // hidden, (x.shape[-1] - width) // hidden
        return x[..., top : top + height, left : left + width]

    return solution


def in_float32_alone(x, height, width):
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return (x @ torch.eye(x.shape[-1]))[..., top : top + height, left : left + width]


def cases():
    for _ in range(8):
        yield Case((torch.randn(2, 5, 8), *torch.randint(1, 5, (2,)).tolist()), "a note")


MISTAKES = {name: Mistake(wrong.fn, f"A message of its own: {wrong.says}.") for name, wrong in CROP["wrong"].items()}
ON_CASES = dict(check=None, cases=cases, wrong={}, mistakes=MISTAKES)
BODY = "\n".join(inspect.getsource(centre_crop).splitlines()[2:])
BROKEN = {
    "lets everything through": (dict(check=lenient), ["the stub is not", "corner is accepted", "swapped is accepted",
                                                      "rounded_up is accepted"]),
    "lets all but the stub through": (dict(check=lenient_but_asking, gradients=False),
                                      ["corner is accepted", "swapped is accepted", "rounded_up is accepted"]),
    "refuses all": (dict(check=strict), ["the solution is refused", "corner is told", "swapped is told",
                                         "rounded_up is told", "as the notebook shows it is refused"]),
    "wrong solution": (dict(solution=toy_exercises.rounded_up), ["the solution is refused", "as the notebook"]),
    "a right wrong answer": (dict(wrong={**CROP["wrong"], "right": WrongAnswer(centre_crop, "round")}),
                             ["right is accepted"]),
    "says another thing": (dict(wrong={**CROP["wrong"], "corner": WrongAnswer(toy_exercises.corner, "round down")}),
                           ["corner is told"]),
    "says nothing": (dict(wrong={**CROP["wrong"], "corner": WrongAnswer(toy_exercises.corner, " ")}),
                     ["corner is told"]),
    "a polite stub": (dict(stub=polite_stub), ["the stub is not"]),
    "a silent stub": (dict(stub=silent_stub), ["no docstring"]),
    "another stub": (dict(stub=other_stub), ["the stub is not", "other arguments"]),
    "a hint that is the solution": (dict(hints=("a", "b", BODY)), ["hint 3 is the solution"]),
    "a solution for float32 alone": (dict(solution=in_float32_alone), ["stops in float64"]),
    "a mistake that is right": (dict(ON_CASES, mistakes={**MISTAKES, "right": Mistake(toy_exercises.mine, "No.")}),
                                ["right is accepted"] + 2 * ["right is told another thing"]),
    "two mistakes that are one": (dict(ON_CASES, mistakes={**MISTAKES, "left": Mistake(toy_exercises.corner, "Left.")}),
                                  ["left is told"] + 2 * ["left is told another thing"]),
    "a wrong answer that is told another's message": (
        dict(ON_CASES, wrong={"left": WrongAnswer(toy_exercises.corner, "returns")}), ["left is told"]),
    "a solution that cannot be pasted": (dict(solution=out_of_reach()), ["as the notebook shows it is refused"]),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_exercise_is_caught(how):
    changes, expected = BROKEN[how]
    found = problems(crop(**changes))
    assert len(found) == len(expected), found
    for part in expected:
        assert any(part in line for line in found), (part, found)


@pytest.mark.parametrize("argument, value", [
    ("name", "centre_crop"), ("name", "unet.centre crop"), ("title", " "), ("statement", "\n"), ("difficulty", 4),
    ("difficulty", 0), ("minutes", 0), ("minutes", 2.5), ("hints", ("a", "b")), ("hints", ("a", "b", " ")),
    ("hints", "abc"), ("check", lambda fn: [(True, "")]), ("wrong", {}),
    ("wrong", {"corner": CROP["wrong"]["corner"], "swapped": CROP["wrong"]["swapped"]}),
])  # fmt: skip
def test_an_argument_that_is_none_is_named(argument, value):
    with pytest.raises(ValueError, match=argument):
        crop(**{argument: value})


def test_a_check_that_asks_nothing_is_an_error():
    def empty(fn):
        yield from ()

    with pytest.raises(ValueError, match="check of unet.centre_crop asked nothing"):
        crop(check=empty).judge(centre_crop)


# ------------------------------------------------------------------------------------------- check, as readers see it


def test_check_gives_back_a_right_answer(capsys):
    def mine(x, height, width):
        top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
        return x[..., top : top + height, left : left + width]

    assert crop().check(mine) is mine
    assert capsys.readouterr().out == (
        "✓ right\n  Compare your code with the course's own, folded below.\n")
    assert crop(name="unet.weight_map", compare="Compare the loops.").check(mine) is mine
    assert capsys.readouterr().out == (
        "✓ right\n  Compare the loops.\n  1 of 4 in this chapter; next: exercise 1.4, `mirror_tile`.\n")


@pytest.mark.parametrize("fn, said", [
    (toy_exercises.stub, "☐ not attempted\n"),
    (toy_exercises.corner, "✗ not yet: You keep the upper left corner, not the middle.\n"),
])
def test_check_gives_the_courses_own_for_another(capsys, fn, said):
    assert crop().check(fn) is centre_crop
    assert capsys.readouterr().out == said + "  From here on the notebook uses the course's own `centre_crop`.\n"


def test_a_long_verdict_is_printed_in_lines_that_a_page_does_not_break(capsys):
    says = "-0.5 is not what is there, " * 9 + "and that is all."

    def wordy(fn):
        yield False, says

    crop(check=wordy).check(toy_exercises.corner)
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and max(map(len, lines)) <= 110 and all(line.startswith("  ") for line in lines[1:])
    assert " ".join(line.strip() for line in lines) == f"✗ not yet: {says}" and "course's own" in last


def message(fn, **changes):
    verdict = crop(**changes).judge(fn)
    assert verdict.state == "wrong"
    return verdict.message


def test_an_error_is_told_with_its_line():
    def mine(x, height, width):
        sizes = {}
        return sizes["b"]

    line = inspect.getsourcelines(mine)[1] + 2
    assert message(mine) == f"your code stops with KeyError: 'b', line {line}: `return sizes[\"b\"]`"


def test_an_error_deep_in_a_library_is_told_with_the_readers_line():
    def mine(x, height, width):
        return torch.nn.functional.linear(x, torch.zeros(3, 5))

    said = message(mine)
    assert "RuntimeError" in said and "`return torch.nn.functional.linear(x, torch.zeros(3, 5))`" in said
    assert "\n" not in said and len(said) < 500


def test_an_error_in_a_cell_is_told_with_its_line():
    """A cell has no file: the kernel gives its lines to linecache."""
    import linecache

    text = "def mine(x, height, width):\n    y = x\n    return y / undefined\n"
    linecache.cache["<cell 7>"] = (len(text), None, text.splitlines(True), "<cell 7>")
    names = {"__name__": "__main__"}
    exec(compile(text, "<cell 7>", "exec"), names)
    assert message(names["mine"]).endswith("name 'undefined' is not defined, line 3: `return y / undefined`")
    del linecache.cache["<cell 7>"]
    assert message(names["mine"]).endswith("name 'undefined' is not defined, line 3")


def test_what_torch_has_not_implemented_is_not_unattempted():
    """torch raises NotImplementedError too, and a reader who wrote something must not be told they did not."""

    def mine(x, height, width):
        return x.to("meta").to("cpu")

    with pytest.raises(NotImplementedError):
        mine(torch.eye(2), 1, 1)
    assert message(mine).startswith("your code stops with NotImplementedError: ") and "meta tensor" in message(mine)


def test_a_method_that_is_missing_is_not_unattempted():
    def mine(x, height, width):
        return torch.nn.Module()(x)

    assert "forward" in message(mine) and "NotImplementedError" in message(mine)


@pytest.mark.parametrize("given, said", [
    (None, "`centre_crop` gives back None: is there a `return` at its end?"),
    ("text", "`centre_crop` gives back a str, which the check cannot use (AttributeError: "),
])
def test_a_result_that_the_check_cannot_use(given, said):
    def plain(x, height, width):
        return given

    assert message(plain).startswith(said)


@pytest.mark.parametrize("given, said", [
    (torch.zeros(2, 3), "`centre_crop` is a tensor [2, 3] of float32, not a function"),
    (None, "is None"), (3, "is an int"),
])
def test_what_is_not_a_function(given, said):
    assert said in message(given)


def test_a_long_error_is_cut_and_stands_in_one_line():
    def mine(x, height, width):
        raise ValueError("a\n" * 3000)

    assert "\n" not in message(mine) and len(message(mine)) < 400


def test_ctrl_c_is_not_swallowed():
    def mine(x, height, width):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crop().check(mine)


def careful(fn):
    """All kinds of input are compared with afterwards."""
    x, array, listed = torch.tensor([1.0, torch.nan]), np.ones(3), [torch.ones(2), {"a": [1]}]
    fn(x, array, listed)
    yield bool(x[0] == 1), "the tensor is spoilt"
    yield bool((array == 1).all()), "the array is spoilt"
    yield bool((listed[0] == 1).all()) and listed[1] == {"a": [1]}, "the list is spoilt"


@pytest.mark.parametrize("vandal, name", [
    (lambda x, height, width: x.zero_(), "x"), (lambda x, height, width: x[:1].mul_(2), "x"),
    (lambda x, height, width: height.fill(0), "height"), (lambda x, height, width: width[0].zero_(), "width"),
    (lambda x, height, width: width[1]["a"].append(2), "width"), (lambda x, height, width: width[1].clear(), "width"),
    (lambda x, height, width: width.reverse(), "width"), (lambda x, height, width: width.pop(), "width"),
    (lambda x, height, width: (x.zero_(), width.pop()), "x"),
])  # fmt: skip
def test_an_answer_that_changes_its_arguments_is_refused_and_spoils_no_check(vandal, name):
    assert f"`{name}` is no longer what was handed in" in message(vandal, check=careful)
    assert crop(check=careful, in_place=True).judge(vandal).state == "right"


def test_an_argument_given_by_name_is_compared_too():
    def named(fn):
        fn(torch.ones(2), height=1, width=[1, 2])
        yield True, ""

    def vandal(x, height, width):
        width.append(3)

    assert "`width` is no longer" in message(vandal, check=named)


def test_an_answer_that_changes_nothing_is_not_accused():
    assert crop(check=careful).judge(lambda x, height, width: x * 2).state == "right"


def test_gradients_reach_the_inputs_and_parameters_stay_what_they_are():
    def with_gradients(fn):
        x, parameter = torch.ones(2, requires_grad=True), torch.nn.Parameter(torch.ones(2))
        kept = fn(x, parameter, None)
        yield kept is parameter, "another parameter"
        (kept * 3).sum().backward()
        (fn(x, x, None) * 2).sum().backward()
        yield torch.equal(x.grad, torch.full((2,), 2.0)) and kept.grad.sum() == 6, "no gradients"

    with torch.no_grad():
        assert crop(check=with_gradients).judge(lambda x, height, width: height).state == "right"


def test_every_check_rolls_the_same_dice_and_gives_them_back():
    rolled = []

    def dice(fn):
        rolled.append((torch.rand(1).item(), np.random.rand(), random.random()))
        yield False, "rolled"

    with torch.no_grad():
        for seed in (1, 2):
            torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
            expected = torch.rand(1).item(), np.random.rand(), random.random()
            torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
            crop(check=dice).judge(centre_crop)
            assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected
            assert not torch.is_grad_enabled()
    assert rolled[0] == rolled[1]


def test_a_check_that_ends_early_lets_go_of_what_it_holds():
    def holding(fn):
        with torch.no_grad():
            yield False, "ends here"

    crop(check=holding).judge(centre_crop)
    assert torch.is_grad_enabled()


def test_an_answer_may_be_a_class():
    class Stub:
        """Keeps the sizes."""

        def __init__(self, x, height, width):
            raise NotImplementedError

    class Answer:
        def __init__(self, x, height, width):
            self.size = height

    def check(fn):
        yield fn(None, 2, 3).size == 2, "another size"

    assert crop(check=check).judge(Stub).state == "open" and crop(check=check).judge(Answer).state == "right"


# -------------------------------------------------------------------------------------------- statement and sources


def test_the_statement_in_a_notebook():
    task = crop()
    text = task._repr_markdown_()
    assert text.startswith("**Cut to fit** · `unet.centre_crop` · ●●○ · 10 minutes\n\nCut the **middle** out.")
    assert "**Hand in** `centre_crop`" in text and "raise NotImplementedError" not in text  # the cell below has it
    assert "`task.hint()`" in text and "`soralab hint unet.centre_crop`" in text
    assert repr(task) == "Exercise unet.centre_crop: Cut to fit (●●○, 10 minutes)"


def test_the_stub_is_called_what_the_reader_hands_in():
    text = crop().stub_source()
    assert text.startswith("def centre_crop(x: Tensor, height: int, width: int) -> Tensor:\n    \"\"\"The middle")
    assert text.endswith("    raise NotImplementedError")


def test_the_solution_brings_its_imports_and_only_those():
    head, body = crop().solution_source().split("\n\n\n")
    assert head.splitlines() == ["from torch import Tensor", "from toy_exercises import EDGE"]
    assert body == inspect.getsource(centre_crop).strip()


def test_only_code_is_renamed():
    def count(n):
        """count down; "count" stays in words."""
        return [count(m) for m in range(n)] or "count"  # count

    text = crop(name="unet.down", stub=count).stub_source()
    assert text == ('def down(n):\n    """count down; "count" stays in words."""\n'
                    '    return [down(m) for m in range(n)] or "count"  # count')


# --------------------------------------------------------------------------------------------------- finding them


@pytest.fixture
def toys(monkeypatch, tmp_path):
    toy_exercises.install(monkeypatch, tmp_path)


def test_chapters_are_found_by_their_files(toys):
    assert [chapter.number for chapter in chapters()] == [1, 3]
    assert [task.name for task in exercises()] == ["unet.centre_crop", "unet.weight_map", "vit.pooling"]
    assert [task.name for task in exercises("vit")] == ["vit.pooling"]
    assert exercise("unet.weight_map").title == "Toy weight_map"


def test_only_the_exercise_asked_for_is_imported(toys, tmp_path):
    for file in ("vit/pooling.py", "vit/__init__.py", "unet/centre_crop.py"):
        (tmp_path / file).write_text("raise RuntimeError('it was imported')")
    assert exercise("unet.weight_map").name == "unet.weight_map"
    with pytest.raises(RuntimeError, match="it was imported"):
        exercise("vit.pooling")


@pytest.mark.parametrize("name, offered", [
    ("unet.weigth_map", "nearest: unet.weight_map"), ("weight_map", "nearest: unet.weight_map"),
    ("unet", "nearest: unet.centre_crop, unet.weight_map"), ("vti.pooling", "nearest: vit.pooling"),
    ("zzz", "soralab hint"), ("", "soralab hint"), ("task.Exercise", "soralab hint"), ("..", "soralab hint"),
])
def test_an_unknown_name_offers_the_nearest(toys, name, offered):
    with pytest.raises(ValueError, match="which there is not") as error:
        exercise(name)
    assert offered in str(error.value)


def test_an_unknown_chapter(toys):
    with pytest.raises(ValueError, match="chapter is 'clip'; it takes one of unet, vit"):
        exercises("clip")
