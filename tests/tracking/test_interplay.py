"""What one policy moves and another moves back is found, with its numbers, and nothing else is."""

import numpy as np
import pytest

from workbench.tracking.interplay import FEWEST_STEPS, WINDOW_STEPS, Interplay

CORPUS = {"a": 0.5, "b": 0.3, "c": 0.2}
ONES = dict.fromkeys(CORPUS, 1.0)


def event(mixture=CORPUS, weight=ONES, pool=CORPUS):
    return {"effective_mixture": mixture, "sample_weight": weight, "pool_share": pool}


def followed(events, corpus=CORPUS):
    interplay = Interplay(corpus)
    for each in events:
        interplay.add(each)
    return interplay


def noisy(weight_a, steps, spread=0.05):
    """Steps whose mean weight of `a` scatters around a value; the mixer raises `a` half-way."""
    rng = np.random.default_rng(0)
    for i in range(steps):
        share = {"a": 0.5, "b": 0.3, "c": 0.2} if i < steps // 2 else {"a": 0.7, "b": 0.2, "c": 0.1}
        yield event(share, {**ONES, "a": weight_a + spread * rng.normal()})


def test_weights_that_take_back_what_the_mixer_raised_are_named_with_numbers():
    (conflict,) = followed(noisy(0.8, 200)).conflicts("static")
    assert conflict.key == ("a", "mixer", "reweighter")
    assert conflict.moved == pytest.approx(1.4)
    assert conflict.returned == pytest.approx(0.8, abs=0.02)
    assert conflict.undone == pytest.approx(-np.log(0.8) / np.log(1.4), abs=0.06)
    said = str(conflict)
    assert "raised its share from 50.0% to 70.0%" in said and "temperature" in said
    assert f"mean of {WINDOW_STEPS} steps" in said


@pytest.mark.parametrize(
    ("weight", "spread"),
    [(1.3, 0.05), (0.95, 0.01), (0.85, 1.0), (1.0, 0.0)],
    ids=["same direction", "small", "within noise", "none"],
)
def test_what_is_no_conflict_is_not_called_one(weight, spread):
    assert followed(noisy(weight, 200, spread)).conflicts("static") == []


def test_a_mixer_that_ignores_the_choice_is_named():
    chosen = {"a": 0.8, "b": 0.1, "c": 0.1}
    uniform = {"a": 0.8 * 0.4, "b": 0.34, "c": 0.34}
    found = followed([event(uniform, pool=chosen)] * FEWEST_STEPS).conflicts("static")
    assert {c.domain for c in found} == {"a", "b", "c"}
    assert all(c.mover == "selector" and c.undoer == "mixer" for c in found)
    a = next(c for c in found if c.domain == "a")
    assert a.undone == pytest.approx(np.log(2.5) / np.log(1.6)) and "'natural'" in str(a)
    following = followed([event(chosen, pool=chosen)] * FEWEST_STEPS)
    assert following.conflicts("static") == []


@pytest.mark.parametrize(
    ("mixer", "against_choice", "against_mixture"),
    [
        ("static", "mixture='natural' follows the choice, floor=0", "after weighing (mixture)"),
        ("regmix", "search again on the chosen rows", "small runs that have this reweighter"),
        ("acodm", "lower entropy and floor", "'acodm' moves on by its own signal"),
        ("exp3", "it does not see the choice: floor=0", "'exp3' moves on by its own signal"),
        ("doge", "mixer='static' with mixture='natural'", "'doge' moves on by its own signal"),
    ],
)
def test_the_remedy_is_one_that_the_mixer_in_use_has(mixer, against_choice, against_mixture):
    chosen, uniform = {"a": 0.8, "b": 0.1, "c": 0.1}, dict.fromkeys("abc", 1 / 3)
    [first, *_] = followed([event(uniform, pool=chosen)] * FEWEST_STEPS).conflicts(mixer)
    assert against_choice in str(first)
    [undone] = followed(noisy(0.8, 200)).conflicts(mixer)
    assert against_mixture in str(undone) and "max_weight" in str(undone)


def test_few_steps_absent_domains_and_a_change_of_policy_say_nothing():
    steps = list(noisy(0.8, 200))
    assert followed(steps[: FEWEST_STEPS - 1]).conflicts("static") == []
    without_c = [event({"a": 0.7, "b": 0.3}, {"a": 1.0}, {"a": 0.7, "b": 0.3})] * FEWEST_STEPS
    assert followed(without_c).conflicts("static") == []
    interplay = followed(steps)
    interplay.restart()
    assert interplay.conflicts("static") == []


def test_a_mixture_that_never_changes_is_measured_against_the_pool():
    pool = {"a": 0.1, "b": 0.5, "c": 0.4}
    raised, weights = {"a": 0.5, "b": 0.3, "c": 0.2}, {**ONES, "a": 0.5}
    steps = [event(raised, weights, pool)] * FEWEST_STEPS
    [conflict] = followed(steps, pool).conflicts("static")
    assert conflict.key == ("a", "mixer", "reweighter")
    assert (conflict.before, conflict.after) == pytest.approx((0.1, 0.5))
    assert conflict.undone == pytest.approx(np.log(2) / np.log(5))
    assert followed([event(pool, weights, pool)] * 60, pool).conflicts("static") == []
    # One that moved is measured against where it started, wherever the pool is.
    fell = {"a": 0.3, "b": 0.4, "c": 0.3}
    moved = [event(raised, weights, pool)] * 50 + [event(fell, weights, pool)] * 50
    assert followed(moved, pool).conflicts("static") == []


def test_another_pool_starts_what_selector_and_mixer_do_again():
    chosen = {"a": 0.8, "b": 0.2, "c": 0.0}
    # A mixer that stays uniform, where the choice left no rows of one domain.
    before = event(dict.fromkeys(CORPUS, 1 / 3))
    after = event({"a": 0.5, "b": 0.5, "c": 0.0}, {**ONES, "a": 0.6, "b": 1.4}, chosen)
    interplay = followed([before] * 30 + [after] * (FEWEST_STEPS - 1))
    assert interplay.conflicts("static") == []
    interplay.add(after)
    found = {c.key: c for c in interplay.conflicts("static")}
    assert all(c.steps == FEWEST_STEPS for c in found.values())
    selected = found["a", "selector", "mixer"]
    assert (selected.before, selected.after) == pytest.approx((0.5, 0.8))
    assert selected.returned == pytest.approx(0.5 / 0.8)
    assert found["a", "selector", "reweighter"].after == pytest.approx(0.8)
    # The mixer is held against the new pool (0.8 → 0.5), not against what it sampled before.
    assert ("a", "mixer", "reweighter") not in found


def test_a_change_of_one_policy_forgets_nothing_of_the_others():
    steps = list(noisy(1.0, 200, 0.05))
    later = [event(steps[-1]["effective_mixture"], {**ONES, "a": 0.8})] * FEWEST_STEPS
    interplay = followed(steps)
    interplay.restart({"reweighter"})
    assert interplay.conflicts("static") == []
    for each in later[1:]:
        interplay.add(each)
    assert interplay.conflicts("static") == []
    interplay.add(later[0])
    [conflict] = interplay.conflicts("static")
    # Only the new weights are averaged; the mixer's move is the old one.
    assert conflict.returned == pytest.approx(0.8) and conflict.steps == FEWEST_STEPS
    assert conflict.moved == pytest.approx(1.4)
    interplay.restart({"selector"})
    interplay.restart(())
    assert interplay.conflicts("static") == [conflict]
    interplay.restart({"mixer"})
    assert interplay.conflicts("static") == []


def test_the_factors_of_a_run_multiply_to_its_effective_share(nano_config, cache_dir, tmp_path):
    from workbench.training import train

    config = nano_config.change(
        reweighter="linupper", selector="random", mixer="exp3", total_steps=8
    )
    run = train(config, tmp_path, cache_dir=cache_dir)
    rows = run.folder.environment["domain_rows"]
    chosen = run.events("selected")[0]["domains"]
    for step in run.events("step"):
        assert sum(step["pool_share"].values()) == pytest.approx(1)
        for name, weight in step["sample_weight"].items():
            product = step["effective_mixture"][name] * weight
            assert step["effective_share"][name] == pytest.approx(product)
            assert step["pool_share"][name] == pytest.approx(chosen[name] / sum(chosen.values()))
    assert sum(rows.values()) > sum(chosen.values())


@pytest.fixture(scope="module")
def moving(nano_config):
    """A mixer that raises the easiest text, half-way; weights that grow with the loss lower it."""
    from workbench.config import Policy

    others = ("clean_prose", "clean_tales", "duplicated", "shuffled", "noise")
    stages = {
        start: {"clean_records": share, **dict.fromkeys(others, (1 - share) / 5)}
        for start, share in (("0", 0.1), ("80", 0.4))
    }
    config = nano_config.replace(mixer=Policy("static", stages=stages))
    return config.change(total_steps=200, keep_checkpoints=30)


LINUPPER = {"name": "linupper", "temperature": 0.4}


def warned_at(run, domain="clean_records"):
    said = f"domain '{domain}': the mixer raised its share"
    return [event["step"] for event in run.events("warning") if said in event["message"]]


def test_a_run_warns_once_while_its_weights_undo_its_mixer(moving, cache_dir, tmp_path):
    from workbench.training import train

    with pytest.warns(UserWarning, match="domain 'clean_records': the mixer raised its share"):
        run = train(moving.change(reweighter=LINUPPER), tmp_path, cache_dir=cache_dir)
    [first] = warned_at(run)
    assert first < 110
    # A change of no policy starts nothing again: what held is seen at the next look.
    other = run.fork(110, background=False, peak_lr=1e-3)
    assert warned_at(other) == [first, 110 + moving.training.record_every_steps]
    weaker = run.fork(110, background=False, temperature=0.41)
    assert min(step for step in warned_at(weaker) if step > first) >= 110 + FEWEST_STEPS


def test_a_fork_that_only_weighs_is_warned_of_the_move_its_parent_made(moving, cache_dir, tmp_path):
    from workbench.training import train

    run = train(moving.change(total_steps=140), tmp_path, cache_dir=cache_dir)
    assert warned_at(run) == []
    other = run.fork(100, background=False, reweighter=LINUPPER)
    assert warned_at(other) and min(warned_at(other)) >= 100 + FEWEST_STEPS


def test_a_choice_in_mid_run_is_warned_of_in_the_shares_that_are_recorded(
    nano_config, cache_dir, tmp_path
):
    from workbench.training import train

    config = nano_config.change(selector="random", first_step=10, total_steps=60)
    config = config.change(budget_tokens=16 * config.rows.context_tokens)
    run = train(config.change(reweighter=LINUPPER), tmp_path, cache_dir=cache_dir)
    rows, pool = run.folder.environment["domain_rows"], run.events("step")[-1]["pool_share"]
    said = [e["message"] for e in run.events("warning") if "the selector" in e["message"]]
    assert said and not warned_at(run)
    for message in said:
        domain = message.split("'")[1]
        share = rows[domain] / sum(rows.values())
        assert f"its share from {share:.1%} to {pool[domain]:.1%}" in message


def test_a_constant_mixture_that_weights_take_back_is_warned_of(nano_config, cache_dir, tmp_path):
    from workbench.config import Policy
    from workbench.training import train

    others = ("clean_prose", "clean_tales", "duplicated", "shuffled", "noise")
    mixture = {"clean_records": 0.5, **dict.fromkeys(others, 0.1)}
    config = nano_config.replace(mixer=Policy("static", mixture=mixture)).change(total_steps=120)
    run = train(config.change(reweighter=LINUPPER), tmp_path, cache_dir=cache_dir)
    assert warned_at(run)
