"""The contract between a probe and the run that calls it."""

import dataclasses

import pytest

from experiments.probing import run as probe_run
from experiments.probing.probe import LayerResult, Probe
from experiments.probing.protocols import Protocol
from tests.fixtures import probing


@dataclasses.dataclass(frozen=True, kw_only=True)
class StandIn(Probe):
    """Yields one result, and is then stopped at its first call."""

    kind = "stand_in"
    calls: list = dataclasses.field(default_factory=list)

    def run(self, model, layers):
        """Yield made-up results."""
        self.calls.append(list(layers))
        for layer in layers:
            yield LayerResult(layer, {"accuracy": 0.5, "interval": (0.4, 0.6), "correct": "10"}, 1.0)
            if len(self.calls) == 1:
                raise KeyboardInterrupt


def test_what_a_stopped_run_has_yielded_is_not_computed_again(tmp_path):
    """Fails if finished layers are lost, computed again, or missing in the results and their time."""
    probe = StandIn(protocol=Protocol(), train=probing.source("train"), test=probing.source("test"), output=tmp_path)
    model = probing.Model("runs/features")
    with pytest.raises(KeyboardInterrupt):
        probe_run.run(probe, model, [])
    results = probe_run.run(probe, model, [])
    assert probe.calls == [["conv_1", "conv_2"], ["conv_2"]]
    assert results["kind"] == "stand_in"
    assert results["seconds"] == 2.0
    assert list(results["model"]["layers"]) == ["conv_1", "conv_2"]
    assert "correct" not in results["model"]["layers"]["conv_1"]
    probe_run.finish(results, tmp_path)
    assert not list(tmp_path.iterdir())
