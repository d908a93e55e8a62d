"""Chapter 02: translations written word by word, greedily and by beam search."""

import inspect
import itertools

import pytest
import torch
from tiny_transformer import some_ids, tiny

from soralab.blocks import search
from soralab.transformer import END, PAD, START, beam_search


@pytest.fixture(scope="module")
def model():
    return tiny()


@torch.no_grad()
@pytest.mark.parametrize("cuts", [(1, 1, 1, 1, 1, 1), (3, 3), (1, 4, 1)])
def test_written_piece_by_piece_is_written_at_once(model, cuts):
    """With the kept keys and values, and without."""
    source, target = some_ids(2, 5), some_ids(2, 6, seed=1)
    source[0, 4] = PAD
    writing, parts = model.begin(source), []
    for piece in target.split(cuts, dim=1):
        parts.append(model.decode(piece, writing))
    torch.testing.assert_close(torch.cat(parts, dim=1), model(source, target), rtol=1e-5, atol=1e-5)


def log_probability(model, source, ids):
    """log P of one sentence and its END, by one forward pass without any cache."""
    with torch.no_grad():
        log_p = model(source, torch.tensor([[START, *ids]])).log_softmax(-1)[0]
    return sum(log_p[k, word].item() for k, word in enumerate([*ids, END]))


@torch.no_grad()
def greedy(model, source, max_length):
    return search.greedy(model.begin(source), torch.full((len(source),), START), END, max_length)


def test_a_beam_of_one_is_greedy():
    lengths = set()
    for seed in range(4):
        model, source = tiny(seed), some_ids(6, 5, seed)
        end = model.embedding.weight.data[END]
        model.decoder[-1].norm3.bias.data = 1.5 * end / end.norm()  # so that some sentences end early
        found = [one.ids for one in beam_search(model, source, beam=1, max_length=7)]
        assert found == greedy(model, source, 7)
        lengths |= {len(ids) for ids in found}
    assert len(lengths) > 2


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_as_wide_as_the_tree_finds_the_best_of_all(alpha, seed):
    """Words 3 and 4, at most three of them: 1 + 2 + 4 + 8 sentences, each scored by itself."""
    model, source = tiny(seed, vocabulary=5), some_ids(1, 4, seed, vocabulary=5)
    scores = {}
    for length in range(4):
        for ids in itertools.product((3, 4), repeat=length):
            penalty = ((5 + length + 1) / 6) ** alpha
            scores[ids] = log_probability(model, source, ids) / penalty
    best = max(scores, key=scores.get)
    found = beam_search(model, source, beam=5**3, alpha=alpha, max_length=3)[0]
    assert tuple(found.ids) == best
    assert found.score == pytest.approx(scores[best], rel=1e-4)


class Sure:
    """A writer as label smoothing makes them: nine tenths for its sentence's next word, the rest for all nearly alike,
    the end a little likelier than others."""

    def __init__(self, sentence, vocabulary):
        self.sentence, self.vocabulary, self.place = [*sentence, END], vocabulary, 0

    def next(self, words):
        p = torch.full((len(words), self.vocabulary), 0.1 / self.vocabulary)
        p[:, END] += 0.001
        p[:, self.sentence[min(self.place, len(self.sentence) - 1)]] += 0.9
        self.place += 1
        return p.log()

    def select(self, rows):
        pass


@pytest.mark.parametrize("beam", [1, 2, 4, 7])
def test_unlikely_sentences_that_end_early_do_not_end_the_search(beam):
    """As many as the beam is wide have ended before the right sentence does, and must not hide it."""
    sentence = [5, 3, 4, 6, 3, 5, 4, 8]
    found = search.beam_search(Sure(sentence, 12), torch.tensor([START]), END, max_length=20, beam=beam)
    assert list(found[0].ids) == sentence


def test_a_longer_penalty_favours_longer_sentences():
    assert search.length_penalty(1) == 1
    assert search.length_penalty(7, alpha=1.0) == 2
    assert search.length_penalty(7, alpha=0.6) == pytest.approx(2**0.6)
    model, source = tiny(1), some_ids(8, 5)
    model.embedding.weight.data[END] *= 2
    lengths = [sum(len(one.ids) for one in beam_search(model, source, 4, alpha, 12)) for alpha in (-2.0, 3.0)]
    assert lengths[0] < lengths[1]


@torch.no_grad()
def test_rows_that_change_places_take_their_words_with_them(model):
    """A beam search moves its rows at nearly every step; keys left behind would be another sentence's."""
    source, target, last = some_ids(1, 5).repeat(3, 1), some_ids(3, 4, seed=2), some_ids(3, 1, seed=3)
    rows = torch.tensor([2, 0, 0])
    writing = model.begin(source)
    model.decode(target, writing)
    writing.select(rows)
    expected = model(source, torch.cat([target[rows], last], dim=1))[:, -1:]
    torch.testing.assert_close(model.decode(last, writing), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beam", [2, 4])
def test_a_beams_score_is_the_sentences_own(beam):
    model, source = tiny(2), some_ids(3, 5)
    for row, found in zip(source, beam_search(model, source, beam, max_length=9), strict=True):
        expected = log_probability(model, row[None], found.ids) / search.length_penalty(len(found.ids) + 1)
        assert found.score == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("max_length", [0, 1, 4])
def test_no_sentence_is_longer_than_allowed(model, max_length):
    source = some_ids(4, 5)
    assert max(len(one.ids) for one in beam_search(model, source, 3, max_length=max_length)) <= max_length
    assert max(len(ids) for ids in greedy(model, source, max_length)) <= max_length


@pytest.mark.parametrize("loud", [PAD, START])
def test_padding_and_start_are_never_written(loud):
    """Each by itself: a model that says nothing louder. Of all else, END too, log P is what the model says."""
    model, source = tiny(3), some_ids(8, 4)
    end = model.embedding.weight.data[loud].clone()
    model.decoder[-1].norm3.bias.data = 9 * end / end.norm()
    words = torch.full((8,), START)
    with torch.no_grad():
        log_p = model.begin(source).next(words)
        free = model(source, words[:, None])[:, 0].log_softmax(-1)
    assert (free.argmax(-1) == loud).all()
    assert (log_p[:, [PAD, START]] == -torch.inf).all()
    torch.testing.assert_close(log_p[:, END:], free[:, END:])
    written = {word for one in beam_search(model, source, max_length=6) for word in one.ids}
    written |= {word for ids in greedy(model, source, 6) for word in ids}
    assert written and not written & {PAD, START, END}


class Script:
    """A writer that says what is written down for it, row by row, and counts how often it is asked."""

    def __init__(self, rows, vocabulary=9):
        self.rows, self.vocabulary, self.asked, self.seen = rows, vocabulary, 0, []

    def next(self, words):
        log_p = torch.full((len(words), self.vocabulary), -torch.inf)
        for row, script in enumerate(self.rows):
            log_p[row, script[min(self.asked, len(script) - 1)]] = 0.0
        self.asked += 1
        self.seen.append(words.tolist())
        return log_p


@pytest.mark.parametrize("rows, asked", [
    ([[5, END, 6, 7], [5, 6, END, 8]], 3),  # the first goes on after its end, and is closed all the same
    ([[END, 4], [END, 5]], 1),
    ([[3, 4, 5, 6, 7, 8], [3, END, 4, END, 5, 6]], 5),
])  # fmt: skip
def test_a_row_that_has_ended_stays_closed(rows, asked):
    writer = Script(rows)
    found = search.greedy(writer, torch.full((2,), START), END, max_length=5)
    assert writer.asked == asked
    assert found == [(row[: row.index(END)] if END in row else row)[:5] for row in rows]
    assert writer.seen[0] == [START, START]


def test_greedy_reads_the_words_that_it_wrote():
    writer = Script([[5, 6, END], [7, 8, END]])
    search.greedy(writer, torch.full((2,), START), END, max_length=9)
    assert writer.seen == [[START, START], [5, 7], [6, 8]]
    assert search.greedy(writer, torch.full((2,), START), END, max_length=0) == [[], []]


def test_a_translation_is_as_long_as_it_may_be_by_default():
    """n + 50 words for a source of n, section 6.1, where END is never likely."""
    model = tiny(4)
    end = model.embedding.weight.data[END]
    model.decoder[-1].norm3.bias.data = -9 * end / end.norm()
    with torch.no_grad():
        found = beam_search(model, some_ids(2, 3), beam=2)
    assert [len(one.ids) for one in found] == [53, 53]


def test_a_model_in_training_searches_without_dropout_and_goes_on_training():
    model = tiny(2, P_drop=0.5)
    source = some_ids(2, 5)
    quiet = beam_search(model.eval(), source, max_length=5)
    assert not model.training
    assert beam_search(model.train(), source, max_length=5) == quiet and model.training
    with pytest.raises(ValueError, match="beam is 0"):
        beam_search(model, source, beam=0)
    assert model.training and model.encoder[0].dropout.training


class Tree:
    """A writer for one sentence whose next word depends on the last one alone: {word: {next word: probability}}."""

    def __init__(self, tree, vocabulary=9):
        self.tree, self.vocabulary, self.asked = tree, vocabulary, 0

    def next(self, words):
        p = torch.zeros(len(words), self.vocabulary)
        for row, word in enumerate(words.tolist()):
            for after, probability in self.tree.get(word, {END: 1.0}).items():
                p[row, after] = probability
        self.asked += 1
        return p.log()

    def select(self, rows):
        pass


def test_a_sentence_that_ends_in_a_lower_row_keeps_its_own_words():
    """5 is likelier than 6 to begin with, but 6 ends at once: the winner stood second of three in the beam."""
    tree = Tree({START: {5: 0.5, 6: 0.4, 8: 0.1}, 5: {3: 0.4, 4: 0.3, 7: 0.3}, 6: {END: 1.0}})
    assert search.beam_search(tree, torch.tensor([START]), END, 9, beam=3, alpha=0.0)[0].ids == [6]


def test_the_search_ends_when_nothing_that_is_being_written_can_win():
    """All its sentences have ended at the third word; a step more would be asked in vain."""
    tree = Tree({START: {5: 0.7, 6: 0.3}, 5: {END: 1.0}, 6: {7: 1.0}, 7: {END: 1.0}})
    found = search.beam_search(tree, torch.tensor([START]), END, 50, beam=2)
    assert found[0].ids == [5] and tree.asked == 3
    sure = Sure([5, 3, 4], 12)
    assert search.beam_search(sure, torch.tensor([START]), END, 50, beam=2)[0].ids == [5, 3, 4] and sure.place == 4


class Trees(Tree):
    """A writer for several sentences, each by its own tree."""

    def __init__(self, trees, beam):
        self.trees, self.beam = trees, beam

    def next(self, words):
        rows = words.split(self.beam)
        return torch.cat([Tree(tree).next(own) for tree, own in zip(self.trees, rows, strict=True)])


def test_a_sentence_does_not_depend_on_its_neighbour_in_the_batch():
    """Its search is over when two have ended that nothing can beat, though a longer one might score higher later."""
    early = {START: {5: 0.5, END: 0.5}, 5: {END: 0.55, 6: 0.45}, 6: {7: 1.0}, 7: {8: 1.0}, 8: {END: 1.0}}
    late = {START: {3: 1.0}, 3: {4: 1.0}, 4: {5: 1.0}, 5: {6: 1.0}, 6: {7: 1.0}, 7: {END: 1.0}}

    def found(*trees):
        start = torch.full((len(trees),), START)
        return search.beam_search(Trees(trees, 2), start, END, 8, beam=2, alpha=3.0)

    assert found(early, late) == found(early) + found(late) and found(late, early) == found(late) + found(early)


def test_no_sentences_are_no_hypotheses():
    tree = Tree({})
    assert search.beam_search(tree, torch.full((0,), START), END, 5) == [] and tree.asked == 0


def test_a_writer_that_never_ends_is_named():
    start = torch.full((2,), START)
    with pytest.raises(ValueError, match=f"writer gives the end, {END}, no chance in sentence 1"):
        search.beam_search(Trees([{}, {START: {3: 1.0}, 3: {3: 1.0}}], 2), start, END, 5, beam=2)
    with pytest.raises(ValueError, match="max_length is -1; it takes a whole number from 0"):
        search.beam_search(Tree({}), start, END, -1)


def test_the_papers_beam_is_the_default():
    """Section 6.1: a beam of 4 and a penalty of 0.6."""
    for function in (search.beam_search, beam_search):
        defaults = {name: value.default for name, value in inspect.signature(function).parameters.items()}
        assert (defaults["beam"], defaults["alpha"]) == (4, 0.6)
