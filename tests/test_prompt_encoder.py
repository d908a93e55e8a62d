"""Chapter 04's text tower as chapters 06 and 16 read prompts with it: ends set, padding unread, the null prompt."""

import pytest
import torch

from soralab.clip import PromptEncoder

END = 29


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    encoder = PromptEncoder(vocabulary=30, width=16, words=12)
    with torch.no_grad():  # drawn large, so that what should differ does
        encoder.token_embedding.weight.normal_()
        encoder.positional_embedding.normal_()
    return encoder.eval()


def test_it_is_the_text_tower_with_the_end_set_behind_the_words(encoder):
    tokens, mask, whole = encoder(torch.tensor([[5, 9, 3, 0, 0], [7, 7, 2, 4, 8]]))
    for row, ids in enumerate(([5, 9, 3, END], [7, 7, 2, 4, 8, END])):
        states, feature = super(PromptEncoder, encoder).forward(torch.tensor([ids]))
        torch.testing.assert_close(tokens[row, : len(ids)], states[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(whole[row], feature[0], rtol=1e-5, atol=1e-6)
        assert mask[row].tolist() == [k < len(ids) for k in range(6)]


def test_padding_does_not_change_the_answer(encoder):
    ids = torch.tensor([[5, 9, 3, 7]])
    tokens, mask, whole = encoder(ids)
    padded, padded_mask, padded_whole = encoder(torch.cat([ids, torch.zeros(1, 8, dtype=torch.long)], dim=1))
    assert padded_mask.tolist() == [[True] * 5 + [False] * 8] and mask.tolist() == [[True] * 5]
    torch.testing.assert_close(padded[:, :5], tokens, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(padded_whole, whole, rtol=1e-5, atol=1e-6)


def test_the_end_has_read_the_whole_prompt_and_its_order(encoder):
    whole = [encoder(torch.tensor([ids]))[2] for ids in ([5, 9, 3], [9, 5, 3], [5, 9, 4], [6, 9, 3])]
    for other in whole[1:]:
        assert (other - whole[0]).abs().max() > 1e-3


def test_the_null_prompt_is_its_end_alone(encoder):
    short, mask, whole = encoder(torch.zeros(1, 1, dtype=torch.long))
    assert mask.tolist() == [[True, False]]
    for words in (0, 12):
        other = encoder(torch.zeros(1, words, dtype=torch.long))
        torch.testing.assert_close(other[0][:, 0], short[:, 0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(other[2], whole, rtol=1e-5, atol=1e-6)
    assert (encoder(torch.tensor([[5]]))[2] - whole).abs().max() > 1e-3


def test_prompts_of_one_batch_do_not_see_each_other(encoder):
    ids = torch.tensor([[5, 9, 3, 7], [2, 0, 0, 0]])
    torch.testing.assert_close(encoder(ids)[0][1:, :2], encoder(ids[1:])[0][:, :2], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(encoder(ids)[2][1:], encoder(ids[1:])[2], rtol=1e-5, atol=1e-6)


def test_all_its_weights_learn(encoder):
    encoder.zero_grad()
    tokens, mask, whole = encoder(torch.tensor([[5, 9, 3, 7], [2, 0, 0, 0]]))
    (tokens[mask].square().sum() + whole.square().sum() + whole.sum()).backward()
    assert all(p.grad.abs().sum() > 0 for p in encoder.parameters())


@pytest.mark.parametrize("shape", [(2, 13), (3,)])
def test_prompts_that_are_too_long_are_named(encoder, shape):
    with pytest.raises(ValueError, match=r"ids are \[.*\]; it takes \[batch, words\], at most 12 words"):
        encoder(torch.ones(shape, dtype=torch.long))
