"""What the tower hands over: one vector a place."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from soralab.workbook.task import Case, Exercise, Mistake, WrongAnswer


def stub(x: Tensor, layers: list[Callable]) -> Tensor:
    """Z_v [films, frames * places, dim] of a tower that reads pictures, from before its last layer.

    x [films, frames, 1 + places, dim] as it enters the first layer; the class token comes first. layers, one at least:
    each takes pictures [n, 1 + places, dim] and gives as many of the same shape; a picture attends to itself alone.
    Returned are the grid features that enter the last layer, frame after frame, each frame's places in their order.
    """
    raise NotImplementedError


def solution(x: Tensor, layers: list[Callable]) -> Tensor:
    """Z_v [films, frames * places, dim] of a tower that reads pictures, from before its last layer."""
    z = x.flatten(0, 1)  # every frame is a picture of its own
    for layer in layers[:-1]:
        z = layer(z)
    return z[:, 1:].unflatten(0, x.shape[:2]).flatten(1, 2)


def _tower(layers: int, dim: int) -> list[Callable]:
    def one(mix: Tensor) -> Callable:
        def layer(z: Tensor) -> Tensor:
            """All tokens of a row hear one another, in order; rows do not."""
            order = torch.arange(1, z.shape[1] + 1, dtype=z.dtype)[:, None]
            heard = (z * order.cos()).mean(1, keepdim=True) + z[:, :1]
            return z + torch.tanh(z @ mix.to(z) + heard)

        return layer

    return [one(torch.randn(dim, dim, dtype=torch.float64) / dim**0.5) for _ in range(layers)]


def _case(films: int, frames: int, places: int, dim: int, layers: int, dtype=torch.float32) -> tuple:
    return torch.randn(films, frames, 1 + places, dim, dtype=dtype), _tower(layers, dim)


def cases() -> Iterator[Case]:
    yield Case(_case(1, 1, 3, 2, 2), "one picture, two layers")
    yield Case(_case(2, 1, 4, 3, 3), "two pictures, three layers")
    yield Case(_case(1, 3, 2, 2, 2), "one film of three frames")
    yield Case(_case(2, 3, 4, 3, 3), "two films of three frames")
    yield Case(_case(2, 2, 2, 2, 1), "one layer: nothing runs")
    yield Case(_case(3, 2, 1, 4, 2), "one place in a frame")
    yield Case(_case(2, 2, 3, 4, 5, torch.float64), "five layers, float64")
    for _ in range(3):
        yield Case(_case(*torch.randint(1, 5, (4,)).tolist(), 3))


def check(fn) -> Iterator[tuple[bool, str]]:
    x, layers = _case(2, 2, 3, 4, 3)
    ran = []
    watched = [lambda z, k=k, layer=layer: ran.append(k) or layer(z) for k, layer in enumerate(layers)]
    fn(x, watched)
    yield 2 not in ran, (
        "the features are right, but the last layer was run too. Nobody reads what it gives, and it costs as much as "
        "any other: leave it out."
    )


def _read(x: Tensor, layers: list[Callable], take: Callable[[Tensor], Tensor] = lambda z: z[:, :, 1:]) -> Tensor:
    """Through all `layers`; take: what is kept of [films, frames, 1 + places, dim]."""
    z = x.flatten(0, 1)
    for layer in layers:
        z = layer(z)
    return take(z.unflatten(0, x.shape[:2]))


def after_the_last(x, layers):
    return _read(x, layers).flatten(1, 2)


def two_layers_left_out(x, layers):
    return _read(x, layers[:-2]).flatten(1, 2)


def first_left_out(x, layers):
    return _read(x, layers[1:]).flatten(1, 2)


def class_token_kept(x, layers):
    return _read(x, layers[:-1], lambda z: z).flatten(1, 2)


def last_place_dropped(x, layers):
    return _read(x, layers[:-1], lambda z: z[:, :, :-1]).flatten(1, 2)


def class_token_alone(x, layers):
    return _read(x, layers[:-1], lambda z: z[:, :, :1]).flatten(1, 2)


def mean_of_places(x, layers):
    return _read(x, layers[:-1], lambda z: z[:, :, 1:].mean(2, keepdim=True)).flatten(1, 2)


def dropped_too_early(x, layers):
    return _read(x[:, :, 1:], layers[:-1], lambda z: z).flatten(1, 2)


def frames_in_one_picture(x, layers):
    z = x.flatten(1, 2)[:, None]
    return _read(z, layers[:-1], lambda z: z[:, 0].unflatten(1, x.shape[1:3])[:, :, 1:]).flatten(1, 2)


def one_class_token_dropped(x, layers):
    return _read(x, layers[:-1], lambda z: z).flatten(1, 2)[:, 1:]


def place_after_place(x, layers):
    return _read(x, layers[:-1]).transpose(1, 2).flatten(1, 2)


def films_and_frames_exchanged(x, layers):
    return _read(x.transpose(0, 1), layers[:-1]).reshape(x.shape[0], -1, x.shape[-1])


def mean_of_frames(x, layers):
    return _read(x, layers[:-1]).mean(1)


def first_frame_alone(x, layers):
    return _read(x, layers[:-1])[:, 0]


def all_layers_run(x, layers):
    z, before = x.flatten(0, 1), None
    for layer in layers:
        before, z = z, layer(z)
    return before[:, 1:].unflatten(0, x.shape[:2]).flatten(1, 2)


EXERCISE = Exercise(
    name="llava.grid",
    title="One vector a place",
    difficulty=1,
    minutes=10,
    statement="""
        CLIP read its tower at the class token, after the last layer: one vector that says which text a picture belongs
        to. An answer needs to know *where*, so LLaVA takes the vector of each place, and takes it before the last
        layer (section 4.1; one point better than after it, table 8). A film is some frames read one by one, their
        places one after the other. Every slip here has features of some shape, and $W$ learns something from all.
        """,
    hints=(
        "Which layers are to run? Which row of what leaves them is no place? And may one frame hear of another?",
        "Frames go into the batch: [films * frames, 1 + places, dim]. Run all layers but the last, leave out row 0, "
        "and lay the frames of a film one behind the other.",
        "z = x.flatten(0, 1); for layer in layers[:-1]: z = layer(z); then z[:, 1:], unflatten the batch into films "
        "and frames, and flatten frames and places.",
    ),
    compare="Compare: the class token is thrown away at the end. Why may it not be thrown away at the start?",
    stub=stub,
    solution=solution,
    cases=cases,
    check=check,
    wrong={"all_layers_run": WrongAnswer(all_layers_run, "the last layer was run too")},
    mistakes={
        "after_the_last": Mistake(after_the_last, "you read the tower after its last layer. What is asked for enters "
                                  "the last layer: run all but that one."),
        "two_layers_left_out": Mistake(two_layers_left_out, "you leave out two layers. If you count from a list that "
                                       "holds the input as well, its last but one is the right one; of the layers, "
                                       "all run but the last."),
        "first_left_out": Mistake(first_left_out, "you leave out the first layer in place of the last."),
        "class_token_kept": Mistake(class_token_kept, "the class token is still there, in front of each frame's "
                                    "places. It stands for no place: leave it out."),
        "last_place_dropped": Mistake(last_place_dropped, "you drop the last token of each frame, which is its last "
                                      "place, and keep the class token, which comes first."),
        "class_token_alone": Mistake(class_token_alone, "you keep the class token and drop the places: one vector for "
                                     "a picture is what CLIP had. Here every place has its own."),
        "mean_of_places": Mistake(mean_of_places, "you hand over the mean of the places: one vector for a picture. "
                                  "Where a thing is cannot be read from it; every place keeps its own vector."),
        "dropped_too_early": Mistake(dropped_too_early, "you take the class token out before the layers run. The tower "
                                     "was trained with it, and the places attend to it: drop it from what comes out."),
        "frames_in_one_picture": Mistake(frames_in_one_picture, "your layers see all frames of a film as one picture. "
                                         "The tower has read single pictures all its life: frames go into the batch."),
        "one_class_token_dropped": Mistake(one_class_token_dropped, "you drop one class token a film. Each frame has "
                                           "one: drop them before the frames are laid one behind the other."),
        "place_after_place": Mistake(place_after_place, "your rows go place by place, each in all frames. Asked for is "
                                     "frame after frame, each with all its places."),
        "films_and_frames_exchanged": Mistake(films_and_frames_exchanged, "you exchange films and frames: frames of "
                                              "different films lie in one row. Films are the outer axis."),
        "mean_of_frames": Mistake(mean_of_frames, "you average over the frames. What moves cannot be told from such a "
                                  "mean; frames are laid one behind the other."),
        "first_frame_alone": Mistake(first_frame_alone, "you hand over the first frame alone. All frames go, one "
                                     "behind the other."),
    },
)  # fmt: skip
