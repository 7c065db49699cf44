"""Quad and top_influence with a made-up judge; only the last tests need a model."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from workbench.core import SELECTORS, ConfigError, DataError, PolicyError, Pool, Selector
from workbench.selection import OFFICIAL
from workbench.selection.gate import Controls
from workbench.selection.judging import Judge
from workbench.selection.quad import Quad
from workbench.selection.top_influence import TopInfluence

LEVEL = {0: 1.0, 1: 5.0, 2: 0.0, 3: 4.0}
"""Mean score of each topic: beta and delta are worth having."""
EMBEDDER = {"name": "tfidf", "width": 8, "features": 4096}
SMALL = {
    "clusters": 4,
    "embedder": EMBEDDER,
    "deduplicate": False,
    "arms_per_round": 2,
    "chunk_rows": 4,
}


class MadeUp:
    """A judge whose scores depend on a row's topic, and who remembers what was asked."""

    def __init__(self, *, noise=-1.0, shuffled=-1.0, level=LEVEL):
        self.noise, self.shuffled, self.level = noise, shuffled, level
        self.asked: list[int] = []

    def __call__(self, task, pool, model, settings):
        def score(sample_id_n):
            self.asked += sample_id_n.tolist()
            return np.array([self.score_of(i) for i in sample_id_n.tolist()], dtype=np.float32)

        drawn = np.random.default_rng(0).permutation(pool.sample_id_N)[:32].tolist()
        controls = Controls(
            np.array([self.score_of(i) for i in drawn]),
            {"noise": np.full(8, self.noise), "shuffled": np.full(8, self.shuffled)},
        )
        return Judge(score, lambda: controls, {"preconditioner": "made up"})

    def score_of(self, sample_id):
        return self.level[sample_id >> 40] + np.random.default_rng(sample_id).normal(0, 0.3)


def quad(source, judge=None, **options):
    return Quad(source.task(seed=1), judge or MadeUp(), **{**SMALL, **options})


def through_a_checkpoint(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def without(pool: Pool, ids: np.ndarray) -> Pool:
    left = ~np.isin(pool.sample_id_N, ids)
    return Pool(pool.sample_id_N[left], pool.domain_N[left], pool.tokens_N[left])


def test_the_best_topics_are_chosen_and_the_budget_is_kept(topics):
    selector, pool = quad(topics), topics.pool()
    assert isinstance(selector, Selector)
    selection = selector.select(pool, 50 * 16 + 7, None)
    assert len(selection) == 50
    topic_n = selection.sample_id_N >> 40
    assert set(topic_n.tolist()) == {1, 3}
    assert all("passes" in reason for reason in selection.reason_N)
    diagnostics = selector.diagnostics()
    assert (
        diagnostics["accepted_tokens"] == 800 and diagnostics["stopped"] == "the budget is filled"
    )
    json.dumps(diagnostics)


def test_most_rows_are_never_scored(topics):
    judge = MadeUp()
    quad(topics, judge).select(topics.pool(), 40 * 16, None)
    assert len(set(judge.asked)) == len(judge.asked) <= 60


@pytest.mark.parametrize("variant", ["robust", "paper"])
def test_tables_agree_with_the_selection(topics, variant):
    selector, pool = quad(topics, variant=variant), topics.pool()
    selection = selector.select(pool, 40 * 16, None)
    tables = selector.tables()
    samples, arms, pulls = tables["samples"], tables["arms"], tables["pulls"]
    assert samples["sample_id"][samples["accepted"]].tolist() == sorted(
        selection.sample_id_N.tolist()
    )
    assert arms["accepted"].sum() == 40 and arms["rows"].sum() == len(pool)
    assert (
        arms["scored"].sum() == len(pulls["sample_id"]) == np.isfinite(samples["influence"]).sum()
    )
    assert (np.bincount(pulls["cluster"], minlength=4) == arms["scored"]).all()
    assert (np.diff(pulls["round"]) >= 0).all()
    for name in ("x", "y"):
        assert samples[name].shape == (len(pool),)
    for table in tables.values():
        assert len({len(column) for column in table.values()}) == 1
    by_id = dict(zip(samples["sample_id"].tolist(), samples["influence"].tolist(), strict=True))
    expected = [by_id[i] for i in selection.sample_id_N.tolist()]
    np.testing.assert_array_equal(selection.influence_N, np.array(expected, dtype=np.float32))
    assert (arms["low"] <= arms["mean"]).all() and (arms["mean"] <= arms["high"]).all()


def test_one_row_of_a_near_duplicate_group_is_accepted(topics):
    source = type(topics)(copies=40)
    copied = MadeUp(level={**LEVEL, 0: 50.0})
    kept = quad(source, copied, deduplicate=True).select(source.pool(), 70 * 16, None)
    texts = [source.texts[i] for i in kept.sample_id_N.tolist()]
    assert len(set(texts)) == len(texts)
    all_rows = quad(source, copied).select(source.pool(), 70 * 16, None)
    texts = [source.texts[i] for i in all_rows.sample_id_N.tolist()]
    assert len(set(texts)) < 50


def test_every_stage_is_told_and_every_round_with_its_clusters(topics):
    told = []
    task = replace(topics.task(seed=1), progress=told.append)
    selector = Quad(task, MadeUp(), **{**SMALL, "deduplicate": True})
    selector.select(topics.pool(), 40 * 16, None)
    stages = {event["stage"] for event in told}
    assert {"embedding", "clustering", "near-duplicates", "trust", "pull"} <= stages
    pulls = [event for event in told if event["stage"] == "pull"]
    assert [event["round"] for event in pulls] == list(range(selector.diagnostics()["rounds"]))
    assert pulls[-1]["accepted_tokens"] == 640
    json.dumps(told)


def test_controls_that_pass_are_refused_with_the_reason_and_nothing_is_remembered(topics):
    selector = quad(topics, MadeUp(noise=9.0))
    before = selector.state_dict()["choices"]
    with pytest.raises(
        PolicyError, match=r"noise scores 9 and would be accepted.*earlier"
    ) as error:
        selector.select(topics.pool(), 40 * 16, None)
    assert "trust='warn'" in error.value.remedy
    assert selector.state_dict()["choices"] == before
    assert "arms" not in selector.tables() and selector.diagnostics() == {}


def test_a_selection_told_to_go_on_says_so_in_its_manifest(topics):
    selector = quad(topics, MadeUp(noise=9.0), trust="warn")
    selection = selector.select(topics.pool(), 40 * 16, None)
    assert len(selection) == 40
    assert all("not to be trusted: noise scores" in reason for reason in selection.reason_N)
    gate = selector.diagnostics()["gate"]
    assert gate["trust"] == "warn" and gate["controls"]["noise"] == 9 and "noise" in gate["failed"]
    json.dumps(gate, allow_nan=False)


def test_controls_are_not_scored_when_nobody_asks(topics):
    selector = quad(topics, MadeUp(noise=9.0), trust="off")
    selection = selector.select(topics.pool(), 40 * 16, None)
    assert not any("trusted" in reason for reason in selection.reason_N)
    assert selector.diagnostics()["gate"]["controls"] == {}


def test_the_same_seed_chooses_the_same_rows(topics):
    first, second = (quad(topics).select(topics.pool(), 640, None) for _ in range(2))
    assert first.sample_id_N.tolist() == second.sample_id_N.tolist()
    other = Quad(topics.task(seed=2), MadeUp(), **SMALL).select(topics.pool(), 640, None)
    assert first.sample_id_N.tolist() != other.sample_id_N.tolist()


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_a_later_choice_from_what_is_left_resumes_to_the_bit(topics, memory):
    pool = topics.pool()
    straight, resumed = (quad(topics, memory=memory) for _ in range(2))
    first = straight.select(pool, 30 * 16, None)
    left = without(pool, first.sample_id_N)
    resumed.load_state_dict(through_a_checkpoint(straight.state_dict()))
    asked = topics.asked_texts
    ours, theirs = straight.select(left, 320, None), resumed.select(left, 320, None)
    assert topics.asked_texts == asked, "rows were embedded again"
    assert not set(ours.sample_id_N.tolist()) & set(first.sample_id_N.tolist())
    assert ours.sample_id_N.tolist() == theirs.sample_id_N.tolist()
    assert list(ours.reason_N) == list(theirs.reason_N)
    for name, column in straight.tables()["arms"].items():
        assert column.tobytes() == resumed.tables()["arms"][name].tobytes()


def test_another_model_is_asked_again(topics):
    selector, pool = quad(topics), topics.pool()
    first = selector.select(pool, 16 * 16, None)
    selector._make_judge = MadeUp(level={0: 9.0, 1: 0.0, 2: 1.0, 3: 0.0})
    second = selector.select(without(pool, first.sample_id_N), 16 * 16, None)
    assert (second.sample_id_N >> 40 == 0).mean() > 0.9


def test_the_constants_of_the_published_code_are_options(topics):
    options = {**SMALL, **OFFICIAL, "clusters": 4}
    selection = Quad(topics.task(), MadeUp(), **options).select(topics.pool(), 320, None)
    assert len(selection) == 20
    SELECTORS.check("quad", OFFICIAL)


@pytest.mark.parametrize("make", [quad, lambda s: TopInfluence(s.task(), MadeUp())])
def test_what_cannot_be_chosen_is_refused(topics, make):
    pool = topics.pool()
    with pytest.raises(PolicyError, match="budget of 9999 tokens"):
        make(topics).select(pool, 9999, None)
    with pytest.raises(PolicyError, match=r"budget of 15 tokens .* rows of 16 or more"):
        make(topics).select(pool, 15, None)
    with pytest.raises(PolicyError, match="in 0 rows"):
        make(topics).select(without(pool, pool.sample_id_N), 10, None)
    selector = make(topics)
    selector.task = replace(selector.task, reference_MT=np.empty((0, 17), dtype=np.int64))
    with pytest.raises(DataError, match="reference set has no rows"):
        selector.select(pool, 100, None)


def test_more_clusters_than_rows_and_broken_scores_are_refused(topics):
    with pytest.raises(DataError, match="1000 clusters of 120 rows"):
        quad(topics, clusters=1000).select(topics.pool(), 100, None)
    broken = MadeUp(level={**LEVEL, 2: np.nan})
    with pytest.raises(PolicyError, match="influence score is not finite"):
        quad(topics, broken).select(topics.pool(), 100, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trust": "maybe"}, "trust = 'maybe'"),
        ({"memory": 2}, "memory = 2"),
        ({"variant": "official"}, "variant = 'official'"),
        ({"preconditioner": "ekfacs"}, "unknown preconditioner 'ekfacs'"),
        ({"factor_rows": 0}, "factor_rows = 0"),
        ({"chunk_rows": 0}, "chunk_rows = 0"),
        ({"breadth": 0.5}, "breadth = 0.5"),
        ({"scored_share": -1}, "scored_share = -1"),
        ({"neighbour_distance": 0}, "neighbour_distance = 0"),
        ({"way": "gost"}, "unknown way to score 'gost'"),
        ({"way": "difference"}, "way = 'difference' needs relative_step"),
        ({"relative_step": 0}, "relative_step = 0"),
        ({"damping": -1}, "damping = -1"),
        ({"damping": "much"}, "damping = 'much'"),
        ({"limit_mib": 0}, "limit_mib = 0"),
        ({"names": "layers.0"}, "names = 'layers.0'"),
        ({"embedder": "bert"}, "unknown embedder 'bert'"),
        ({"embedder": {"width": 8}}, "embedder = {'width': 8}"),
        ({"embedder": {"name": "tfidf", "wide": 8}}, "unknown option of embedder 'wide'"),
        ({"embedder": 5}, "embedder = 5"),
        ({"projection": "tsne"}, "unknown projection 'tsne'"),
        ({"backend": "kmeans"}, "unknown clustering backend 'kmeans'"),
        ({"clusters": 0}, "clusters = 0"),
        ({"clusters": "many"}, "clusters = 'many'"),
        ({"samples_per_pull": 2.5}, "samples_per_pull = 2.5"),
        ({"alpha": True}, "alpha = True"),
        ({"tau": "high"}, "tau = 'high'"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_done(topics, options, message):
    with pytest.raises(ConfigError, match=message):
        SELECTORS.build("quad", topics.task(), **options)


def test_top_influence_takes_the_highest_scores_of_the_whole_pool(topics):
    judge = MadeUp()
    selector, pool = TopInfluence(topics.task(), judge), topics.pool()
    selection = selector.select(pool, 10 * 16, None)
    scores = {i: judge.score_of(i) for i in pool.sample_id_N.tolist()}
    assert selection.sample_id_N.tolist() == sorted(scores, key=lambda i: -scores[i])[:10]
    assert sorted(judge.asked) == sorted(pool.sample_id_N.tolist())
    assert np.isfinite(selector.tables()["samples"]["influence"]).all()


def test_top_influence_is_refused_when_noise_would_be_taken(topics):
    with pytest.raises(PolicyError, match="noise scores 9"):
        TopInfluence(topics.task(), MadeUp(noise=9.0)).select(topics.pool(), 160, None)
    warned = TopInfluence(topics.task(), MadeUp(noise=9.0), trust="warn")
    selection = warned.select(topics.pool(), 160, None)
    assert "not to be trusted" in selection.reason_N[0]
    whole = TopInfluence(topics.task(), MadeUp(noise=9.0)).select(topics.pool(), 120 * 16, None)
    assert len(whole) == 120, "there is nothing to choose, so nothing to distrust"


@pytest.mark.parametrize("preconditioner", ["identity", "ekfac"])
@pytest.mark.parametrize("name", ["quad", "top_influence"])
def test_a_model_judges(topics, small_model, name, preconditioner, tmp_path):
    told = []
    task = replace(
        topics.task(cache_dir=tmp_path, progress=told.append),
        reference_MT=topics.tokens(topics.sample_id_N[30:60]),
    )
    clusters = {"clusters": 4, "embedder": EMBEDDER} if name == "quad" else {}
    options = {"preconditioner": preconditioner, "factor_rows": 48, "trust": "warn", **clusters}
    before = {k: v.clone() for k, v in small_model.state_dict().items()}
    selectors = [SELECTORS.build(name, task, **options) for _ in range(2)]
    first, second = (each.select(topics.pool(), 30 * 16, small_model) for each in selectors)
    judge = selectors[0].diagnostics()["judge"]
    assert judge["way"] in ("ghost", "jvp") and judge["way_reason"].startswith(judge["way"])
    assert judge["tracked_share"] + sum(judge["untracked"].values()) == pytest.approx(1)
    assert len(first) == 30 and first.sample_id_N.tolist() == second.sample_id_N.tolist()
    assert all(torch.equal(before[k], v) for k, v in small_model.state_dict().items())
    assert "reference gradient" in {event["stage"] for event in told}


@pytest.mark.parametrize("name", ["quad", "top_influence"])
def test_maps_and_step_of_the_scores_are_options(topics, small_model, name):
    """Remedies of the influence room name them, so they can be followed from a selector."""
    task = replace(topics.task(), reference_MT=topics.tokens(topics.sample_id_N[30:60]))
    only = [n for n, _ in small_model.named_modules() if n.endswith("mlp.down_proj")]
    options = {"preconditioner": "identity", "trust": "off", "names": only}
    options |= {"clusters": 4, "embedder": EMBEDDER} if name == "quad" else {}
    exact, close = (
        SELECTORS.build(name, task, **options, **way)
        for way in ({}, {"way": "difference", "relative_step": 1e-3})
    )
    ours, theirs = (each.select(topics.pool(), 30 * 16, small_model) for each in (exact, close))
    known = exact.diagnostics()["judge"]
    assert known["tracked_share"] < 0.5 and "not among the names asked for" in known["untracked"]
    assert close.diagnostics()["judge"]["way"] == "difference"
    assert close.diagnostics()["judge"]["relative_step"] == 1e-3
    assert len(set(ours.sample_id_N) & set(theirs.sample_id_N)) >= 24
