"""What a selector at work tells of its pool reaches the run folder before anything is chosen."""

import numpy as np

from workbench.config import Policy, SelectionConfig
from workbench.training import train

OPTIONS = {"clusters": 8, "factor_rows": 16, "control_rows": 4, "trust": "off"}


class Watch:
    """Remembers whether the pool was on disk when the first arm was pulled."""

    def __init__(self):
        self.folder, self.seen = None, None

    def on_step(self, outcome):
        pass

    def on_events(self, events):
        if self.seen is None and any(event.get("stage") == "pull" for event in events):
            self.seen = self.folder.exists() and sorted(p.name for p in self.folder.iterdir())


def test_the_map_is_on_disk_before_the_first_pull_and_lies_as_in_the_choice(
    nano_config, cache_dir, tmp_path
):
    config = nano_config.replace(
        selector=Policy("quad", **OPTIONS),
        selection=SelectionConfig(
            share=0.1, first_step=1, reference_domains=("clean_prose", "clean_tales")
        ),
    ).change(total_steps=2)
    watch = Watch()
    watch.folder = tmp_path / config.name / "selection" / "pool"
    run = train(config, tmp_path, cache_dir=cache_dir, callbacks=[watch])
    assert watch.seen == ["samples.parquet"]
    pool, chosen = run.folder.pool(), run.folder.selection().frame("samples")
    assert pool is not None and run.folder.selections() == [1]
    seen = pool.frame("samples")
    assert set(seen) == {"sample_id", "domain", "cluster", "x", "y"}
    for name in ("sample_id", "domain", "cluster", "x", "y"):
        assert np.array_equal(seen[name], chosen[name])
