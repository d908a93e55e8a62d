"""Formulas of the leader's guides in plain letters, for a terminal and for paper: x_t^2 / \\sqrt{d} as xₜ² / √d."""

from __future__ import annotations

import re

OPEN, CLOSE, QUAD = "\x01", "\x02", "\x03"  # what the spaces beside them depend on
LETTERS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "Delta": "Δ", "epsilon": "ε", "varepsilon": "ε", "eta": "η",
    "theta": "θ", "lambda": "λ", "mu": "μ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "psi": "ψ",
    "omega": "ω", "sum": "Σ", "prod": "Π", "top": "ᵀ", "mid": "|", "ldots": "…", "dots": "…", "cdot": "·",
    "times": "×", "le": "≤", "ge": "≥", "ne": "≠", "approx": "≈", "sim": "~", "in": "∈", "infty": "∞", "to": "→",
    "leftarrow": "←", "uparrow": "↑", "partial": "∂", "nabla": "∇", "odot": "⊙", "circ": "∘", "pm": "±",
    "lVert": OPEN, "rVert": CLOSE, "left": "", "right": "", "big": "",
    "exp": "exp", "log": "log", "min": "min", "max": "max", "quad": QUAD, "qquad": QUAD, " ": " ", ",": " ", ";": " ",
    "!": "", "{": "{", "}": "}", "%": "%",
}  # fmt: skip
ACCENTS = {"hat": "\u0302", "tilde": "\u0303", "bar": "\u0304"}  # combined with the letter before them
STYLES = ("text", "mathrm", "mathbf", "operatorname")
SCRIPTS = {("mathbb", "E"): "𝔼", ("mathbb", "R"): "ℝ", ("mathcal", "E"): "ℰ", ("mathcal", "N"): "𝒩",
           ("mathcal", "D"): "𝒟", ("mathcal", "L"): "ℒ"}
RAISED = dict(zip("0123456789+-=()intTᵀ", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁱⁿᵗᵀᵀ", strict=True))
LOWERED = dict(zip("0123456789+-=()aehijklmnoprstuvxβγρφ", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩ", strict=True))
TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[{}^_]|[^\\{}^_]", re.S)


def readable(latex: str) -> str:
    """A formula in plain letters. Raises ValueError for a command that it does not know, and for an open brace."""
    tokens = TOKEN.findall(latex)
    text = _group(tokens, latex)
    if tokens:
        raise ValueError(f"the formula {latex!r} closes a brace that is not open")
    text = re.sub(f"{OPEN} *| *{CLOSE}", "‖", re.sub(r"\s+", " ", text))
    return re.sub(f" *{QUAD} *", "   ", text).strip()


def _group(tokens: list[str], latex: str) -> str:
    """The formula up to the brace that closes it, or to the end."""
    out = ""
    while tokens and tokens[0] != "}":
        out += _item(tokens, latex)
    return out


def _item(tokens: list[str], latex: str) -> str:
    """One letter, command or group, read off the tokens."""
    if not tokens:
        raise ValueError(f"the formula {latex!r} ends where something must follow")
    token = tokens.pop(0)
    if token == "{":
        inside = _group(tokens, latex)
        if not tokens:
            raise ValueError(f"the formula {latex!r} leaves a brace open")
        tokens.pop(0)
        return inside
    if token in "^_":
        return _script(token, _argument(tokens, latex))
    return _command(token[1:], tokens, latex) if token[0] == "\\" else token


def _argument(tokens: list[str], latex: str) -> str:
    while tokens and tokens[0].isspace():
        tokens.pop(0)
    return _item(tokens, latex)


def _command(name: str, tokens: list[str], latex: str) -> str:
    if name in LETTERS:
        return LETTERS[name]
    if name in STYLES:
        return _argument(tokens, latex)
    if name in ACCENTS:
        return _argument(tokens, latex) + ACCENTS[name]
    if name in ("frac", "tfrac"):
        over, under = _argument(tokens, latex), _argument(tokens, latex)
        return f"{_held(over)}/{_held(under)}"
    if name == "sqrt":
        return f"√{_held(_argument(tokens, latex))}"
    if name in ("mathbb", "mathcal"):
        letter = _argument(tokens, latex)
        if (name, letter) in SCRIPTS:
            return SCRIPTS[name, letter]
    raise ValueError(f"the formula {latex!r} uses \\{name}, which has no plain letters here")


def _held(text: str) -> str:
    """In brackets, unless it is a number or one letter with what is raised or lowered beside it."""
    small = re.escape("".join([*RAISED.values(), *LOWERED.values()]))
    return text if re.fullmatch(rf"\d+|\w[{small}]*", text) else f"({text})"


def _script(way: str, text: str) -> str:
    """Raised or lowered letters where there are all of them and they make no word, else behind ^ or _."""
    small = RAISED if way == "^" else LOWERED
    if all(letter in small for letter in text) and not re.search(r"[a-z]{2}", text):
        return "".join(small[letter] for letter in text)
    return f"{way}{text}" if text.isalnum() else f"{way}({text})"
