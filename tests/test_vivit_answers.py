"""Chapter 08's exercises: right answers written otherwise are taken, other slips are told as what they are."""

import pytest
import torch
import torch.nn.functional as F

from soralab.exercises import exercise


def tubelets_by_unfolding(film, kernel, bias):
    (t, h, w), b = kernel.shape[2:], len(film)
    boxes = film.unfold(1, t, t).unfold(3, h, h).unfold(4, w, w)  # [batch, n_t, channel, n_h, n_w, t, h, w]
    values = boxes.movedim(2, 4).flatten(4).reshape(b, -1, kernel[0].numel())
    return values @ kernel.flatten(1).T + bias


def tubelets_one_by_one(film, kernel, bias):
    (t, h, w), (time, height, width) = kernel.shape[2:], (film.shape[1], *film.shape[3:])
    tokens = [torch.einsum("btchw,dcthw->bd", film[:, i : i + t, :, j : j + h, k : k + w], kernel) + bias
              for i in range(0, time - t + 1, t) for j in range(0, height - h + 1, h)
              for k in range(0, width - w + 1, w)]  # fmt: skip
    return torch.stack(tokens, dim=1)


def tubelets_thinned(film, kernel, bias):
    """A token at every pixel, and every p-th of them kept: right, if wasteful."""
    t, h, w = kernel.shape[2:]
    return F.conv3d(film.movedim(2, 1), kernel, bias)[:, :, ::t, ::h, ::w].flatten(2).mT


def from_pictures_by_assignment(embed, positions, t, n_t):
    dim, values = embed.shape
    film = embed.new_zeros(dim, t, values)
    film[:, t // 2] = embed
    places = positions[1:].expand(n_t, -1, -1).flatten(0, 1)
    return film.reshape(dim, -1), torch.cat([positions[0:1], places])


def from_pictures_by_kron(embed, positions, t, n_t):
    here = F.one_hot(torch.tensor(t // 2), t).to(embed)
    return torch.kron(here[None], embed), torch.vstack([positions[:1], *[positions[1:]] * n_t])


def multiply_adds_by_matrices(model, n_t, n_s, dim, layers, temporal):
    """Every product [rows, inner] x [inner, columns] by itself, frame by frame and place by place."""
    n, square, wide = n_t * n_s, dim * dim, 4 * dim * dim

    def attention(sequences, tokens, share=1):
        return 2 * sequences * tokens * tokens * dim // share

    def matrices(tokens, attentions=1):
        return sum([4 * attentions * tokens * square, tokens * wide, tokens * wide])

    space, time = attention(n_t, n_s), attention(n_s, n_t)
    if model == 1:
        return sum(matrices(n) + attention(1, n) for _ in range(layers))
    if model == 2:
        return layers * (matrices(n) + space) + temporal * (matrices(n_t) + attention(1, n_t))
    if model == 3:
        return layers * (matrices(n, 2) + space + time)
    return layers * (matrices(n) + attention(n_t, n_s, 2) + attention(n_s, n_t, 2))


def multiply_adds_as_a_float(model, n_t, n_s, dim, layers, temporal):
    n = n_t * n_s
    keys = {1: n, 2: n_s, 3: n_s + n_t, 4: (n_s + n_t) / 2}[model]
    per_token = (16 if model == 3 else 12) * dim**2 + 2 * keys * dim
    late = temporal * n_t * (12 * dim**2 + 2 * n_t * dim) if model == 2 else 0
    return int(layers * n * per_token + late)


def half_and_half_by_einsum(q, k, v, n_t):
    half = q.shape[1] // 2
    q, k, v = (x.unflatten(2, (n_t, -1)) for x in (q, k, v))
    a = torch.einsum("bhtqd,bhtkd->bhtqk", q[:, :half], k[:, :half]) / q.shape[-1] ** 0.5
    b = torch.einsum("bhqsd,bhksd->bhsqk", q[:, half:], k[:, half:]) / q.shape[-1] ** 0.5
    space = torch.einsum("bhtqk,bhtkd->bhtqd", a.softmax(-1), v[:, :half])
    time = torch.einsum("bhsqk,bhksd->bhqsd", b.softmax(-1), v[:, half:])
    return torch.cat([space, time], 1).flatten(2, 3)


def half_and_half_by_loops(q, k, v, n_t):
    half, n_s, y = q.shape[1] // 2, q.shape[2] // n_t, torch.empty_like(v)
    own_time = [slice(t * n_s, (t + 1) * n_s) for t in range(n_t)]
    own_place = [slice(s, None, n_s) for s in range(n_s)]
    for heads, groups in ((slice(0, half), own_time), (slice(half, None), own_place)):
        for here in groups:
            y[:, heads, here] = F.scaled_dot_product_attention(q[:, heads, here], k[:, heads, here], v[:, heads, here])
    return y


@pytest.mark.parametrize("name, answer", [
    ("tubelets", tubelets_by_unfolding), ("tubelets", tubelets_one_by_one), ("tubelets", tubelets_thinned),
    ("from_pictures", from_pictures_by_assignment), ("from_pictures", from_pictures_by_kron),
    ("multiply_adds", multiply_adds_by_matrices), ("multiply_adds", multiply_adds_as_a_float),
    ("half_and_half", half_and_half_by_einsum), ("half_and_half", half_and_half_by_loops),
])  # fmt: skip
def test_a_right_answer_written_otherwise(name, answer):
    assert str(exercise(f"vivit.{name}").judge(answer)) == "✓ right"


# --------------------------------------------------------- slips as readers write them, and what each of them is told


def tubelets_viewed(film, kernel, bias):
    b, time, channels, height, width = film.shape
    tokens = F.conv3d(film.reshape(b, channels, time, height, width), kernel, bias, stride=kernel.shape[2:])
    return tokens.flatten(2).transpose(1, 2)


def tubelets_flattened_and_viewed(film, kernel, bias):
    tokens = F.conv3d(film.permute(0, 2, 1, 3, 4), kernel, bias, stride=tuple(kernel.shape[2:]))
    return tokens.flatten(2).reshape(len(film), -1, len(kernel))


def tubelets_time_last(film, kernel, bias):
    tokens = F.conv3d(film.permute(0, 2, 3, 4, 1), kernel.permute(0, 1, 3, 4, 2), bias,
                      stride=(kernel.shape[3], kernel.shape[4], kernel.shape[2]))  # fmt: skip
    return tokens.flatten(2).transpose(1, 2)


def tubelets_of_every_second_frame(film, kernel, bias):
    t = kernel.shape[2]
    n_t = film.shape[1] // t
    tokens = [tubelets_by_unfolding(film[:, k : n_t * t : n_t], kernel, bias) for k in range(n_t)]
    return torch.cat(tokens, dim=1)


def tubelets_padded(film, kernel, bias):
    t, h, w = kernel.shape[2:]
    sides = film.shape[4], film.shape[3], film.shape[1]
    more = [(p - side % p) % p for side, p in zip(sides, (w, h, t), strict=True)]
    film = F.pad(film.transpose(1, 2), (0, more[0], 0, more[1], 0, more[2]))
    return tubelets_by_unfolding(film.transpose(1, 2), kernel, bias)


def from_pictures_below_the_middle(embed, positions, t, n_t):
    film = embed.new_zeros(t, *embed.shape)
    film[(t - 1) // 2] = embed
    return torch.hstack(list(film)), torch.cat([positions[:1], positions[1:].tile(n_t, 1)])


def from_pictures_each_in_a_row(embed, positions, t, n_t):
    places = positions[1:, None].expand(-1, n_t, -1).flatten(0, 1)
    return from_pictures_by_assignment(embed, positions, t, n_t)[0], torch.cat([positions[:1], places])


def from_pictures_inflated(embed, positions, t, n_t):
    return torch.cat([embed / t] * t, 1), from_pictures_by_assignment(embed, positions, t, n_t)[1]


def from_pictures_values_first(embed, positions, t, n_t):
    film = embed.new_zeros(*embed.shape, t)
    film[..., t // 2] = embed
    return film.reshape(len(embed), -1), from_pictures_by_assignment(embed, positions, t, n_t)[1]


def counted(attention=4, products=2, mlp=8, second=True, late="moments", half=True, scale=1):
    """A count written out for all models, with one thing done otherwise."""

    def count(model, n_t, n_s, dim, layers, temporal):
        n, matrices = n_t * n_s, (attention + mlp) * dim**2
        keys = {1: n, 2: n_s, 3: n_s + n_t, 4: (n_s + n_t) / (2 if half else 1)}[model]
        total = layers * n * (matrices + products * keys * dim)
        if model == 3 and second:
            total += layers * n * attention * dim**2
        if model == 2 and late:
            total += temporal * (n_t if late == "moments" else n) * (matrices + products * n_t * dim)
        return scale * int(total)

    return count


def half_and_half_by_turns(q, k, v, n_t):
    y = torch.empty_like(v)
    for head in range(q.shape[1]):
        one = [x[:, head].unflatten(1, (n_t, -1)) for x in (q, k, v)]
        if head % 2:
            out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in one)).transpose(1, 2)
        else:
            out = F.scaled_dot_product_attention(*one)
        y[:, head] = out.flatten(1, 2)
    return y


def half_and_half_in_a_cross(q, k, v, n_t):
    at = torch.arange(q.shape[2])
    n_s = len(at) // n_t
    see = (at[:, None] // n_s == at // n_s) | (at[:, None] % n_s == at % n_s)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=see)


def half_and_half_left_as_places(q, k, v, n_t):
    half = q.shape[1] // 2
    a, b, c = (x.unflatten(2, (n_t, -1)) for x in (q, k, v))
    space = F.scaled_dot_product_attention(a[:, :half], b[:, :half], c[:, :half])
    time = F.scaled_dot_product_attention(*(x[:, half:].transpose(2, 3) for x in (a, b, c)))
    return torch.cat([space.flatten(2, 3), time.flatten(2, 3)], dim=1)


def half_and_half_scaled_twice(q, k, v, n_t):
    return half_and_half_by_einsum(q / q.shape[-1] ** 0.5, k, v, n_t)


@pytest.mark.parametrize("name, mistake, answer", [
    ("tubelets", "names_exchanged", tubelets_viewed),
    ("tubelets", "reshaped_at_the_end", tubelets_flattened_and_viewed),
    ("tubelets", "rows_before_time", tubelets_time_last),
    ("tubelets", "every_second_frame", tubelets_of_every_second_frame),
    ("tubelets", "filled_with_zeros", tubelets_padded),
    ("from_pictures", "before_the_middle", from_pictures_below_the_middle),
    ("from_pictures", "each_place_in_a_row", from_pictures_each_in_a_row),
    ("from_pictures", "averaged", from_pictures_inflated),
    ("from_pictures", "frames_interleaved", from_pictures_values_first),
    ("multiply_adds", "flops", counted(scale=2)), ("multiply_adds", "no_values", counted(products=1)),
    ("multiply_adds", "no_output_projection", counted(attention=3)), ("multiply_adds", "half_an_mlp", counted(mlp=4)),
    ("multiply_adds", "one_projection_for_two", counted(second=False)),
    ("multiply_adds", "time_over_all_tokens", counted(late="tokens")),
    ("multiply_adds", "no_temporal_encoder", counted(late="")),
    ("multiply_adds", "every_head_asks_both", counted(half=False)),
    ("half_and_half", "every_second_head", half_and_half_by_turns),
    ("half_and_half", "a_cross", half_and_half_in_a_cross),
    ("half_and_half", "not_folded_back", half_and_half_left_as_places),
    ("half_and_half", "divided_twice", half_and_half_scaled_twice),
])  # fmt: skip
def test_a_slip_is_told_by_its_own_sentence(name, mistake, answer):
    task = exercise(f"vivit.{name}")
    says = task.mistakes[mistake].says
    assert task.judge(answer).message == says and [one.says for one in task.mistakes.values()].count(says) == 1


def test_the_count_of_the_slips_is_right_if_nothing_is_changed():
    assert str(exercise("vivit.multiply_adds").judge(counted())) == "✓ right"


def test_the_counts_come_near_the_papers():
    """Table 2's GFLOPs of 455.2, 284.4, 372.3 and 277.1 count embedding, class tokens and head besides."""
    count = exercise("vivit.multiply_adds").solution
    for model, said in zip((1, 2, 3, 4), (455.2, 284.4, 372.3, 277.1), strict=True):
        assert 0.97 < count(model, 16, 196, 768, 12, 4) / 1e9 / said < 1


def tubelets_in_grey(film, kernel, bias):
    mean = film.mean(2, keepdim=True).expand_as(film)
    return exercise("vivit.tubelets").solution(mean, kernel, bias)


def from_pictures_and_back(embed, positions, t, n_t):
    film, places = exercise("vivit.from_pictures").solution(embed, positions, t, n_t)
    return film, places.flip(0)


def multiply_adds_with_an_embedding(model, n_t, n_s, dim, layers, temporal):
    return exercise("vivit.multiply_adds").solution(model, n_t, n_s, dim, layers, temporal) + n_t * n_s * dim**2


def half_and_half_of_the_past(q, k, v, n_t):
    return exercise("vivit.half_and_half").solution(q, k, v.cumsum(2), n_t)


@pytest.mark.parametrize("name, answer", [
    ("tubelets", tubelets_in_grey), ("from_pictures", from_pictures_and_back),
    ("multiply_adds", multiply_adds_with_an_embedding), ("half_and_half", half_and_half_of_the_past),
])  # fmt: skip
def test_other_slips_are_told_the_case_and_not_another_s_message(name, answer):
    task = exercise(f"vivit.{name}")
    verdict = task.judge(answer)
    assert verdict.state == "wrong"
    assert verdict.message not in {mistake.says for mistake in task.mistakes.values()}


def masked(q, k, v, n_t):
    at, half = torch.arange(q.shape[2]), q.shape[1] // 2
    n_s = len(at) // n_t
    see = torch.stack([at[:, None] // n_s == at // n_s] * half + [at[:, None] % n_s == at % n_s] * half)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=see)


def test_a_mask_is_right_and_refused_for_its_products():
    verdict = exercise("vivit.half_and_half").judge(masked)
    assert verdict.state == "wrong" and "A mask hides what was computed all the same" in verdict.message


def tubelets_cut_off(film, kernel, bias):
    return tubelets_by_unfolding(film, kernel.detach(), bias)


def from_pictures_cut_off(embed, positions, t, n_t):
    return from_pictures_by_assignment(embed.detach(), positions, t, n_t)


def half_and_half_cut_off(q, k, v, n_t):
    return half_and_half_by_einsum(q, k.detach(), v, n_t)


@pytest.mark.parametrize("name, answer", [
    ("tubelets", tubelets_cut_off), ("from_pictures", from_pictures_cut_off), ("half_and_half", half_and_half_cut_off),
])  # fmt: skip
def test_what_cannot_be_trained_through_is_refused(name, answer):
    verdict = exercise(f"vivit.{name}").judge(answer)
    assert verdict.state == "wrong" and "gradient" in verdict.message
