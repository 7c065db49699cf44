"""Optional copies of a run's record elsewhere: TensorBoard, Weights & Biases, MLflow.

    from workbench.tracking import sinks
    wb.train(config, "runs", callbacks=[sinks.build("tensorboard", "runs/run")])

The run folder stays the record; a sink reads it, so it can also be added to a run that is resumed
and is then given what happened before.
"""

from workbench.tracking.sinks.sink import SINKS, Backend, Sink, build

__all__ = ["SINKS", "Backend", "Sink", "build"]
