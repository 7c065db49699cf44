"""Comparisons pair seeds, label what differs, and refuse what cannot be compared."""

from __future__ import annotations

import pytest

from workbench.batch import compare, differing_settings, group_runs
from workbench.core import ConfigError, RunError


@pytest.fixture
def six_runs(write_run):
    """uniform and linupper on seeds 0, 1, 2; linupper better on `clean`, the same on `noise`."""
    runs = []
    for seed, base in enumerate((3.0, 3.3, 2.8)):
        clean = {"clean": base, "noise": 5.0}
        runs.append(write_run(f"u{seed}", seed=seed, final=clean))
        better = {"clean": base - 0.2 - 0.001 * seed, "noise": 5.0}
        runs.append(write_run(f"l{seed}", seed=seed, final=better, reweighter="linupper"))
    return runs


def test_seeds_and_names_do_not_make_a_difference_and_settings_do(six_runs):
    assert differing_settings(six_runs) == {"reweighter.name": ["uniform", "linupper"] * 3}
    groups = group_runs(six_runs)
    assert {label: len(own) for label, own in groups.items()} == {"uniform": 3, "linupper": 3}


def test_a_label_names_every_setting_that_differs(write_run):
    runs = [
        write_run("a", reweighter="linupper", **{"reweighter.temperature": 0.4}),
        write_run("b", reweighter="linupper", **{"reweighter.temperature": 1.0, "peak_lr": 1e-4}),
    ]
    assert list(group_runs(runs)) == [
        "peak_lr=0.002, temperature=0.4",
        "peak_lr=0.0001, temperature=1.0",
    ]


def test_a_policy_that_its_name_tells_apart_is_called_by_it_alone(write_run):
    plain = write_run("a")
    linupper = write_run("b", reweighter={"name": "linupper", "warmup_steps": 3})
    exp3 = write_run("c", mixer={"name": "exp3", "floor": 0.1})
    both = write_run("d", mixer={"name": "exp3", "floor": 0.1}, reweighter="linupper")
    assert list(group_runs([plain, linupper, exp3])) == ["uniform", "linupper", "exp3"]
    # Here linupper alone would not say which of the two.
    longer = write_run("e", reweighter={"name": "linupper", "warmup_steps": 9})
    assert list(group_runs([plain, linupper, longer, both])) == [
        "uniform",
        "linupper, warmup_steps=3",
        "linupper, warmup_steps=9",
        "exp3, linupper",
    ]


def test_static_mixtures_have_short_labels_that_differ(write_run):
    domains = ("clean_prose", "dirty_prose", "code", "dialogue", "tables")
    mixtures = [{name: (i + j + 1.1) / 29 for j, name in enumerate(domains)} for i in range(5)]
    runs = [
        write_run(f"m{i}", mixer={"name": "static", "mixture": mixture})
        for i, mixture in enumerate(mixtures)
    ]
    labels = list(group_runs(runs))
    assert len(labels) == 5 and max(map(len, labels)) < 90
    assert labels[0].startswith("clean_prose=0.0379, dirty_prose=0.0724, ")
    near = dict(zip(domains, mixtures[0].values(), strict=True))
    near["code"] += 1e-7
    close = write_run("close", mixer={"name": "static", "mixture": near})
    assert len(group_runs([runs[0], close])) == 2, "rounding merges no two mixtures"


def test_what_changes_nothing_is_no_part_of_a_label_unless_nothing_else_differs(write_run):
    plain = write_run("a", **{"selection.reference_rows": 32})
    other = write_run("b", reweighter="linupper", keep_checkpoints=9, checkpoint_every_steps=2)
    quad = write_run("c", selector="quad", record_every_steps=2)
    assert list(group_runs([plain, other, quad])) == ["uniform", "linupper", "quad"]
    wide = write_run("d", selector="quad", **{"selection.reference_rows": 32})
    assert list(group_runs([plain, quad, wide])) == [
        "uniform",
        "reference_rows=64, quad",
        "reference_rows=32, quad",
    ]
    often = write_run("e", checkpoint_every_steps=2)
    assert len(group_runs([write_run("f"), often])) == 2


def test_runs_matched_seed_by_seed_are_repetitions_of_one_setting(write_run):
    dear = [write_run(f"dear_seed{seed}", seed=seed, selector="quad") for seed in range(3)]
    plain = [write_run(f"plain_seed{seed}", seed=seed) for seed in range(3)]
    matched = [
        write_run(f"long_seed{i}", seed=i, steps=7 + i, **{"training.match_run": str(own.path)})
        for i, own in enumerate(dear)
    ]
    groups = group_runs([*dear, *plain, *matched])
    assert {label: len(own) for label, own in groups.items()} == {
        "quad": 3,
        "uniform": 3,
        "match_run=dear": 3,
    }
    [verdict] = [v for v in compare([*dear, *matched], "quad") if " on " not in v.name]
    assert verdict.n == 3
    # A length that was given still tells settings apart.
    short = [write_run("short", steps=3)]
    assert "total_steps=3" in group_runs([*plain, *matched, *short])


@pytest.mark.parametrize(
    ("setting", "file"),
    [
        ("mixer.agent", "agent.pt"),
        ("mixer.agent", ""),
        ("mixer.reference", ""),
        ("selection.checkpoint", ""),
        ("mixer.mixture", "mixture.json"),
        ("mixer.trials", "mixture.json"),
    ],
)
def test_what_another_run_made_of_each_seed_tells_no_seeds_apart(
    write_run, tmp_path, setting, file
):
    def runs_of(made, name):
        paths = [str(path / file) for path in made]
        return [write_run(f"{name}{i}", seed=i, **{setting: path}) for i, path in enumerate(paths)]

    def folders(name):
        if file == "mixture.json":  # of a job, which is no run itself
            return [tmp_path / f"{name}_{seed}" for seed in range(3)]
        return [write_run(f"{name}_seed{seed}", seed=seed).path for seed in range(3)]

    one, other = runs_of(folders("small"), "a"), runs_of(folders("large"), "b")
    assert differing_settings(one) == {}
    groups = group_runs([*one, *other])
    assert [len(own) for own in groups.values()] == [3, 3]
    assert all(size in label for size, label in zip(("small", "large"), groups, strict=True))


@pytest.mark.parametrize("names", [("k1", "k2"), ("lr0.1", "lr0.2")])
def test_a_number_that_is_not_the_seed_tells_runs_apart(write_run, names):
    made = [write_run(name, seed=7) for name in names]
    runs = [
        write_run(f"r{i}", seed=i, **{"selection.checkpoint": str(own.path)})
        for i, own in enumerate(made)
    ]
    assert differing_settings(runs) == {"selection.checkpoint": list(names)}


def test_runs_that_do_not_differ_are_called_by_name(write_run):
    assert list(group_runs([write_run("only")])) == ["only"]


def test_repetitions_alone_share_one_label(write_run):
    runs = [write_run(f"u{seed}", seed=seed) for seed in range(2)]
    assert group_runs(runs) == {"uniform": runs}


def test_settings_of_the_same_short_name_are_told_apart_by_their_part(write_run):
    runs = [
        write_run("a", reweighter="linupper", **{"reweighter.temperature": 0.4}),
        write_run("b", reweighter="linupper", mixer={"name": "static", "temperature": 0.4}),
    ]
    assert list(group_runs(runs)) == ["reweighter.temperature=0.4", "mixer.temperature=0.4"]


def test_a_run_changed_while_it_trained_is_no_repetition_of_one_that_was_not(write_run):
    runs = [
        write_run("a"),
        write_run("b", seed=1, live={2: {"reweighter": "linupper"}, 3: {"peak_lr": 1e-4}}),
        write_run("c", seed=2, live={2: {"reweighter": {"name": "linupper"}}}),
    ]
    to_linupper = "uniform, changed at step 2: reweighter=linupper"
    labels = ["uniform", f"{to_linupper}; step 3: peak_lr=0.0001", to_linupper]
    assert list(group_runs(runs)) == labels
    given = group_runs({"uniform": runs})
    assert list(given) == labels
    assert group_runs(given) == given


def test_a_verdict_on_a_changed_run_says_so(write_run):
    runs = [write_run(f"u{seed}", seed=seed) for seed in range(2)]
    runs += [
        write_run(f"c{seed}", seed=seed, live={2: {"reweighter": "linupper"}}) for seed in range(2)
    ]
    verdict = compare(runs, "uniform")[0]
    assert verdict.name == "uniform, changed at step 2: reweighter=linupper"
    assert verdict.n == 2


def test_a_verdict_is_paired_by_seed_and_not_by_order(six_runs):
    groups = group_runs(six_runs)
    groups["linupper"].reverse()
    mean, clean, noise = compare(groups, "uniform")
    assert (mean.name, mean.baseline_name, mean.n) == ("linupper", "uniform", 3)
    assert mean.outcome == "better"
    assert mean.mean_difference == pytest.approx(-0.1005)
    assert clean.name == "linupper on clean"
    assert clean.mean_difference == pytest.approx(-0.201)
    assert noise.outcome == "within noise"


def test_uniform_is_the_baseline_unless_told(six_runs):
    assert {v.baseline_name for v in compare(six_runs)} == {"uniform"}
    swapped = compare(six_runs, "linupper")
    assert swapped[0].name == "uniform"
    assert swapped[0].outcome == "worse"


def test_an_unknown_baseline_names_the_nearest(six_runs):
    with pytest.raises(ConfigError, match=r"'unifrm' — did you mean 'uniform'\?"):
        compare(six_runs, "unifrm")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"content_hash": "def456"}, "were trained on different text"),
        ({"end": "stopped"}, "is stopped, so it has no final loss"),
        ({"end": None}, "is interrupted, so it has no final loss"),
        ({"vocab_size": 500}, "differ in tokenizer.vocab_size: 4096 and 500"),
        ({"context_tokens": 64}, "differ in rows.context_tokens: 128 and 64"),
        ({"held_out_fraction": 0.2}, "differ in corpus.held_out_fraction: 0.1 and 0.2"),
        ({"held_out_rows": 8}, "differ in training.held_out_rows: 32 and 8"),
        ({"batch_rows": 32}, "differ in training.batch_rows: 16 and 32"),
        ({"prepared": "planted-b"}, "used different prepared rows: planted-a and planted-b"),
        ({"steps": 7}, "was last evaluated at step 4, .* at 7"),
    ],
)
def test_what_cannot_be_compared_is_refused(write_run, other, message):
    other = {"prepared": "planted-a", **other}
    groups = {
        "uniform": write_run("a", prepared="planted-a"),
        "other": write_run("b", **other),
    }
    with pytest.raises(RunError, match=message):
        compare(groups, "uniform")


def test_repeats_of_a_run_set_the_noise_floor(write_run):
    groups = {
        "uniform": [write_run("a", prepared="p"), write_run("b", prepared="p")],
        "other": [write_run("c", prepared="p")],
    }
    mean, *_ = compare(groups, "uniform", repeated=True)
    assert mean.n == 1 and mean.noise_floor == 0


def test_a_seed_that_stands_twice_is_refused(write_run):
    groups = {"uniform": [write_run("a"), write_run("b")], "other": write_run("c")}
    with pytest.raises(RunError, match="both 'uniform' with seed 0"):
        compare(groups)


def test_no_runs_at_all_is_an_error():
    with pytest.raises(RunError, match="no runs to compare"):
        compare([])


def test_domains_left_out_count_neither_in_the_mean_nor_alone(six_runs):
    left = compare(six_runs, "uniform", without=["noise"])
    assert [verdict.name for verdict in left] == ["linupper", "linupper on clean"]
    assert left[0].mean_difference == pytest.approx(-0.201)
    assert compare(six_runs, "uniform")[0].mean_difference == pytest.approx(-0.1005)
