"""Chapter 13's LLaVA: what is seen, what stands where, what is learnt, and that words come as they were taught."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from soralab.blocks import causal_mask
from soralab.blocks.resnet import ModifiedResNet
from soralab.clip import CLIPConfig, VisionTransformer
from soralab.llava import (
    ASSISTANT,
    HUMAN,
    IMAGE,
    PAD,
    PROJECTIONS,
    STOP,
    Answer,
    Assistant,
    Layer,
    LLaVA,
    LLaVAConfig,
    answer_loss,
    expand,
    grid,
    is_answer,
    pick_frames,
    places,
    projector,
    stage_1,
    stage_2,
    template,
)
from soralab.transformer import DecoderLayer, TransformerConfig, sinusoid

TEXT = TransformerConfig(vocabulary=30, N=2, d_model=24, d_ff=32, h=3, d_k=8, d_v=8, P_drop=0.0)
WIDTH, TOKENS = 10, 3
IDS = torch.tensor([
    [HUMAN, IMAGE, 9, 17, STOP, ASSISTANT, 21, 12, STOP, HUMAN, 8, STOP, ASSISTANT, 7, STOP],
    [HUMAN, 11, 20, 5, IMAGE, STOP, ASSISTANT, 28, STOP, HUMAN, 13, 6, STOP, ASSISTANT, 25],
])  # fmt: skip


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def randomised(model, seed=0):
    """All weights random, norms and biases too, which start at one and zero."""
    for k, (name, value) in enumerate(model.named_parameters()):
        start = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        scale = 0.3 if value.ndim < 2 else value[0].numel() ** -0.5
        value.copy_(start + scale * numbers(*value.shape, seed=1000 * seed + k))
    return model.eval()


@pytest.fixture
def model():
    return randomised(LLaVA(LLaVAConfig(TEXT, WIDTH)))


@pytest.fixture
def Z():
    return numbers(2, 1, TOKENS, WIDTH, seed=7)


def different(a, b, least=1e-3):
    return (a - b).abs().max() > least


# ------------------------------------------------------------------------------------------------------- what is seen


VIT = CLIPConfig(embed=8, image=32, layers=3, width=16, patch=8, head=8)


@pytest.fixture
def vit():
    return randomised(VisionTransformer(VIT))


@pytest.fixture
def resnet():
    torch.manual_seed(0)
    net = ModifiedResNet((1, 1, 1), 8, 4, 32, 8)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    return net.eval()


@torch.no_grad()
def test_the_grid_is_what_leaves_the_last_layer_but_one_without_the_class_token(vit):
    pixels = numbers(2, 3, 32, 32)
    states = vit.states(pixels)
    assert len(states) == 1 + VIT.layers
    x = states[-2]
    assert torch.equal(grid(vit, pixels), x[:, 1:]) and grid(vit, pixels).shape == (2, 16, 16)
    torch.testing.assert_close(vit.W_i(vit.ln_post(vit.blocks[-1](x)[:, 0])), vit(pixels))  # one layer is left to do
    assert different(grid(vit, pixels), grid(vit, pixels, -1)) and different(grid(vit, pixels), grid(vit, pixels, -3))


@torch.no_grad()
def test_the_class_token_is_left_out_and_not_another(vit):
    """Another class embedding changes none of the tokens that enter the first layer, but the one that is left out."""
    pixels = numbers(1, 3, 32, 32)
    before = grid(vit, pixels, 0)
    vit.class_embedding += 1
    assert torch.equal(grid(vit, pixels, 0), before)


@torch.no_grad()
def test_a_resnets_grid_is_what_leaves_its_last_stage_but_one_with_rows_and_columns_beside_it(resnet):
    pixels = numbers(2, 3, 32, 32)
    states = resnet.states(pixels)
    assert [tuple(state.shape[1:]) for state in states] == [(8, 8, 8), (32, 8, 8), (64, 4, 4), (128, 2, 2)]
    torch.testing.assert_close(resnet.attnpool(states[-1]), resnet(pixels))
    torch.testing.assert_close(resnet.layer3(states[-2]), states[-1])
    Z = grid(resnet, pixels)
    assert Z.shape == (2, 16, 64 + 8) and grid(resnet, pixels, -1).shape == (2, 4, 128 + 4)
    for row in range(4):
        for column in range(4):
            token = Z[:, 4 * row + column]
            torch.testing.assert_close(token[:, :64], states[-2][:, :, row, column])
            assert token[0, 64:].nonzero().flatten().tolist() == [row, 4 + column] and token[0, 64:].sum() == 2


def test_places_of_a_grid_that_is_no_square():
    assert places(2, 3).tolist() == [
        [1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 0, 1], [0, 1, 1, 0, 0], [0, 1, 0, 1, 0], [0, 1, 0, 0, 1]
    ]  # fmt: skip


@torch.no_grad()
def test_a_token_speaks_of_its_own_place(resnet):
    """A spot in one cell of the picture changes that cell's token the most."""
    for row, column in ((0, 0), (0, 3), (2, 1), (3, 3)):
        pixels = torch.zeros(1, 3, 32, 32)
        plain = grid(resnet, pixels)
        pixels[..., 8 * row + 2 : 8 * row + 6, 8 * column + 2 : 8 * column + 6] = 1
        assert int((grid(resnet, pixels) - plain).square().sum(-1).argmax()) == 4 * row + column


def test_the_projectors_of_the_papers():
    counts = {}
    with torch.device("meta"):
        for name, sizes in PROJECTIONS.items():
            counts[name] = sum(p.numel() for p in projector(*sizes).parameters())
    assert counts == {"LLaVA-7B": 4_198_400, "LLaVA-13B": 5_248_000, "LLaVA-1.5-7B": 20_979_712}
    W = projector(4, 6)
    assert isinstance(W, torch.nn.Linear)  # Eq. (1): nothing but a matrix and a bias
    x = numbers(3, 4)
    torch.testing.assert_close(W(x), x @ W.weight.T + W.bias)
    with pytest.raises(ValueError, match=r"layers is 3; it takes 1 \(LLaVA\) or 2 \(LLaVA-1.5\)"):
        projector(4, 6, 3)


def test_frames_are_taken_as_the_world_shows_them():
    """Frame k of T shows the moment k / T, so four of eight are every second one, and of one it is four times."""
    assert pick_frames(torch.arange(8)).tolist() == [0, 2, 4, 6]
    assert pick_frames(torch.arange(16)).tolist() == [0, 4, 8, 12]
    assert pick_frames(torch.arange(9)).tolist() == [0, 2, 4, 6]
    assert pick_frames(torch.arange(3)).tolist() == [0, 0, 1, 2] and pick_frames(torch.arange(1)).tolist() == [0] * 4
    assert pick_frames(numbers(8, 3, 2, 2)).shape == (4, 3, 2, 2)
    with pytest.raises(ValueError, match="film has no frames; it takes one or more"):
        pick_frames(torch.zeros(0, 3, 32, 32))


# ------------------------------------------------------------------------------------------- pictures among the words


@torch.no_grad()
def test_words_stand_where_words_stood_and_pictures_in_their_places(model, Z):
    x = model.embed(IDS, Z)
    assert x.shape == (2, IDS.shape[1] + TOKENS - 1, TEXT.d_model)
    for row, at in ((0, 1), (1, 4)):
        torch.testing.assert_close(x[row, at : at + TOKENS], model.W(Z[row, 0]))
        words = torch.cat([x[row, :at], x[row, at + TOKENS :]])
        want = model.embedding(torch.cat([IDS[row, :at], IDS[row, at + 1 :]])) * math.sqrt(TEXT.d_model)
        torch.testing.assert_close(words, want)
    assert expand(IDS, TOKENS)[0, :6].tolist() == [HUMAN, IMAGE, IMAGE, IMAGE, 9, 17]


@torch.no_grad()
def test_several_pictures_come_in_their_order(model):
    ids = torch.tensor([[HUMAN, IMAGE, 9, IMAGE, 12, STOP], [HUMAN, 9, 7, IMAGE, IMAGE, STOP]])
    Z = numbers(2, 2, TOKENS, WIDTH)
    x, H = model.embed(ids, Z), model.W(Z)
    torch.testing.assert_close(x[0, 1:4], H[0, 0])
    torch.testing.assert_close(x[0, 5:8], H[0, 1])
    torch.testing.assert_close(x[1, 3:9], H[1].flatten(0, 1))
    assert different(model(ids, Z)[:, -1], model(ids, Z.flip(1))[:, -1])  # a film backwards is another film


@pytest.mark.parametrize("ids, shape, says", [
    ([[HUMAN, IMAGE, 9], [HUMAN, 8, 9]], (2, 1, 3, WIDTH), "ids has 0 IMAGE in row 1; it takes one for each picture, "
     "and Z has 1 a row"),
    ([[IMAGE, IMAGE, 9], [HUMAN, IMAGE, 9]], (2, 1, 3, WIDTH), "ids has 2 IMAGE in row 0; .* Z has 1 a row"),
    ([[HUMAN, IMAGE, 9]], (1, 2, 3, WIDTH), "ids has 1 IMAGE in row 0; .* Z has 2 a row"),
    ([[HUMAN, IMAGE, 9]], None, "ids has 1 IMAGE in row 0; .* Z has 0 a row"),
    ([[HUMAN, IMAGE, 9]], (2, 1, 3, WIDTH), r"Z is \[2, 1, 3, 10\]; it takes \[1, pictures, tokens, 10\]"),
    ([[HUMAN, IMAGE, 9]], (1, 1, 3, 8), r"Z is \[1, 1, 3, 8\]; it takes \[1, pictures, tokens, 10\]"),
])  # fmt: skip
def test_features_and_placeholders_that_do_not_match_are_refused(model, ids, shape, says):
    with pytest.raises(ValueError, match=says):
        model(torch.tensor(ids), shape and torch.zeros(shape))


@torch.no_grad()
def test_what_each_token_may_see(model, Z):
    """Nothing that comes later, and nothing of another row; a picture's tokens see each other only backwards too."""
    ids, plain = expand(IDS, TOKENS), model(IDS, Z)
    for token in range(TOKENS):
        other = Z.clone()
        other[0, 0, token] += 1
        changed = (model(IDS, other) - plain).abs().amax(-1) > 1e-6
        assert changed[0].int().tolist() == [int(k >= 1 + token) for k in range(ids.shape[1])]
        assert not changed[1].any()
    words = IDS.clone()
    words[1, 2] = 14  # before the picture of row 1: all that follows sees it
    changed = (model(words, Z) - plain).abs().amax(-1) > 1e-6
    assert changed[1].int().tolist() == [int(k >= 2) for k in range(ids.shape[1])] and not changed[0].any()


@torch.no_grad()
def test_a_row_that_is_filled_up_is_as_it_is_alone(model, Z):
    whole = model(torch.cat([IDS, torch.full((2, 5), PAD)], 1), Z)
    torch.testing.assert_close(whole[:, : IDS.shape[1] + TOKENS - 1], model(IDS, Z))
    alone = model(IDS[:1], Z[:1])
    torch.testing.assert_close(whole[:1, : alone.shape[1]], alone)


# ---------------------------------------------------------------------------------------------------- writing answers


def one_by_one(model, ids, Z, cut=1):
    """Logits at every place, the sequence read `cut` tokens at a time."""
    answer, x = Answer(model), model.embed(ids, Z)
    return torch.cat([model.read(part, answer) for part in x.split(cut, dim=1)], dim=1)


@pytest.mark.parametrize("cut", [1, 2, 5, 7])
@torch.no_grad()
def test_what_is_taught_is_what_is_written_at_every_place(model, Z, cut):
    torch.testing.assert_close(one_by_one(model, IDS, Z, cut), model(IDS, Z), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_films_are_read_the_same_way(model):
    ids = torch.tensor([[HUMAN, IMAGE, IMAGE, IMAGE, IMAGE, 9, 12, STOP, ASSISTANT, 7, STOP]])
    Z = numbers(1, 4, TOKENS, WIDTH)
    torch.testing.assert_close(one_by_one(model, ids, Z), model(ids, Z), rtol=1e-5, atol=1e-5)


class PositionsTwice(LLaVA):
    """The embedding has them already, and `read` adds them again: seen in published code."""

    def embed(self, ids, Z=None):
        x = super().embed(ids, Z)
        return x + sinusoid(torch.arange(x.shape[1]), self.config.text.d_model) * (x.shape[1] == 1)


class PositionsAnew(LLaVA):
    """Every part that is read begins at position 0."""

    def read(self, x, answer):
        shifted = sinusoid(torch.arange(x.shape[1]) - answer.length, self.config.text.d_model)
        here = sinusoid(torch.arange(answer.length, answer.length + x.shape[1]), self.config.text.d_model)
        first = sinusoid(torch.arange(x.shape[1]), self.config.text.d_model)
        return super().read(x - here + first if answer.length else x, answer) + 0 * shifted.sum()


class NoLastNorm(LLaVA):
    """What is written skips the norm that the teaching has at its end: seen in published code."""

    def read(self, x, answer):
        if not answer.length:
            return super().read(x, answer)
        last, self.layers[-1].norm2 = self.layers[-1].norm2, torch.nn.Identity()
        found = super().read(x, answer)
        self.layers[-1].norm2 = last
        return found


class SeesLater(LLaVA):
    """The mask of the teaching is upside down, or there is none."""

    def read(self, x, answer):
        m, known = x.shape[1], answer.length
        x = x + sinusoid(torch.arange(known, known + m), self.config.text.d_model)
        for number, layer in enumerate(self.layers):
            x = layer(x, answer.extend(number, *layer.attention.keys_values(x)), None)
        answer.length += m
        return x @ self.embedding.weight.T


class MasksFromTheStart(LLaVA):
    """The mask of what is added is that of a sequence's beginning: the new token sees the first ones alone."""

    def read(self, x, answer):
        m, known = x.shape[1], answer.length
        x = x + sinusoid(torch.arange(known, known + m), self.config.text.d_model)
        for number, layer in enumerate(self.layers):
            own = answer.extend(number, *layer.attention.keys_values(x))
            x = layer(x, own, causal_mask(known + m)[:m])
        answer.length += m
        return x @ self.embedding.weight.T


@pytest.mark.parametrize("wrong", [PositionsTwice, PositionsAnew, NoLastNorm, SeesLater, MasksFromTheStart])
@torch.no_grad()
def test_models_that_write_otherwise_than_they_learn_are_told(model, Z, wrong):
    slip = wrong(model.config).eval()
    slip.load_state_dict(model.state_dict())
    answer = Answer(slip)
    logits = [slip.read(slip.embed(IDS[:, :7], Z), answer)]
    logits += [slip.read(slip.embed(IDS[:, k : k + 1]), answer) for k in range(7, IDS.shape[1])]
    assert different(torch.cat(logits, 1), slip(IDS, Z), 1e-2)
    right = Answer(model)
    logits = [model.read(model.embed(IDS[:, :7], Z), right)]
    logits += [model.read(model.embed(IDS[:, k : k + 1]), right) for k in range(7, IDS.shape[1])]
    torch.testing.assert_close(torch.cat(logits, 1), model(IDS, Z), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_layer_is_chapter_02s_decoder_layer_that_hears_nothing_of_a_source():
    ours, theirs = randomised(Layer(TEXT)), randomised(DecoderLayer(TEXT), 1)
    for name in ("attention", "norm1", "ffn"):
        getattr(theirs, name).load_state_dict(getattr(ours, name).state_dict())
    theirs.norm3.load_state_dict(ours.norm2.state_dict())
    theirs.cross.W_O.weight.zero_()
    for norm in (ours.norm1, theirs.norm1):  # of what a plain norm has made a second one makes the same
        norm.reset_parameters()
    theirs.norm2.reset_parameters()
    x, memory = numbers(2, 5, TEXT.d_model), numbers(2, 4, TEXT.d_model, seed=1)
    own = ours.attention.keys_values(x)
    want = theirs(x, own, theirs.cross.keys_values(memory), causal_mask(5), None)
    torch.testing.assert_close(ours(x, own, causal_mask(5)), want, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_the_likeliest_words_are_written_and_nothing_that_is_no_word(model, Z):
    ids = torch.tensor([[HUMAN, IMAGE, 9, 17, STOP, ASSISTANT], [HUMAN, 11, 9, IMAGE, STOP, ASSISTANT]])
    said = model.answers(ids, Z, 6)
    for row in range(2):
        so_far = ids[row : row + 1]
        for k in range(6):
            logits = model(so_far, Z[row : row + 1])[0, -1]
            logits[[PAD, IMAGE, HUMAN, ASSISTANT]] = -math.inf
            if (word := int(logits.argmax())) == STOP:
                assert len(said[row]) == k
                break
            assert said[row][k] == word
            so_far = torch.cat([so_far, torch.tensor([[word]])], 1)
    log_p = model.begin(ids[:, :-1], Z).next(ids[:, -1])
    assert torch.isinf(log_p[:, [PAD, IMAGE, HUMAN, ASSISTANT]]).all() and torch.isfinite(log_p[:, STOP:HUMAN]).all()


@torch.no_grad()
def test_an_answer_ends_at_its_stop(model, Z):
    model.layers[-1].norm2.weight.zero_()
    model.layers[-1].norm2.bias.copy_(model.embedding.weight[STOP] * 10)  # STOP is the likeliest everywhere
    assert model.answers(IDS[:, :6] * 0 + torch.tensor([HUMAN, IMAGE, 9, 8, STOP, ASSISTANT]), Z, 6) == [[], []]


@torch.no_grad()
def test_the_next_word_costs_as_much_as_one_token(model):
    """From the cache: the products for one token. Anew: for all tokens so far."""
    ids, Z = torch.tensor([[HUMAN, *[IMAGE] * 4, 9, STOP, ASSISTANT]]), numbers(1, 4, 16, WIDTH)
    answer = model.begin(ids, Z)
    with FlopCounterMode(display=False) as cached:
        answer.next(torch.tensor([9]))
    with FlopCounterMode(display=False) as anew:
        model(torch.cat([ids, torch.tensor([[9]])], 1), Z)
    tokens = 8 + 4 * 15 + 1
    assert anew.get_total_flops() > 0.9 * tokens * cached.get_total_flops()


# ------------------------------------------------------------------------------------------------------ what is learnt


def test_the_answers_and_their_stops_are_learnt_and_nothing_else():
    ids = expand(torch.cat([IDS, torch.tensor([[PAD, PAD], [STOP, PAD]])], 1), TOKENS)
    learnt = [[int(id) for id in row[mask]] for row, mask in zip(ids, is_answer(ids), strict=True)]
    assert learnt == [[21, 12, STOP, 7, STOP], [28, STOP, 25, STOP]]
    text = torch.tensor([[9, 8, STOP, HUMAN, 7, STOP, ASSISTANT, 5, STOP, PAD]])  # what stands before a role is none's
    assert is_answer(text).int().tolist() == [[0, 0, 0, 0, 0, 0, 0, 1, 1, 0]]


@torch.no_grad()
def test_the_loss_is_minus_the_logarithm_of_equation_3(model, Z):
    """The product of the probabilities of an answer's tokens, each given the picture and all before it."""
    ids = IDS[:1, :9]
    answer, product = model.begin(ids[:, :5], Z[:1]), []
    for k in range(5, 8):
        log_p = model.read(model.embed(ids[:, k : k + 1]), answer)[0, 0].log_softmax(-1)
        product.append(log_p[ids[0, k + 1]])
    loss = answer_loss(model(ids, Z[:1]), expand(ids, TOKENS))
    torch.testing.assert_close(loss, -torch.stack(product).sum() / 3)


def test_only_the_logits_before_an_answers_tokens_get_a_gradient(model, Z):
    whole = torch.cat([IDS, torch.full((2, 3), PAD)], 1)
    ids = expand(whole, TOKENS)
    logits = model(whole, Z).detach().requires_grad_()
    answer_loss(logits, ids).backward()
    moved = logits.grad.abs().sum(-1) > 0
    assert torch.equal(moved[:, :-1], is_answer(ids)[:, 1:]) and not moved[:, -1].any()
    with pytest.raises(ValueError, match=r"ids is \[2, 18\]; it takes the shape \[2, 20\] of the logits"):
        answer_loss(logits, whole)


def test_each_answers_token_counts_alike(model, Z):
    """The mean over all tokens of a batch, not over rows."""
    ids = expand(IDS, TOKENS)
    logits = model(IDS, Z)
    each = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    mask = is_answer(ids)[:, 1:]
    torch.testing.assert_close(answer_loss(logits, ids), each[mask].sum() / 8)


def test_stage_1_moves_w_through_a_language_model_that_stays(model, Z):
    stage_1(model)
    answer_loss(model(IDS, Z), expand(IDS, TOKENS)).backward()
    got = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert got == {"W.weight", "W.bias"}
    stage_2(model)
    answer_loss(model(IDS, Z), expand(IDS, TOKENS)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_equation_2_a_picture_stands_before_or_behind_the_first_question_and_nowhere_else():
    turns = [([9, 8], [7]), ([11], [12, 13])]
    tail = [STOP, ASSISTANT, 7, STOP, HUMAN, 11, STOP, ASSISTANT, 12, 13, STOP]
    assert template(turns) == [HUMAN, IMAGE, 9, 8, *tail]
    assert template(turns, first=False) == [HUMAN, 9, 8, IMAGE, *tail]
    assert template(turns, pictures=4)[:6] == [HUMAN, IMAGE, IMAGE, IMAGE, IMAGE, 9]
    assert template(turns, pictures=0) == [HUMAN, 9, 8, *tail]
    assert template([([9], None)]) == [HUMAN, IMAGE, 9, STOP, ASSISTANT]
    assert template([*turns[:1], ([11], None)])[-4:] == [HUMAN, 11, STOP, ASSISTANT]


@torch.no_grad()
def test_at_the_start_words_have_variance_one():
    torch.manual_seed(0)
    model = LLaVA(LLaVAConfig.small(500))
    assert float(model.embed(torch.arange(5, 500)[None]).var()) == pytest.approx(1, rel=0.05)
    assert sum(p.numel() for p in model.W.parameters()) == 264 * 128 + 128


# ------------------------------------------------------------------------------------------------------- an assistant


WORDS = ("<pad>", "<image>", "<stop>", "<human>", "<assistant>", "what", "moves", "first", "red", "circle")


@pytest.fixture
def assistant(resnet):
    text = TransformerConfig(vocabulary=10, N=2, d_model=24, d_ff=32, h=3, d_k=8, d_v=8, P_drop=0.0)
    return Assistant(randomised(LLaVA(LLaVAConfig(text, 72)), seed=10), resnet, WORDS)  # whose answers are not all one


def test_questions_of_many_lengths_are_answered_as_each_would_be_alone(assistant):
    Z = assistant.see(numbers(5, 1, 3, 32, 32))
    assert Z.shape == (5, 1, 16, 72)
    questions = ["What moves first?", "What moves?", "What, red circle", "first", "What moves?"]
    together = assistant.answers(Z, questions, chunk=1)
    assert together == assistant.answers(Z, questions) == [
        assistant.answers(Z[k : k + 1], questions[k : k + 1])[0] for k in range(5)
    ]
    assert assistant.answers(Z, questions, first=False) != together and len(set(together)) > 1
    order = [3, 1, 4, 0, 2]
    assert assistant.answers(Z[order], [questions[k] for k in order]) == [together[k] for k in order]


def test_a_picture_and_a_film_are_asked_by_calling(assistant):
    film = numbers(8, 3, 32, 32)
    assert assistant(film[0], "What moves?") == assistant.answers(assistant.see(film[:1])[None], ["What moves?"])[0]
    Z = assistant.see(film[[0, 2, 4, 6]])[None]
    assert assistant(film, "What moves?") == assistant.answers(Z, ["What moves?"])[0]
    with pytest.raises(ValueError, match="questions are 2; it takes one for each row of Z, which has 1"):
        assistant.answers(Z, ["What moves?", "first"])
    with pytest.raises(ValueError, match="text has the word 'blue', which this model has not learnt"):
        assistant(film, "What moves blue?")
