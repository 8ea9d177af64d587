"""Checkpoints: exact, refused when anything is wrong with them, and never lost."""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from implicitref import activations, archives, datasets, errors, networks, persistence, training
from implicitref.training import checkpoints

RECIPE = training.Recipe(epochs=3, batch=50, learning_rate=1e-2, schedule="one-cycle")


def small():
    data = datasets.digits()
    return dataclasses.replace(data, x_train=data.x_train[:200], y_train=data.y_train[:200])


def network(hidden=12, **options):
    return networks.mon_fc(np.random.default_rng(0), 64, hidden=hidden, **options)


def first():
    return training.start(network(), np.random.default_rng(1))


def arrays_of(state):
    return {**state.network.params, **{f"m{k}": v for k, v in state.optimiser.mean.items()}} | {
        f"s{k}": v for k, v in state.optimiser.square.items()
    }


def identical(a, b):
    x, y = arrays_of(a), arrays_of(b)
    return set(x) == set(y) and all(np.array_equal(x[k], y[k]) and x[k].dtype == y[k].dtype for k in x)


def test_what_is_saved_is_loaded_exactly(tmp_path):
    state = next(training.train(first(), small(), RECIPE))
    checkpoints.save(tmp_path / "c.npz", state, {"seed": 1, "data": "digits"})
    loaded, config = checkpoints.load(tmp_path / "c.npz", network())
    assert identical(loaded, state)
    assert loaded.history == state.history
    assert loaded.rng == state.rng
    assert loaded.optimiser.steps == state.optimiser.steps == 4
    assert config == {"seed": 1, "data": "digits"}
    assert [path.name for path in tmp_path.iterdir()] == ["c.npz"]


def test_resuming_from_the_file_is_the_uninterrupted_training_bit_for_bit(tmp_path):
    data = small()
    uninterrupted = list(training.train(first(), data, RECIPE))
    checkpoints.save(tmp_path / "c.npz", uninterrupted[0], {})
    loaded, _ = checkpoints.load(tmp_path / "c.npz", network())
    *_, last = training.train(loaded, data, RECIPE)
    assert identical(last, uninterrupted[-1])
    assert [r._replace(seconds=0) for r in last.history] == [
        r._replace(seconds=0) for r in uninterrupted[-1].history
    ]  # fmt: skip


@pytest.mark.parametrize("build", [networks.mon_conv, networks.mon_multitier])
def test_networks_on_images_go_through_the_file_in_the_middle_of_an_epoch(tmp_path, build):
    channels = 3 if build is networks.mon_conv else (2, 3)
    recipe = dataclasses.replace(RECIPE, epochs=1, stop="relative-change", alpha="tuned", augment="crop")

    def begin():
        return training.start(build(np.random.default_rng(0), (1, 8, 8), channels), np.random.default_rng(1))

    *_, whole = training.train(begin(), small(), recipe)
    (state,) = training.train(begin(), small(), recipe, pause=lambda: True)
    checkpoints.save(tmp_path / "c.npz", state, {})
    loaded, _ = checkpoints.load(tmp_path / "c.npz", begin().network)
    assert loaded.steps == state.steps
    assert len(loaded.steps) == 1
    *_, last = training.train(loaded, small(), recipe)
    assert identical(last, whole)
    with pytest.raises(errors.HypothesisError, match="of another architecture"):
        checkpoints.load(tmp_path / "c.npz", network())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimiser": training.optimisers.AdamState(-1, {}, {})}, "nonsense under optimiser, optimiser.steps"),
        ({"rng": {}}, "nonsense under rng"),
        ({"rng": {"bit_generator": "MT19937"}}, "nonsense under rng"),
        ({"history": (1,)}, "nonsense under history"),
        ({"steps": (1,)}, "nonsense under steps"),
    ],
)
def test_states_that_training_cannot_have_written_are_refused(tmp_path, changes, message):
    checkpoints.save(tmp_path / "c.npz", dataclasses.replace(first(), **changes), {})
    with pytest.raises(errors.HypothesisError, match=message):
        checkpoints.load(tmp_path / "c.npz", network())


def test_other_files_of_the_package_are_refused(tmp_path):
    persistence.save(tmp_path / "n.npz", network())
    with pytest.raises(errors.HypothesisError, match="holds a MonNetwork, not a checkpoint of a State"):
        checkpoints.load(tmp_path / "n.npz", network())


def of_version_2(path, state, config, **changes):
    """What the package wrote before version 3."""
    groups = {"params": state.network.params, "mean": state.optimiser.mean, "square": state.optimiser.square}
    arrays = {f"{group}/{name}": value for group, part in groups.items() for name, value in part.items()}
    header = {"schema": "implicitref-checkpoint", "version": 2, "config": config, "steps": state.optimiser.steps}
    header |= {"rng": state.rng, "history": [r._asdict() for r in state.history], "epoch": []} | changes
    np.savez(path, header=np.array(json.dumps(header)), **arrays)


def test_checkpoints_of_the_former_format_go_on(tmp_path):
    data = small()
    uninterrupted = list(training.train(first(), data, RECIPE))
    of_version_2(tmp_path / "c.npz", uninterrupted[0], {"seed": 1})
    loaded, config = checkpoints.load(tmp_path / "c.npz", network())
    *_, last = training.train(loaded, data, RECIPE)
    assert identical(last, uninterrupted[-1])
    assert config == {"seed": 1}
    with pytest.raises(errors.HypothesisError, match="another architecture"):
        checkpoints.load(tmp_path / "c.npz", network(hidden=13))
    of_version_2(tmp_path / "c.npz", uninterrupted[0], {}, history=[{"epoch": 1}])
    with pytest.raises(errors.HypothesisError, match="no checkpoint of this network"):
        checkpoints.load(tmp_path / "c.npz", network())


def test_end_to_end_training_of_implicit_models_resumes_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(60, 3)), rng.integers(4, size=60)
    samples = training.Samples(x, labels, x, labels)
    recipe = training.ImplicitRecipe(loss="cross-entropy", epochs=2, batch=20)

    def begin():
        return training.start(networks.implicit_model(np.random.default_rng(1), 6, 3, 4), np.random.default_rng(2))

    def states(start):
        return list(training.train(start, samples, recipe, learner=training.implicit.LEARNER))

    whole = states(begin())
    checkpoints.save(tmp_path / "c.npz", whole[0], {})
    loaded, _ = checkpoints.load(tmp_path / "c.npz", begin().network)
    assert identical(states(loaded)[-1], whole[-1])
    with pytest.raises(errors.HypothesisError, match=r"radius is 0\.95, not 0\.9"):
        checkpoints.load(tmp_path / "c.npz", dataclasses.replace(begin().network, radius=0.9))


def test_other_architectures_are_refused(tmp_path):
    checkpoints.save(tmp_path / "c.npz", first(), {})
    others = {
        "W.m is 1.0, not 0.5": network(m=0.5),
        "activation is relu, not tanh": network(activation=activations.tanh),
        r"W.A is \('float32', \(12, 12\)\), not": network(hidden=13),
        r"not \('float64', \(12, 12\)\)": network(dtype=np.float64),
    }
    for message, other in others.items():
        with pytest.raises(errors.HypothesisError, match=message):
            checkpoints.load(tmp_path / "c.npz", other)


def test_a_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoints.load(tmp_path / "none.npz", network())


def test_a_failed_save_keeps_the_old_file(tmp_path):
    checkpoints.save(tmp_path / "c.npz", first(), {"run": 1})
    with pytest.raises(TypeError):
        checkpoints.save(tmp_path / "c.npz", first(), {"run": object()})
    assert checkpoints.load(tmp_path / "c.npz", network())[1] == {"run": 1}


def test_a_full_disk_keeps_the_old_file_leaves_no_part_and_is_named(tmp_path):
    path = tmp_path / "c.npz"
    checkpoints.save(path, first(), {"run": 1})

    def full(file):
        file.write(b"part")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"No space left.*c\.npz"):
        archives.write_atomically(path, full)
    assert [found.name for found in tmp_path.iterdir()] == ["c.npz"]
    assert checkpoints.load(path, network())[1] == {"run": 1}


def test_a_symbolic_link_stays_one(tmp_path):
    checkpoints.save(tmp_path / "c.npz", first(), {"run": 1})
    (tmp_path / "link.npz").symlink_to("c.npz")
    checkpoints.save(tmp_path / "link.npz", first(), {"run": 2})
    assert (tmp_path / "link.npz").is_symlink()
    assert checkpoints.load(tmp_path / "c.npz", network())[1] == {"run": 2}


SAVING = """
    import sys
    import numpy as np
    from implicitref import networks, training
    from implicitref.training import checkpoints

    rng = np.random.default_rng(0)
    states = [training.start(networks.mon_fc(rng, 64, hidden=12), rng) for _ in range(4)]
    count = 0
    while True:
        checkpoints.save(sys.argv[1], states[count % 4], {"count": count})
        count += 1
        if count == 1:
            print("saving", flush=True)
"""


def test_killing_a_process_that_saves_leaves_a_whole_checkpoint(tmp_path):
    path, rng, counts = tmp_path / "c.npz", random.Random(0), []
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SAVING), str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "saving\n"
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        _, config = checkpoints.load(path, network())
        counts.append(config["count"])
    assert max(counts) > 0
