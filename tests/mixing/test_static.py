"""The static mixer: what a mixture may be given as."""

import numpy as np
import pytest

from workbench.core import MIXERS, ConfigError, MixingTask
from workbench.mixing import Static
from workbench.mixing.published import PUBLISHED

TASK = MixingTask(("code", "prose", "noise"), np.array([100, 300, 600]))


def test_uniform_gives_every_domain_the_same():
    assert Static(TASK).propose(0).probability_K.tolist() == pytest.approx([1 / 3] * 3)


def test_natural_follows_the_training_rows():
    mixture = Static(TASK, mixture="natural").propose(5)
    assert mixture.probability_K.tolist() == pytest.approx([0.1, 0.3, 0.6])


def test_given_numbers_are_scaled_and_missing_domains_get_nothing():
    mixture = Static(TASK, mixture={"prose": 3, "code": 1}).propose(0)
    assert mixture.as_dict() == pytest.approx({"code": 0.25, "prose": 0.75, "noise": 0.0})


@pytest.mark.parametrize(
    ("mixture", "says"),
    [
        ({"prosa": 1}, "did you mean 'prose'"),
        ("unifrom", "did you mean 'uniform'"),
        ({"code": -1, "prose": 2}, "non-negative"),
        ({"code": float("nan")}, "finite"),
        ({}, "at least one above 0"),
        ({"code": "x"}, "no numbers"),
        ({"code": None}, "no numbers"),
        ([0.5, 0.5], "is no mixture"),
        (0.5, "is no mixture"),
    ],
)
def test_an_impossible_mixture_is_refused_with_a_remedy(mixture, says):
    with pytest.raises(ConfigError, match=says):
        MIXERS.build("static", TASK, mixture=mixture)


SLIMPAJAMA = (
    "RedPajamaC4",
    "RedPajamaCommonCrawl",
    "RedPajamaGithub",
    "RedPajamaStackExchange",
    "RedPajamaWikipedia",
    "RedPajamaBook",
    "RedPajamaArXiv",
)


@pytest.mark.parametrize(
    ("name", "arxiv", "cc"),
    [("slimpajama-doge", 0.088, 0.269), ("slimpajama-doremi", 0.04235, 0.381)],
)
def test_published_vectors_follow_the_domains_of_the_corpus(name, arxiv, cc):
    task = MixingTask(SLIMPAJAMA, np.full(7, 100))
    shares = Static(task, mixture=name).propose(0).as_dict()
    assert shares["RedPajamaArXiv"] == pytest.approx(arxiv, abs=1e-4)
    assert shares["RedPajamaCommonCrawl"] == pytest.approx(cc, abs=1e-4)
    assert sum(shares.values()) == pytest.approx(1)


PILE = (
    *("Pile-CC", "PubMed Central", "Books3", "OpenWebText2", "ArXiv", "Github", "FreeLaw"),
    *("StackExchange", "USPTO Backgrounds", "PubMed Abstracts", "Gutenberg (PG-19)"),
    *("OpenSubtitles", "Wikipedia (en)", "DM Mathematics", "Ubuntu IRC", "BookCorpus2"),
    *("EuroParl", "HackerNews", "YoutubeSubtitles", "PhilPapers", "NIH ExPorter"),
    "Enron Emails",
)
"""As the corpus' own files call them, by falling weight."""


def test_the_weights_of_the_pile_are_those_of_the_experiments():
    assert len(PILE) == len(PUBLISHED["pile"]) == 22
    assert sum(PUBLISHED["pile"].values()) == pytest.approx(1, abs=1e-3)
    mixture = Static(MixingTask(PILE, np.full(22, 100)), mixture="pile").propose(0)
    assert (np.diff(mixture.probability_K) < 0).all()
    assert mixture.as_dict()["Pile-CC"] == pytest.approx(0.1811, abs=1e-4)
    assert mixture.as_dict()["Enron Emails"] == pytest.approx(0.0014, abs=1e-4)


def test_a_published_vector_for_other_domains_is_refused():
    with pytest.raises(ConfigError, match="does not fit this corpus"):
        Static(TASK, mixture="slimpajama-doge")


def test_stages_follow_each_other_by_step():
    stages = {"0": "uniform", "5": {"code": 1}, "9": "natural"}
    mixer = Static(TASK, stages=stages, floor=0.3)
    assert mixer.propose(4).probability_K.tolist() == pytest.approx([1 / 3] * 3)
    assert mixer.propose(5).as_dict()["code"] == pytest.approx(0.7 + 0.1)
    assert mixer.propose(100).as_dict()["noise"] == pytest.approx(0.7 * 0.6 + 0.1)


@pytest.mark.parametrize(
    "stages",
    [
        {},
        {5: "uniform"},
        {"first": "uniform"},
        {-1: "natural", 0: "natural"},
        {0: "uniform", 5.5: "natural"},
        {0: "uniform", "5.5": "natural"},
        {0: "uniform", "0": "natural"},
    ],
)
def test_stages_that_leave_steps_open_are_refused(stages):
    with pytest.raises(ConfigError, match="stages start at"):
        Static(TASK, stages=stages)


def test_stages_are_a_mapping_and_take_the_place_of_the_mixture():
    with pytest.raises(ConfigError, match="no mapping"):
        MIXERS.build("static", TASK, stages=["uniform"])
    with pytest.raises(ConfigError, match="both mixture and stages"):
        MIXERS.build("static", TASK, mixture="natural", stages={0: "uniform"})


def test_no_mixture_is_the_uniform_one_without_a_floor():
    assert Static(TASK, mixture=None).propose(0).as_dict() == Static(TASK).propose(0).as_dict()
    assert Static(TASK, mixture={"code": 1}).propose(0).as_dict()["noise"] == 0


def test_a_mixture_is_read_from_its_file(tmp_path):
    file = tmp_path / "mixture.json"
    file.write_text('{"mixture": {"code": 0.25, "prose": 0.75}}')
    assert Static(TASK, mixture=str(file)).propose(0).probability_K.tolist() == [0.25, 0.75, 0]
    file.write_text('{"other": 1}')
    with pytest.raises(ConfigError, match="cannot read a mixture"):
        Static(TASK, mixture=str(file))
    with pytest.raises(ConfigError, match="cannot read a mixture"):
        Static(TASK, mixture=str(tmp_path / "none.json"))
