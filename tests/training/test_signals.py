"""What a mixer asks for is computed, is right, is recorded, and costs nothing when not asked."""

import json
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from workbench.config import Policy
from workbench.core import (
    MIXERS,
    DomainGradients,
    Mixture,
    PolicyError,
    Signal,
    Tracking,
)
from workbench.kernels.domain_gradients import GradientTracker, reference_domain_gradients
from workbench.models.layers import tracked_layers
from workbench.training import resume, train
from workbench.training.state import build_state
from workbench.training.step import train_step

ALL = frozenset({Signal.DOMAIN_GRADIENTS, Signal.ROW_GRADIENTS, Signal.TRACKED_NORMS})


class Watcher:
    """A uniform mixer that asks for every signal, every `every_steps` steps."""

    def __init__(self, task, *, width: int | None = None, every_steps: int = 1, worry: int = -1):
        self.task, self.every_steps, self.worry = task, every_steps, worry
        self.tracking = Tracking(layers=1, projection_width=width)
        self.step, self.seen, self.observed = None, [], 0

    @property
    def needs(self):
        due = self.step is None or self.step % self.every_steps == 0
        return ALL if due else frozenset()

    def propose(self, step):
        self.step = step
        return Mixture(self.task.names, np.full(len(self.task), 1 / len(self.task)))

    def observe(self, outcome):
        self.seen.append(outcome)
        self.observed += 1

    def diagnostics(self) -> Mapping[str, object]:
        return {"observed": self.observed, "halves": np.full(2, self.observed / 3)}

    def warnings(self):
        return ["too many steps; stop"] if self.observed == self.worry else []

    def state_dict(self):
        return {"observed": self.observed}

    def load_state_dict(self, state):
        self.observed = state["observed"]

    def agent_state(self):
        return {"observed": self.observed}


@pytest.fixture(autouse=True)
def watcher():
    MIXERS.register("watcher")(Watcher)
    yield
    del MIXERS._factories["watcher"]


def stepped(config, corpus, *, micro_batch_rows=None, reweighter="uniform", **options):
    """State and signals of step 0."""
    training = config.training.replace(micro_batch_rows=micro_batch_rows)
    mixer = Policy("watcher", **options)
    state = build_state(
        config.replace(training=training, reweighter=reweighter, mixer=mixer), corpus
    )
    state.mixer.propose(0)
    outcome = train_step(state, state.sampler.draw(0)).outcome
    return state, outcome


def truth(config, corpus, reweighter="uniform"):
    """Mean gradient of each domain's rows as weighted, and of each row alone, by autograd."""
    state = build_state(config.replace(reweighter=reweighter), corpus)
    batch = state.sampler.draw(0)
    loss_B = state.model(batch.tokens_BT, batch.labels_BT)
    weight_B = state.reweighter.weigh(loss_B.detach(), torch.ones(len(batch)) > 0, 0)
    weights = [layer.weight for layer in tracked_layers(state.model, 1).values()]
    rows_BN = reference_domain_gradients(loss_B, range(len(batch)), weights, len(batch))
    count_K = np.bincount(batch.domain_B, minlength=len(corpus.domains))
    mean_KN = torch.zeros(len(count_K), rows_BN.shape[1])
    mean_KN.index_add_(0, torch.from_numpy(batch.domain_B), weight_B[:, None] * rows_BN)
    mean_KN /= torch.from_numpy(np.maximum(count_K, 1))[:, None]
    square_B = rows_BN.square().sum(dim=1).numpy()
    square_K = np.bincount(batch.domain_B, weights=square_B, minlength=len(count_K))
    return (mean_KN @ mean_KN.T).numpy(), count_K, square_K / np.maximum(count_K, 1)


def relative_difference(found, expected):
    """The largest difference over the largest entry: entries near 0 are sums that cancel."""
    return np.abs(found - expected).max() / np.abs(expected).max()


CASES = [
    (None, "uniform"),
    (2, "uniform"),
    (None, Policy("linupper")),
    (2, Policy("linupper", scope="step")),
    (None, Policy("linupper", control="norm_matched")),
]


@pytest.mark.parametrize(("size", "reweighter"), CASES, ids=str)
def test_signals_are_those_of_the_whole_step(nano_config, nano_corpus, size, reweighter):
    _, outcome = stepped(nano_config, nano_corpus, micro_batch_rows=size, reweighter=reweighter)
    gram_KK, count_K, square_K = truth(nano_config, nano_corpus, reweighter)
    found = outcome.signals[Signal.DOMAIN_GRADIENTS]
    assert isinstance(found, DomainGradients) and found.sampling_error == 0
    assert found.count_K.tolist() == count_K.tolist() and (count_K == 0).any()
    assert relative_difference(found.gram_KK, gram_KK) < 1e-6
    assert relative_difference(outcome.signals[Signal.ROW_GRADIENTS], square_K) < 1e-6


def test_streamed_weights_are_put_right_in_the_signals_too(nano_config, nano_corpus):
    policy = Policy("linupper", scope="stream")
    state, first = stepped(nano_config, nano_corpus, micro_batch_rows=2, reweighter=policy)
    # The second look at the same rows has a loss range, so weights differ and need the factor.
    state.model.load_state_dict(build_state(state.config, nano_corpus).model.state_dict())
    batch = build_state(state.config, nano_corpus).sampler.draw(0)
    state.mixer.propose(0)
    second = train_step(state, batch).outcome
    assert second.weight_B.std() > 0.05 and first.weight_B.std() < 1e-6
    gram_KK, _, square_K = truth(nano_config, nano_corpus, Policy("linupper"))
    found = second.signals[Signal.DOMAIN_GRADIENTS].gram_KK
    assert relative_difference(found, gram_KK) < 1e-6
    assert relative_difference(second.signals[Signal.ROW_GRADIENTS], square_K) < 1e-6


def test_norms_are_of_the_weights_after_the_update_and_of_their_change(nano_config, nano_corpus):
    state, outcome = stepped(nano_config, nano_corpus)
    before = build_state(state.config, nano_corpus).model
    old, new = (next(iter(tracked_layers(m, 1).values())).weight for m in (before, state.model))
    norms = outcome.signals[Signal.TRACKED_NORMS]
    assert norms.weight_L == pytest.approx([new.norm().item()], rel=1e-5)
    assert norms.change_L == pytest.approx([(new - old).norm().item()], rel=1e-4)
    assert norms.change_L[0] > 0


def test_the_update_is_that_of_a_run_that_asks_for_nothing(nano_config, nano_corpus):
    watched, _ = stepped(nano_config, nano_corpus)
    plain = build_state(nano_config, nano_corpus)
    train_step(plain, plain.sampler.draw(0))
    for one, other in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_nothing_is_tracked_when_not_asked(nano_config, nano_corpus, monkeypatch):
    def unwanted(*_):
        raise AssertionError("tracked")

    monkeypatch.setattr(GradientTracker, "rows", unwanted)
    plain = build_state(nano_config, nano_corpus)
    assert plain.signals.tracker is None
    assert train_step(plain, plain.sampler.draw(0)).outcome.signals == {}
    state = build_state(nano_config.replace(mixer=Policy("watcher", every_steps=2)), nano_corpus)
    state.mixer.propose(1)
    assert train_step(state, state.sampler.draw(0)).outcome.signals == {}


def test_what_a_run_records_of_its_mixer_and_signals(nano_config, cache_dir, tmp_path):
    config = nano_config.replace(mixer=Policy("watcher", width=4, worry=10)).change(total_steps=20)
    with pytest.warns(UserWarning, match="too many steps"):
        run = train(config, tmp_path, cache_dir=cache_dir)
    event = run.events("step")[6]
    domains = len(event["mixture"])
    assert event["mixer"] == {"observed": 7, "halves": [2.33333, 2.33333]}
    assert len(event["signals"]["gram"]) == domains * (domains + 1) // 2
    assert sum(event["signals"]["domain_rows"]) == 8
    assert event["signals"]["sampling_error"] == pytest.approx(1.11803)
    assert event["effective_mixture"] == event["mixture"]
    last = run.events("step")[-1]
    assert last["epochs_projected"] == last["epochs"]
    assert event["epochs_projected"]["noise"] > event["epochs"]["noise"]
    warned = [e for e in run.events("warning") if "too many steps" in e["message"]]
    assert len(warned) == 1 and warned[0]["step"] == 10
    agent = torch.load(run.path / "agent.pt", weights_only=True)
    assert agent == {"observed": 20}
    assert "watcher" in json.dumps(run.folder.config)


def test_a_run_with_signals_resumes_to_the_bit(nano_config, cache_dir, tmp_path):
    config = nano_config.replace(mixer=Policy("watcher")).change(total_steps=14)
    straight = train(config, tmp_path / "a", cache_dir=cache_dir)
    train(config.change(total_steps=14), tmp_path / "b", cache_dir=cache_dir)
    again = resume(tmp_path / "b" / "nano", step=10, cache_dir=cache_dir)
    for one, other in zip(straight.events("step"), again.events("step"), strict=True):
        assert one["signals"] == other["signals"] and one["mixer"] == other["mixer"]
        assert one["loss"] == other["loss"]


def test_a_domain_that_is_used_up_is_named_once_for_each_doubling(nano_config, cache_dir, tmp_path):
    mixer = Policy("static", mixture={"clean_prose": 1})
    config = nano_config.replace(mixer=mixer).change(total_steps=200, evaluate_every_steps=200)
    with pytest.warns(UserWarning, match="is exhausted"):
        run = train(config, tmp_path, cache_dir=cache_dir)
    epochs = run.events("step")[-1]["epochs"]["clean_prose"]
    warned = [e["message"] for e in run.events("warning")]
    assert 1 <= len(warned) == int(np.log2(epochs)) + 1
    assert "domain 'clean_prose' is exhausted: every row was drawn once" in warned[0]


def test_a_mixer_that_does_not_say_which_weights_is_refused(nano_config, nano_corpus):
    class Vague(Watcher):
        def __init__(self, task):
            super().__init__(task)
            del self.tracking

    MIXERS.register("vague")(Vague)
    try:
        with pytest.raises(PolicyError, match="does not say of which weights"):
            build_state(nano_config.replace(mixer="vague"), nano_corpus)
    finally:
        del MIXERS._factories["vague"]


@pytest.fixture(scope="module")
def reference(nano_config, cache_dir, tmp_path_factory):
    config = nano_config.change(total_steps=30, name="reference")
    return train(config, tmp_path_factory.mktemp("reference"), cache_dir=cache_dir)


def test_excess_is_over_the_reference_token_by_token(reference, nano_config, nano_corpus):
    mixer = Policy("doremi", reference=str(reference.path))
    state = build_state(nano_config.replace(mixer=mixer), nano_corpus)
    batch = state.sampler.draw(0)
    models = [state.model, state.signals.excess._reference]
    losses = []
    for model in models:
        logits = model.model(input_ids=batch.tokens_BT).logits
        losses.append(
            torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), batch.labels_BT, reduction="none"
            ).detach()
        )
    expected = (losses[0] - losses[1]).clamp(min=0).mean(dim=1)
    state.mixer.propose(0)
    found = train_step(state, batch).outcome.signals[Signal.EXCESS_LOSS]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert found.mean() > 0.1


def test_a_run_with_a_reference_trains_records_and_resumes(
    reference, nano_config, cache_dir, tmp_path
):
    mixer = Policy("doremi", reference=str(reference.path))
    run = train(
        nano_config.replace(mixer=mixer).change(total_steps=12), tmp_path, cache_dir=cache_dir
    )
    event = run.events("step")[-1]
    drawn = [share > 0 for share in event["sample_share"].values()]
    assert [excess is not None for excess in event["signals"]["excess_nats"]] == drawn
    assert max(filter(None, event["signals"]["excess_nats"])) > 0
    assert sum(event["mixer"]["average_mixture"].values()) == pytest.approx(1, abs=1e-5)
    again = resume(run.path, step=10, cache_dir=cache_dir)
    assert again.events("step")[-1]["mixer"] == event["mixer"]


def test_a_reference_that_does_not_fit_is_refused(reference, nano_config, nano_corpus, tmp_path):
    missing = nano_config.replace(mixer=Policy("doremi", reference=str(tmp_path)))
    with pytest.raises(PolicyError, match="is no run folder"):
        build_state(missing, nano_corpus)

    class Other:
        path, domains, rows_K = tmp_path, nano_corpus.domains, nano_corpus.rows_K
        vocab_size, context_tokens = nano_corpus.vocab_size, nano_corpus.context_tokens

    fits = nano_config.replace(mixer=Policy("doremi", reference=str(reference.path)))
    with pytest.raises(PolicyError, match="other text, rows or tokens"):
        build_state(fits, Other())


def test_a_change_that_an_agent_cannot_take_over_is_refused_and_changes_nothing(
    nano_config, nano_corpus
):
    acodm = Policy("acodm", tracked_layers=1, warmup_steps=2, batch_size=4)
    state = build_state(nano_config.replace(mixer=acodm), nano_corpus)
    for step in range(6):
        state.mixer.propose(step)
        state.mixer.observe(train_step(state, state.sampler.draw(step)).outcome)
    learned, config = state.mixer, state.config
    with pytest.raises(PolicyError, match="cannot take over what it has learned"):
        state.change(config.change(network="paper"))
    assert state.mixer is learned and state.config == config
    state.change(config.change(entropy=0.5))
    assert state.mixer is not learned and len(state.mixer.replay) == 6
    wider = Policy("acodm", tracked_layers=1, network="paper", replay_size=50)
    state.change(config.replace(mixer="static"))
    state.change(config.replace(mixer=wider))
    resumed = build_state(nano_config.replace(mixer=acodm), nano_corpus)
    resumed.load_state_dict(state.state_dict())
    assert resumed.config.mixer == wider
