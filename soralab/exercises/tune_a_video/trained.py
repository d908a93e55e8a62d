"""What one film may change: section 3.3."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from soralab.workbook.task import Case, Exercise, Mistake


def stub(names: list[str]) -> list[str]:
    """Those of a network's parameters that Tune-A-Video trains, in the order in which they come.

    The modules of a block are called among (attention among a frame's places), across (to the prompt), mlp, over_time
    (attention over time), norm1 to norm4, proj_in, proj_out; the layers of an attention to_q, to_kv, to_out. So a name
    is "unet.down.1.1.among.to_q.weight". The encoder of prompts has names too, such as
    "text.blocks.0.attention.to_q.weight".
    """
    raise NotImplementedError


def solution(names: list[str]) -> list[str]:
    """Those of a network's parameters that Tune-A-Video trains, in the order in which they come."""
    return [name for name in names if ".over_time." in name or ".among.to_q." in name or ".across.to_q." in name]


BLOCK = (
    "norm.weight", "proj_in.weight", "norm1.weight", "norm1.bias", "among.to_q.weight", "among.to_kv.weight",
    "among.to_out.weight", "among.to_out.bias", "norm2.weight", "across.to_q.weight", "across.to_kv.weight",
    "across.to_out.weight", "across.to_out.bias", "norm3.weight", "mlp.0.weight", "mlp.1.weight", "norm4.weight",
    "norm4.bias", "over_time.to_q.weight", "over_time.to_kv.weight", "over_time.to_out.weight",
    "over_time.to_out.bias", "proj_out.weight",
)  # fmt: skip
TEXT = ("token_embedding.weight", "blocks.0.attention.to_q.weight", "blocks.0.attention.to_q.bias",
        "blocks.0.attention.to_kv.weight", "blocks.1.attention.to_q.weight", "blocks.1.mlp.0.weight",
        "ln_final.weight")  # fmt: skip
REST = ("time.mlp.0.weight", "down.0.0.weight", "down.1.0.conv1.weight", "head.2.weight", "head.2.bias")
PLACES = ("down.1.1", "down.3.1", "middle.1", "up.0.1", "up.2.1")


def _block(place: str) -> list[str]:
    return [f"unet.{place}.{name}" for name in BLOCK]


def cases() -> Iterator[Case]:
    yield Case((_block("middle.1"),), "one block")
    yield Case(([f"text.{name}" for name in TEXT] + _block("down.1.1"),), "with the encoder of prompts")
    yield Case(([f"unet.{name}" for name in REST] + _block("up.2.1"),), "with residual blocks and the head")
    yield Case((["unet.up.0.1.across.to_q.weight"],), "one name, which is trained")
    yield Case((["text.blocks.0.attention.to_q.weight"],), "one name, of the encoder of prompts")
    yield Case((["unet.up.0.1.norm4.weight", "unet.up.0.1.over_time.to_out.bias"],), "the norm and the output")
    yield Case(([],), "no name")
    for _ in range(4):
        whole = [name for place in PLACES for name in _block(place)]
        whole = [f"text.{name}" for name in TEXT] + [f"unet.{name}" for name in REST] + whole
        chosen = torch.randperm(len(whole))[: int(torch.randint(20, len(whole), ()))].tolist()
        yield Case(([whole[k] for k in chosen],), "some names, in another order")


def _where(names: list[str], *parts: str) -> list[str]:
    return [name for name in names if any(part in name for part in parts)]


def every_query(names):
    return _where(names, ".over_time.", ".to_q.")


def queries_alone(names):
    return _where(names, ".among.to_q.", ".across.to_q.", ".over_time.to_q.")


def time_alone(names):
    return _where(names, ".over_time.")


def not_the_prompt_s(names):
    return _where(names, ".over_time.", ".among.to_q.")


def not_the_frame_s(names):
    return _where(names, ".over_time.", ".across.to_q.")


def whole_attention(names):
    return _where(names, ".over_time.", ".among.", ".across.")


def keys_too(names):
    return _where(names, ".over_time.", ".among.to_q.", ".across.to_q.", ".across.to_kv.")


def its_norm_too(names):
    return _where(names, ".over_time.", ".among.to_q.", ".across.to_q.", ".norm4.")


def not_the_queries_of_time(names):
    old = _where(names, ".among.to_q.", ".across.to_q.", ".over_time.")
    return [name for name in old if ".over_time.to_q." not in name]


def everything(names):
    return list(names)


def sorted_by_kind(names):
    return [*_where(names, ".among.to_q."), *_where(names, ".across.to_q."), *_where(names, ".over_time.")]


EXERCISE = Exercise(
    name="tune_a_video.trained",
    title="What one film may change",
    difficulty=1,
    minutes=10,
    statement="""
        Trained whole, a model of pictures would learn the one film by heart and forget the rest. Section 3.3 trains
        three things: the queries of the attention among places, the queries of the attention to the prompt, and the
        whole attention over time, which is new. Its norm stays as it began, as in the official code. From the names of
        all parameters, return those that are trained.
        """,
    hints=(
        "Three kinds of names, and every one of them has a module's name and a layer's name in it.",
        "to_q alone is not enough: who else has queries? And what of over_time besides its queries is trained?",
        'Keep a name if ".over_time." is in it, or ".among.to_q.", or ".across.to_q.".',
    ),
    compare="Compare: which names end as a query's do and are not yours, and why must they stay?",
    stub=stub,
    solution=solution,
    cases=cases,
    mistakes={
        "every_query": Mistake(every_query, "the encoder of prompts has queries too, and you train them. One film "
                               "would then change what words mean, and an edit is asked for in words."),
        "queries_alone": Mistake(queries_alone, "of the attention over time you train the queries alone. It is new, "
                                 "and its output is zero at the start: untrained it would stay silent."),
        "time_alone": Mistake(time_alone, "you train what is over time alone. The queries of the two other attentions "
                              "are trained too, so that a frame learns to ask the others."),
        "not_the_prompt_s": Mistake(not_the_prompt_s, "the queries to the prompt are missing: across.to_q. They fit "
                                    "the film to its words, and an edit is a change of words."),
        "not_the_frame_s": Mistake(not_the_frame_s, "the queries among places are missing: among.to_q. They now meet "
                                   "keys of other frames, which they never did before."),
        "whole_attention": Mistake(whole_attention, "you train keys, values and outputs of the old attentions. They "
                                   "hold what the painter knows of pictures; only the queries learn where to look."),
        "keys_too": Mistake(keys_too, "you train the keys and values of the prompt as well. Then the film's words come "
                            "to mean this film, and other words mean less."),
        "its_norm_too": Mistake(its_norm_too, "norm4 is not trained: the official code names the attention over time, "
                                "and not the norm before it."),
        "not_the_queries_of_time": Mistake(not_the_queries_of_time, "the attention over time is trained whole, and its "
                                           "own queries are missing."),
        "everything": Mistake(everything, "you train everything. Then the painter learns one film by heart, and edits "
                              "find nothing else left in it."),
        "sorted_by_kind": Mistake(sorted_by_kind, "the right names, in another order: they should come as they came."),
    },
)  # fmt: skip
