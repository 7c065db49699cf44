"""Figures of a learning mixer: what is drawn is what was recorded."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from workbench import plots
from workbench.plots.mixing import corners
from workbench.tracking import RunFolder

DOMAINS = ("code", "noise <b>", "prose")
FIGURES = (
    plots.rewards,
    plots.energies,
    plots.learning,
    plots.gram,
    plots.policy_path,
    plots.policy_replay,
    plots.entropy,
)


@pytest.fixture
def make(tmp_path):
    def create(name: str, *, steps: int = 30, learner: bool = True) -> RunFolder:
        folder = RunFolder.create(tmp_path / name, config={}, environment={})
        with folder.lock():
            folder.append("started", 0)
            folder.append_many([step_event(step, steps, learner) for step in range(steps)])
        return folder

    return create


def step_event(step: int, steps: int, learner: bool) -> dict:
    share = step / max(1, steps - 1)
    values = np.array([1 / 3 + share / 2, (1 - share) / 3, 0.0])
    values[2] = 1 - values.sum()
    event = dict.fromkeys(
        ("loss", "weighted_loss", "lr", "grad_norm", "seconds", "ess_fraction", "max_weight"), 1.0
    )
    mixture = dict(zip(DOMAINS, values.tolist(), strict=True))
    event |= {"kind": "step", "step": step, "tokens": 10, "mixture": mixture}
    event["effective_mixture"] = {name: 0.5 * p + 0.5 / 3 for name, p in mixture.items()}
    event |= {name: mixture for name in ("weight_share", "sample_share", "domain_loss")}
    if learner:
        by_domain = dict(zip(DOMAINS, (1.0, -1.5, 0.5), strict=True))
        event["mixer"] = {
            "reward_average": by_domain,
            "signal_to_noise": dict.fromkeys(DOMAINS, 1e6 if step == 0 else 2.0),
            "self_energy": 2.0,
            "interaction_energy": 0.5,
        }
        if step > 10:
            event["mixer"] |= {"critic_loss": 0.1, "actor_loss": -0.2}
        event["signals"] = {"gram": [4.0, -1.0, 2.0, 1.0, 0.0, 0.0 if step < 5 else 9.0]}
    return event


def test_a_path_ends_where_the_mixture_ends_and_names_its_corners(make):
    figure = plots.policy_path({"proxy": make("proxy"), "target": make("target", steps=3000)})
    assert {a.text for a in figure.layout.annotations} == {"code", "noise &lt;b&gt;", "prose"}
    lines = [trace for trace in figure.data if trace.name in ("proxy", "target")]
    assert len(lines) == 2 and len(lines[1].x) <= 2000
    assert "step 29" in lines[0].text[-1] and "code 0.69" in lines[0].text[-1]
    start = [trace for trace in figure.data if trace.marker.symbol == "square"][1]
    assert abs(start.y[0]) < 0.01 and lines[1].y[-1] > 0.7


def test_three_domains_stand_on_a_triangle_and_the_middle_is_uniform():
    corner_32 = corners(3)
    sides = [np.linalg.norm(corner_32[i] - corner_32[i - 1]) for i in range(3)]
    assert sides == pytest.approx([sides[0]] * 3)
    assert corner_32.mean(axis=0) == pytest.approx([0, 0])


def test_cosines_come_from_the_inner_products_and_skip_absent_domains(make):
    z = np.array(plots.gram(make("a"), first=0.0).data[0].z)
    assert z[0].tolist() == pytest.approx([1.0, -0.5, 2 / 6])
    assert np.allclose(z, z.T) and np.diag(z).tolist() == pytest.approx([1, 1, 1])


def test_entropy_of_a_fixed_mixture_lies_on_its_value(make):
    figure = plots.entropy(make("a", steps=2000))
    start = -3 * (1 / 3) * np.log(1 / 3)
    assert figure.data[0].y[0] == pytest.approx(start, abs=0.01)
    assert figure.layout.shapes[0].y0 == pytest.approx(np.log(3))


def test_rewards_have_a_line_a_domain_and_a_rule_where_noise_begins(make):
    figure = plots.rewards(make("a"))
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert named == ["code", "noise &lt;b&gt;", "prose"]
    assert any(shape.y0 == 1 for shape in figure.layout.shapes)
    ratios = [trace for trace in figure.data if trace.yaxis == "y2"]
    assert len(ratios) == 3 and all(max(trace.y) == 2.0 for trace in ratios)


@pytest.mark.parametrize("draw", FIGURES, ids=lambda f: f.__name__)
def test_every_figure_has_a_picture_and_says_when_there_is_nothing(make, draw):
    assert len(plots.png(draw(make("a")))) > 5_000
    empty = draw(make("empty", steps=0))
    assert not empty.data and "no" in empty.layout.annotations[0].text
    assert plots.png(empty)


@pytest.mark.parametrize("draw", FIGURES[:4], ids=lambda f: f.__name__)
def test_a_run_whose_mixer_learns_nothing_says_so(make, draw):
    figure = draw(make("plain", learner=False))
    assert "recorded nothing of this" in figure.layout.annotations[0].text


def test_scores_are_drawn_over_steps_on_a_logarithmic_axis():
    traces = {
        "a": SimpleNamespace(score_N=np.array([4.0, 2.0, 1.0])),
        "b": SimpleNamespace(score_N=np.array([4.0, 3.0, 2.5])),
    }
    figure = plots.scores(traces)
    assert [trace.name for trace in figure.data] == ["a", "b"]
    assert figure.data[0].x.tolist() == [1, 2, 3] and figure.layout.yaxis.type == "log"
    assert len(plots.png(figure)) > 5_000


def test_a_replay_has_a_frame_for_every_step_of_a_short_run_and_ends_on_the_last(make):
    figure = plots.policy_replay(make("a"))
    assert [frame.name for frame in figure.frames] == [str(step) for step in range(30)]
    assert [step.args[0][0] for step in figure.layout.sliders[0].steps][-1] == "29"
    last = step_event(29, 30, learner=False)
    for traces in (figure.frames[-1].data, figure.data[-4:]):
        way, here, asked, used = traces
        assert len(way.x) == 30 and here.y[0] == way.y[-1]
        assert list(asked.x) == pytest.approx(list(last["mixture"].values()))
        assert list(used.x) == pytest.approx(list(last["effective_mixture"].values()))
    first = figure.frames[0].data
    assert len(first[0].x) == 1 and list(first[2].x) == pytest.approx([1 / 3] * 3)


def test_a_replay_of_a_long_run_stays_small_and_waits_to_be_played(make):
    figure = plots.policy_replay(make("long", steps=3000))
    assert len(figure.frames) == 120
    assert len(figure.to_json()) < 200_000
    assert [frame.name for frame in figure.frames][:: len(figure.frames) - 1] == ["0", "2999"]
    page = plots.html([figure], "replay")
    assert "Plotly.addFrames" in page and "Plotly.animate(" not in page


def test_a_replay_of_a_run_without_effective_mixtures_shows_what_was_asked_for(make):
    folder = make("old", steps=0)
    with folder.lock():
        for step in range(3):
            event = step_event(step, 3, learner=False)
            del event["effective_mixture"]
            folder.append_many([event])
    figure = plots.policy_replay(folder)
    assert len(figure.frames) == 3 and not any(trace.type == "bar" for trace in figure.data)


def test_the_walk_shows_the_interaction_its_linear_part_and_both_gains():
    share = np.linspace(0, 1, 5)
    walk = SimpleNamespace(
        domains=DOMAINS,
        share_S=share,
        interaction_KS=np.outer((1, 2, 3), 1 - share),
        linear_KS=np.outer((1, 2, 3), 1 + share),
        interaction_K=np.array([1.0, -2.0, 0.5]),
        descent_K=np.array([2.0, 7.0, 1.5]),
    )
    figure = plots.energy_walk(walk)
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    solid, dashed = ([t for t in lines if t.line.dash == kind] for kind in ("solid", "dash"))
    assert [line.y[-1] for line in solid] == [0, 0, 0]
    assert [line.y[-1] for line in dashed] == [2, 4, 6]
    gains = [trace for trace in figure.data if trace.mode == "markers"]
    assert [list(gain.y) for gain in gains] == [[1.0, -2.0, 0.5], [2.0, 7.0, 1.5]]
    assert "<b>" not in gains[0].x[1]
    assert plots.png(figure).startswith(b"\x89PNG")
