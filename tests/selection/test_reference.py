"""The reference set: never a row that evaluation reads, never a copy of the pool."""

import numpy as np
import pytest

from workbench.config import SelectionConfig
from workbench.core import DataError
from workbench.selection import reference_rows

CLEAN = ("shuffled", "noise")
"""Domains in which nothing is said twice."""


def settings(**fields) -> SelectionConfig:
    return SelectionConfig(**{"reference_domains": CLEAN, "reference_rows": 9, **fields})


@pytest.fixture
def text_file(nano_corpus, tmp_path):
    """Writes texts as files of a folder, one domain each; returns the folder."""

    def write(**texts: str):
        for domain, text in texts.items():
            (tmp_path / "reference" / domain).mkdir(parents=True, exist_ok=True)
            (tmp_path / "reference" / domain / "a.txt").write_text(text)
        return str(tmp_path / "reference")

    return write


def fresh_text(words: int, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    return " ".join("".join(rng.choice(list("aeioubcd"), 5)) for _ in range(words))


def test_rows_follow_those_that_evaluation_reads_spread_over_the_domains(nano_corpus):
    rows_MT = reference_rows(nano_corpus, settings(), evaluated_rows=4)
    first, second = (nano_corpus.held_out(domain) for domain in CLEAN)
    assert np.array_equal(rows_MT, np.concatenate([first[4:9], second[4:8]]))
    evaluated = {row.tobytes() for d in nano_corpus.domains for row in nano_corpus.held_out(d, 4)}
    assert not evaluated & {row.tobytes() for row in rows_MT}


def test_a_domain_with_too_few_rows_is_named_with_the_numbers(nano_corpus):
    there = nano_corpus.held_out_rows_K[nano_corpus.domains.index("shuffled")]
    with pytest.raises(DataError, match="domain 'shuffled'") as caught:
        reference_rows(nano_corpus, settings(), evaluated_rows=int(there) - 2)
    assert f"{there} held-out rows" in str(caught.value)
    assert f"reads {there - 2}; its share of the reference set is 5" in str(caught.value)
    assert "lower reference_rows" in caught.value.remedy


def test_unnamed_domains_give_what_they_have_and_it_is_told(nano_corpus):
    there = nano_corpus.held_out_rows_K
    evaluated, least = int(there.min()) - 1, int(there.argmin())
    events = []
    rows_MT = reference_rows(
        nano_corpus,
        SelectionConfig(reference_rows=24),
        evaluated_rows=evaluated,
        progress=events.append,
    )
    told = events[-1]
    assert told["short"][nano_corpus.domains[least]] == 1
    missing = sum(4 - rows for rows in told["short"].values())
    assert len(rows_MT) == 24 - missing - told["dropped"] > 0
    with pytest.raises(DataError, match="reads all held-out rows of every domain"):
        reference_rows(nano_corpus, SelectionConfig(), evaluated_rows=int(there.max()))


def test_domains_that_do_not_fit_are_refused(nano_corpus):
    with pytest.raises(DataError, match="did you mean 'noise'"):
        reference_rows(nano_corpus, settings(reference_domains=("noisy",)), 4)
    with pytest.raises(DataError, match="1 reference rows of 2 domains"):
        reference_rows(nano_corpus, settings(reference_rows=1), 4)


def test_a_reference_that_the_pool_holds_is_refused_with_its_share(nano_corpus):
    config = settings(reference_domains=("duplicated",), reference_rows=8)
    with pytest.raises(DataError, match=r"of 8 reference rows \(\d\d%\) repeat text") as caught:
        reference_rows(nano_corpus, config, evaluated_rows=4)
    assert "at most 25% may" in str(caught.value)


def test_below_the_threshold_copies_are_dropped_counted_and_told(nano_corpus):
    config = settings(reference_domains=("noise", "duplicated"), reference_rows=8)
    events = []
    rows_MT = reference_rows(
        nano_corpus, config, evaluated_rows=4, max_overlap=0.5, progress=events.append
    )
    told = events[-1]
    assert told["stage"] == "reference" and told["total"] == 8
    assert 2 <= told["dropped"] == told["in_pool"] == 8 - len(rows_MT) <= 4
    assert np.array_equal(rows_MT[:4], nano_corpus.held_out("noise", 4, first=4))
    assert {e["stage"] for e in events} > {"reference against pool", "reference against evaluation"}


def test_text_is_packed_with_the_tokenizer_of_the_corpus(nano_corpus, text_file):
    text = fresh_text(300)
    config = SelectionConfig(reference=text_file(one=text), reference_rows=5)
    rows_MT = reference_rows(nano_corpus, config, evaluated_rows=4)
    assert rows_MT.shape == (5, 33) and rows_MT.dtype == np.int64
    assert np.array_equal(rows_MT[:-1, -1], rows_MT[1:, 0]), "neighbours share a token"
    ids = np.concatenate([rows_MT[0], *rows_MT[1:, 1:]]).tolist()
    assert text.startswith(nano_corpus.tokenizer.decode(ids))


def test_a_folder_gives_rows_of_every_domain_it_has(nano_corpus, text_file):
    folder = text_file(one=fresh_text(300), two=fresh_text(300, seed=1))
    config = SelectionConfig(reference=folder, reference_rows=6)
    rows_MT = reference_rows(nano_corpus, config, evaluated_rows=4)
    own = [fresh_text(300, seed) for seed in (0, 1)]
    texts = [nano_corpus.tokenizer.decode(row.tolist()) for row in rows_MT]
    assert sorted([text in own[0] for text in texts]) == [False] * 3 + [True] * 3
    uneven = SelectionConfig(reference=folder, reference_rows=3)
    assert len(reference_rows(nano_corpus, uneven, evaluated_rows=4)) == 3
    only = SelectionConfig(reference=folder, reference_rows=6, reference_domains=("two",))
    rows_MT = reference_rows(nano_corpus, only, evaluated_rows=4)
    assert all(nano_corpus.tokenizer.decode(row.tolist()) in own[1] for row in rows_MT)


@pytest.mark.parametrize("where", ["pool", "evaluation"])
def test_text_copied_from_the_pool_or_the_evaluation_is_found_at_any_offset(
    nano_corpus, text_file, where
):
    if where == "pool":
        rows = nano_corpus.tokens(nano_corpus.pool().sample_id_N[:6])
    else:
        rows = nano_corpus.held_out("noise", 4)
    copied = nano_corpus.tokenizer.decode(rows[:, :-1].ravel().tolist())
    text = "Some other words, so that rows begin elsewhere. " + copied.replace("<|endoftext|>", " ")
    config = SelectionConfig(reference=text_file(one=text), reference_rows=4)
    with pytest.raises(DataError, match="repeat text") as caught:
        reference_rows(nano_corpus, config, evaluated_rows=4)
    nowhere = "the pool (0)" if where == "evaluation" else "the evaluation rows (0)"
    assert nowhere in str(caught.value)


def test_a_reference_that_is_no_text_or_too_short_is_refused(nano_corpus, text_file):
    config = SelectionConfig(reference="no/such/folder.txt")
    with pytest.raises(DataError, match="does not exist"):
        reference_rows(nano_corpus, config, evaluated_rows=4)
    with pytest.raises(DataError, match="'some-dataset' is not a file or folder"):
        reference_rows(nano_corpus, SelectionConfig(reference="some-dataset"), evaluated_rows=4)
    short = SelectionConfig(reference=text_file(one="Too short.", two=fresh_text(99)))
    with pytest.raises(DataError, match=r"domain 'one' .* tokens, fewer than a row of 33"):
        reference_rows(nano_corpus, short, evaluated_rows=4)
    unknown = short.replace(reference_domains=("two", "three"))
    with pytest.raises(DataError, match=r"domain 'three' of reference .* has 0 tokens"):
        reference_rows(nano_corpus, unknown, evaluated_rows=4)
