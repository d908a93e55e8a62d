"""What an answer is asked without its author's doing: drawn cases, mistakes told apart, nothing changed, gradients."""

import functools
import importlib
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_exercises import CROP, centre_crop, crop, mine

from soralab.workbook.compare import difference
from soralab.workbook.task import Case, Exercise, Mistake, NotHere, WrongAnswer
from soralab.workbook.watch import Watched

# ------------------------------------------------------------------------------------------- an exercise on cases


def stub(x: Tensor, amount: float) -> Tensor:
    """x and `amount` times its size: [n]."""
    raise NotImplementedError


def lifted(x: Tensor, amount: float) -> Tensor:
    """x and `amount` times its size."""
    return x + amount * x.abs()


def cases():
    yield Case((torch.rand(20), 2.0), "twenty of them")
    yield Case((torch.rand(5), 2.0), "none is negative")
    yield torch.randn(30, dtype=torch.float64), -3.0
    yield Case((-torch.rand(3), 0.5), "all are negative")
    yield torch.zeros(0), 1.0


TOY = dict(
    name="unet.lifted", title="Up", statement="Lift it.", difficulty=1, minutes=5, hints=("a", "b", "c"), stub=stub,
    solution=lifted, cases=cases,
    mistakes={
        "no_size": Mistake(lambda x, amount: x + amount * x, "you take x itself for its size."),
        "not_added": Mistake(lambda x, amount: amount * x.abs(), "x itself is missing from what you return."),
        "amount_once": Mistake(lambda x, amount: x + x.abs(), "`amount` plays no part in what you return."),
    },
)  # fmt: skip


def toy(**changes) -> Exercise:
    return Exercise(**{**TOY, **changes})


def told(fn, **changes):
    verdict = toy(**changes).judge(fn)
    assert verdict.state == "wrong", str(verdict)
    return verdict.message


def right(x, amount):
    return x + amount * x.abs()


def test_a_right_answer_in_any_precision():
    for cast in (Tensor.float, Tensor.double, lambda x: x):
        assert toy().judge(lambda x, amount, cast=cast: right(cast(x), amount)).state == "right"


@pytest.mark.parametrize("name", TOY["mistakes"])
def test_a_mistake_is_named(name):
    mistake = TOY["mistakes"][name]
    assert told(mistake.fn) == mistake.says
    assert told(lambda x, amount: mistake.fn(x.double(), amount)) == mistake.says  # another function of the same values


def test_a_mistake_is_claimed_only_if_the_answer_equals_it_on_all_cases():
    def almost(x, amount):
        return x + amount * x if len(x) != 30 else x * 0

    assert "you take x itself" not in told(almost)
    assert told(almost).startswith("with x = [-0.")
    assert " and amount = 0.5 (all are negative) it returns [" in told(almost)


def test_the_smallest_case_that_differs_is_told():
    assert told(lambda x, amount: right(x, amount) * 1.01).startswith("with x = [-0.")
    message = told(lambda x, amount: right(x, amount) + (len(x) > 20))
    assert message.startswith("with x [30] of float64 and amount = -3 30 of 30 numbers differ, most at [")


@pytest.mark.parametrize("fn, says", [
    (lambda x, amount: None, "with x = [] and amount = 1 it returns None: is there a `return`"),
    (lambda x, amount: right(x, amount).tolist(), "it returns a list of 0, it should be a tensor [0]."),
    (lambda x, amount: right(x, amount)[None], "it returns the shape [1, 0], it should be [0]."),
    (lambda x, amount: right(x, amount).long(), "it returns whole numbers (int64), it should be floating point"),
    (lambda x, amount: x.nothing, "your code stops with AttributeError: 'Tensor' object has no attribute"),
    (lambda x, amount: right(x, amount).log(), "it returns [NaN, NaN, NaN], it should be [-0.2"),
])  # fmt: skip
def test_what_else_can_be_wrong(fn, says):
    assert says in told(fn)


def test_an_error_is_told_with_its_case_and_line():
    def reader(x, amount):
        return x / {}["b"]

    assert told(reader).endswith("your code stops with KeyError: 'b', line " + str(
        reader.__code__.co_firstlineno + 1) + ": `return x / {}[\"b\"]`.")


def test_a_mistake_that_stops_is_named_for_an_answer_that_stops_alike():
    def stops(x, amount):
        return x.view(1, -1)[0] if len(x) else x.nothing

    mistakes = {**TOY["mistakes"], "stops": Mistake(stops, "an empty x stops you.")}
    assert told(lambda x, amount: stops(x, amount), mistakes=mistakes) == "an empty x stops you."
    assert "it returns" in told(lambda x, amount: x * 3, mistakes=mistakes)
    assert "ZeroDivisionError" in told(lambda x, amount: x if len(x) else 1 / 0, mistakes=mistakes)  # stops otherwise


def test_the_stub_is_not_attempted_and_an_open_branch_is():
    def half_done(x, amount):
        if len(x) == 30:
            raise NotImplementedError
        return right(x, amount)

    assert toy().judge(stub).state == toy().judge(half_done).state == "open"


def test_cases_are_the_same_at_every_check_and_others_for_another_seed():
    first, again, other = (toy().drawn(seed) for seed in (0, 0, 1))
    assert all(torch.equal(a.args[0], b.args[0]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].args[0], other[0].args[0])
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    toy().judge(right)
    assert torch.equal(torch.rand(3), expected)


def test_what_is_right_is_computed_in_float64():
    """In float32 the solution itself is off by more than the tolerance."""

    def large():
        yield torch.tensor([1.0, 1e8, -1e8]), 0.0

    def summed(x, amount):
        return (x[1] + x[0] + x[2])[None]

    assert "it returns [0], it should be [1]" in told(summed, solution=summed_precisely, cases=large)
    other_order = toy(cases=large, solution=summed_precisely).judge(lambda x, amount: (x[1] + x[2] + x[0])[None])
    assert other_order.state == "right"


def summed_precisely(x, amount):
    return (x[1] + x[0] + x[2])[None]


def test_probes_come_after_the_cases():
    def check(fn):
        yield fn(torch.ones(2), 0.0).sum() == 2, "amount 0 changes something, which it must not."
        yield False, "It is written with a loop, which the statement forbids."

    assert told(right, check=check).startswith("It is written with a loop")
    assert told(TOY["mistakes"]["no_size"].fn, check=check) == TOY["mistakes"]["no_size"].says


@pytest.mark.parametrize("changes, argument", [
    (dict(hints=("a", "", "c")), "hints of unet.lifted takes three texts"),
    (dict(cases=None, mistakes={}), "cases"), (dict(cases=None, check=CROP["check"]), "mistakes"),
    (dict(cases=lambda: [1]), "cases"), (dict(mistakes=dict(list(TOY["mistakes"].items())[:2])), "at least three"),
    (dict(mistakes=dict(list(TOY["mistakes"].items())[:2]), wrong={"no_size": WrongAnswer(right, "a")}), "each once"),
])  # fmt: skip
def test_an_exercise_without_cases_or_wrong_answers_is_none(changes, argument):
    with pytest.raises(ValueError, match=argument):
        toy(**changes)


def test_cases_that_are_none_and_a_solution_that_stops_are_errors():
    def none():
        yield from ()

    with pytest.raises(ValueError, match="cases of unet.lifted are none"):
        toy(cases=none).judge(right)
    with pytest.raises(ZeroDivisionError):
        toy(solution=lambda x, amount: 1 / 0).judge(right)


# ------------------------------------------------------------------------------------------ what every answer is asked


def changes_x(x, amount):
    x += 1
    return right(x - 1, amount) if len(x) < 20 else right((x - 1).double(), amount)


@pytest.mark.parametrize("fn", [changes_x, lambda x, amount: (right(x, amount), x.zero_())[0]])
def test_an_argument_changed_in_place_is_refused_on_cases_too(fn):
    assert "`x` is no longer what was handed in" in told(fn, tolerance=1e-2)
    assert toy(in_place=True, gradients=False, tolerance=1e-2).judge(fn).state == "right"


def test_all_arguments_of_a_case_are_named():
    def three(x: Tensor, low: float, high: float) -> Tensor:
        """x between low and high: [n]."""
        raise NotImplementedError

    def one():
        yield torch.randn(20), -0.5, 0.25

    exercise = toy(stub=three, solution=lambda x, low, high: x.clamp(low, high), cases=one,
                   mistakes={name: Mistake(fn, f"{name}.") for name, fn in {
                       "no high": lambda x, low, high: x.clamp(low), "nothing": lambda x, low, high: 1 * x,
                       "no low": lambda x, low, high: x.clamp(max=high)}.items()})  # fmt: skip
    assert "with x [20], low = -0.5 and high = 0.25 " in exercise.judge(lambda x, low, high: x + 1).message


@pytest.mark.parametrize("fn", [
    lambda x, amount: right(x, amount).detach(), lambda x, amount: right(x.detach(), amount),
    torch.no_grad()(lambda x, amount: right(x, amount)), lambda x, amount: right(x.data, amount),
    lambda x, amount: torch.tensor(right(x, amount).tolist(), dtype=x.dtype),
])  # fmt: skip
def test_gradients_that_are_cut_are_refused(fn):
    assert "no gradient reaches `x`" in told(fn)
    assert toy(gradients=False).judge(fn).state == "right"


@pytest.mark.parametrize("fn, says", [
    (lambda x, amount: x + amount * x.abs().detach(), "the gradient that `x` gets is not: "),
    (lambda x, amount: right(2 * x - x.detach(), amount), "gradient that `x` gets is not: 20 of 20 numbers differ"),
    (lambda x, amount: torch.from_numpy(x.numpy() + amount * abs(x.numpy())), "with gradients it stops with Runtime"),
])  # fmt: skip
def test_gradients_that_are_other_ones_are_refused(fn, says):
    assert says in told(fn)


def test_nothing_is_asked_of_gradients_where_the_solution_has_none():
    def sign(x, amount):
        return (x + amount).sign().detach()

    def signs():
        yield torch.randn(4), 1.0

    assert toy(solution=sign, cases=signs).judge(lambda x, amount: (x + amount).sign()).state == "right"


def test_gradients_that_are_zero_or_not_finite_are_not_asked():
    def positive():
        yield torch.tensor([0.0, 4.0]), 1.0

    def root(x, amount):
        return x.sqrt() * amount

    assert toy(solution=root, cases=positive).judge(lambda x, amount: x.detach().sqrt()).state == "right"
    flat = toy(solution=lambda x, amount: x.sign(), cases=positive)
    assert flat.judge(lambda x, amount: x.detach().sign()).state == "right"


def test_gradients_are_asked_of_a_check_written_by_hand():
    def check(fn):
        x = torch.arange(35.0).reshape(1, 5, 7)
        yield torch.equal(fn(x, 1, 3), x[:, 2:3, 2:5]), "No."

    assert crop(check=check).judge(mine).state == "right"
    assert "no gradient reaches `x`" in crop(check=check).judge(lambda *args: mine(*args).detach()).message


def test_a_call_that_the_solution_refuses_is_not_made_again():
    def check(fn):
        with pytest.raises(IndexError):
            fn(torch.ones(3), 1, 1)
        yield True, ""

    assert crop(check=check).judge(mine).state == "right"


# ------------------------------------------------------------------------------------------------ the course's own


class Callable:
    def __call__(self, *args):
        return centre_crop(*args)


@functools.wraps(mine)
def wrapper(*args):
    return centre_crop(*args)


@pytest.mark.parametrize("fn", [
    centre_crop, lambda *args: centre_crop(*args), functools.partial(centre_crop), torch.no_grad()(centre_crop),
    Callable(), wrapper, lambda x, height, width: list(map(lambda y: centre_crop(y, height, width), [x]))[0],
], ids=["itself", "lambda", "partial", "no_grad", "object", "wraps", "deep inside"])  # fmt: skip
def test_the_courses_own_is_no_answer(fn, capsys, monkeypatch, tmp_path):
    path = tmp_path / "record.json"
    monkeypatch.setenv("SORALAB_PROGRESS", str(path))
    task = crop(gradients=False)
    assert task.check(fn) is centre_crop
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("☐ not yours: `centre_crop` is the course's own here") and "run your own cell again" in said
    assert "right" not in said and "From here on" not in said and not path.exists()


def test_the_second_run_of_a_check_is_not_right(capsys):
    """`crop = task.check(crop)` binds the course's own after a wrong answer; the cell is then run again."""
    answer = crop().check(CROP["wrong"]["corner"].fn)
    assert capsys.readouterr().out.startswith("✗ not yet")
    assert crop().check(answer) is centre_crop and "✓" not in capsys.readouterr().out
    assert crop().check(mine) is mine and capsys.readouterr().out.startswith("✓ right")  # the reader's own stays right
    assert crop().check(mine) is mine


def test_the_courses_own_from_a_file_that_is_imported_again_is_no_answer():
    from soralab.exercises import exercise

    task = exercise("unet.valid_sizes")
    kept = sys.modules["soralab.exercises.unet.valid_sizes"]
    del sys.modules["soralab.exercises.unet.valid_sizes"]
    try:
        again = importlib.import_module("soralab.exercises.unet.valid_sizes")
        assert again.EXERCISE.solution is not task.solution
        assert task.judge(again.EXERCISE.solution).state == "own"
    finally:
        sys.modules["soralab.exercises.unet.valid_sizes"] = kept


def test_the_solutions_text_is_the_readers_right():
    pasted = {}
    exec(crop().solution_source(), pasted)
    assert crop().judge(pasted["centre_crop"]).state == "right"


def test_a_wrong_answer_that_uses_the_courses_own_is_told_its_mistake():
    assert "round down" in crop().judge(lambda x, h, w: centre_crop(x.flip(-2, -1), h, w).flip(-2, -1)).message


def test_somebody_elses_profiler_stays():
    def profiler(frame, event, arg):
        pass

    sys.setprofile(profiler)
    try:
        assert crop().judge(mine).state == "right" and sys.getprofile() is profiler
        assert crop().judge(centre_crop).state == "own"
    finally:
        sys.setprofile(None)
    crop().judge(mine)
    assert sys.getprofile() is None


# ------------------------------------------------------------------------------------------------------- hints


def test_hints_in_the_notebook(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SORALAB_PROGRESS", str(tmp_path / "record.json"))
    task = crop()
    for tier, last in ((1, "the next one: task.hint(2)"), (2, "the next one: task.hint(3)"),
                       (3, "the solution is folded below the exercise in notebooks/01_unet.ipynb")):
        task.hint()
        assert capsys.readouterr().out == (
            f"unet.centre_crop · hint {tier} of 3\n\n{task.hints[tier - 1]}\n\n{last}\n")
    task.hint(1)
    assert task.hints[0] in capsys.readouterr().out
    with pytest.raises(ValueError, match="tier is 4; it takes 1, 2 or 3"):
        task.hint(4)


def test_what_comes_next(capsys, monkeypatch, tmp_path):
    """The next one that is not solved, also if it stands before; and all of them at the end."""
    monkeypatch.setenv("SORALAB_PROGRESS", str(tmp_path / "record.json"))
    said = []
    for name in ("mirror_tile", "valid_sizes", "weight_map", "weight_map", "crop_and_concat"):
        crop(name=f"unet.{name}").check(mine)
        said.append(capsys.readouterr().out.splitlines()[-1].strip())
    assert said == [
        "1 of 4 in this chapter; next: exercise 1.1, `valid_sizes`.",
        "2 of 4 in this chapter; next: exercise 1.2, `crop_and_concat`.",
        "3 of 4 in this chapter; next: exercise 1.2, `crop_and_concat`.",
        "3 of 4 in this chapter; next: exercise 1.2, `crop_and_concat`.",
        "4 of 4 in this chapter: all of them.",
    ]


# --------------------------------------------------------------------------------------------------- comparing


T, A = torch.tensor, np.array


@pytest.mark.parametrize("got, want", [
    (T([1.0, 2.0]), T([1.0, 2.0], dtype=torch.float64)), (T([1.0, 2.00001]), T([1.0, 2.0])),
    (T([0.0, 1e-5, 5.0]), T([0.0, 0.0, 5.0])), (T([1, 2], dtype=torch.int32), T([1, 2])), (A([1.0]), A([1.0])),
    ([1, 2], (1, 2)), (range(3), [0, 1, 2]), (A([0, 1]), [0, 1]), (np.float32(2), 2.0), (T(2.0), 2.0), (3.0, 3),
    ({"a": T([1.0])}, {"a": T([1.0])}), ([T([1.0]), [2, "x"]], [T([1.0]), [2, "x"]]), (None, None), ("a", "a"),
    (T([torch.inf, torch.nan]), T([torch.inf, torch.nan])), (T([True]), T([True])), (T([1.0]).bfloat16(), T([1.0])),
    (torch.zeros(0, 3), torch.zeros(0, 3)), (A([1], np.uint8), A([1])), (T([1e-12]), T([1e-12])),
    (T([0.0]), T([0.0])), (T([1e-5]), T([0.0])), (T([1.0, 0.0]).to_sparse(), T([1.0, 0.0])),
    (T([1.0]).to(torch.float8_e4m3fn), T([1.0])), (T([1 + 2j]), T([1 + 2j])), (1 + 2j, 1 + 2j), (1.0, 1 + 0j),
])  # fmt: skip
def test_the_same(got, want):
    assert difference(got, want, 1e-4) == ""


@pytest.mark.parametrize("got, want, says", [
    (T([1.0, 2.001]), T([1.0, 2.0]), "it returns [1, 2.001], it should be [1, 2]."),
    (T([1e-3]), T([0.0]), "it returns [0.001], it should be [0]."),
    (T([2e-12]), T([1e-12]), "it returns [2e-12], it should be [1e-12]."),
    (T([1, 2]), T([1, 3]), "it returns [1, 2], it should be [1, 3]."),
    (T([1.0]), T([1]), "it returns floating point numbers (float32), it should be whole numbers."),
    (T([1]), T([True]), "it returns whole numbers (int64), it should be bool."),
    (T([torch.nan]), T([1.0]), "it returns [NaN], it should be [1]."),
    (T([1.0]), T([torch.inf]), "it returns [1], it should be [inf]."),
    (T([-torch.inf]), T([torch.inf]), "it returns [-inf], it should be [inf]."),
    (A([1.0]), T([1.0]), "it returns an array [1] of float64, it should be a tensor [1]."),
    (T([1.0]), A([1.0]), "it returns a tensor [1] of float32, it should be an array [1]."),
    (torch.zeros(2, 3), torch.zeros(3, 2), "it returns the shape [2, 3], it should be [3, 2]."),
    (torch.eye(9), torch.eye(9).flip(0), "16 of 81 numbers differ, most at [0, 0]: it returns 1 there, it should be 0"),
    ([1, 2], [1, 3], "it returns [1, 2], it should be [1, 3]."), ([1], [1, 2], "it returns [1], it should be [1, 2]."),
    ([*range(40)], [*range(41)], "it returns 40 things, it should be 41."),
    ([*range(40)], [*range(1, 41)], "at [0] it returns 0, it should be 1."),
    (3, [3], "it returns an int, it should be a list of 1."),
    ([T([1.0]), T([2.0])], [T([1.0]), T([3.0])], "at [1] it returns [2], it should be [3]."),
    ({"a": 1}, {"a": 1, "b": 2}, "it returns a dict of 1, it should be a dictionary with the keys a, b."),
    ({"a": 1}, {"a": 2}, "at 'a' it returns 1, it should be 2."), (2.1, 2, "it returns 2.1, it should be 2."),
    (T([2.0, 2.0]), 2.0, "it returns [2, 2], it should be 2."), (1, True, "it returns 1, it should be True."),
    (True, 1, "it returns True, it should be 1."), ("a", "b", "it returns 'a', it should be 'b'."),
    ("2", 2, "it returns '2', it should be 2."), (object, None, "it returns a type, it should be None."),
    (T([1 + 2j]), T([1 + 9j]), "it returns [(1+2j)], it should be [(1+9j)]."),
    (3 + 4j, 3.0, "it returns (3+4j), it should be 3."), (1 + 2j, 1 + 3j, "it returns (1+2j), it should be (1+3j)."),
    (torch.zeros(1, 1, 9) + 2j, torch.zeros(1, 1, 9) + 9j, "9 of 9 numbers differ, most at [0, 0, 0]: it returns 2j"),
    (T([1.0], device="meta"), T([1.0]), "it returns a tensor [1] of float32 of a kind (float32) that cannot be"),
    (Fraction(1, 3), Fraction(1, 2), "it returns 0.333333, it should be 0.5."),
    (torch.eye(9), torch.eye(9) + 2 * torch.eye(81)[4].view(9, 9), "1 of 81 numbers differs, most at [0, 4]: it"),
    (torch.zeros(1, 1, 1), torch.ones(1, 1, 1), "1 of 1 number differs, most at [0, 0, 0]: it returns 0 there"),
    (torch.zeros(1, 1, 4), torch.ones(1, 1, 4), "4 of 4 numbers differ, most at [0, 0, 0]: it returns 0 there"),
])  # fmt: skip
def test_a_difference_is_told(got, want, says):
    assert difference(got, want, 1e-4).startswith(says)


# ------------------------------------------------------------------------------------- answers that are not just called


def started(program, x, amount):
    """An answer that writes where it is told to."""
    out = torch.full_like(x, torch.nan)
    program(x, out, amount)
    return out


def kernel(x, out, amount):
    out.copy_(x + amount * x.abs())


STARTED = dict(
    call=started, solution=kernel, gradients=False,
    mistakes={"x": Mistake(lambda x, out, amount: out.copy_(x + amount * x), "you take x itself for its size."),
              "none": Mistake(lambda x, out, amount: None, "you write nothing."),
              "twice": Mistake(lambda x, out, amount: out.copy_(2 * x), "you write x twice.")})


def test_a_call_of_its_own():
    def mine(x, out, amount):
        out[:] = right(x, amount)

    def almost(x, out, amount):
        out[:] = right(x, amount) * 1.01

    def spoils(x, out, amount):
        out[:] = right(x, amount)
        x += 1

    task = toy(**STARTED)
    assert task.judge(mine).state == "right" and task.judge(kernel).state == "own"
    assert task.judge(lambda *given: kernel(*given)).state == "own"
    for mistake in STARTED["mistakes"].values():
        assert task.judge(mistake.fn).message == mistake.says
    assert task.judge(almost).message.startswith("with x = [-0.")
    assert task.judge(spoils).message.startswith("what you return is right, but `x` is no longer what was handed in")


def test_gradients_are_asked_through_a_call_of_its_own():
    def through(program, x, amount):
        return program(x, amount)

    assert toy(call=through).judge(right).state == "right"
    assert "no gradient reaches `x`" in toy(call=through).judge(lambda x, amount: right(x.detach(), amount)).message


def test_what_is_not_here_leaves_an_exercise_open(capsys, monkeypatch, tmp_path):
    def nowhere(program, x, amount):
        raise NotHere("it takes a machine that is not here.")

    monkeypatch.setenv("SORALAB_PROGRESS", str(tmp_path / "record.json"))
    assert toy(call=nowhere).check(right) is lifted
    assert capsys.readouterr().out.startswith("☐ not attempted: it takes a machine that is not here.\n")
    assert not (tmp_path / "record.json").exists()


def test_imports_that_only_the_reader_makes_are_in_his_cell():
    from soralab.exercises import exercise

    lines = exercise("triton_attention.moving_window").first_cell().splitlines()
    assert "from soralab.kernels.interpreter import tl" in lines


def test_what_is_watched_has_the_answers_name_if_it_has_one():
    def answer(x: int) -> int:
        """Twice."""
        return 2 * x

    watched = Watched(answer, abs)
    assert (watched.__name__, watched.__doc__, watched(2)) == ("answer", "Twice.", 4)
    assert Watched(functools.partial(answer, 3), abs)() == 6


def test_an_answer_that_cannot_be_compared_is_told_and_not_thrown():
    """A number beyond floats, a list that holds itself."""
    itself = []
    itself.append(itself)
    for name, answer in (("vit.count_parameters", 10**400), ("unet.lifted", itself)):
        task = toy() if name == "unet.lifted" else importlib.import_module("soralab.exercises").exercise(name)
        verdict = task.judge(lambda *_, answer=answer, **__: answer)
        assert verdict.state == "wrong" and verdict.message
    assert "cannot be compared" in told(lambda x, amount: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]))
