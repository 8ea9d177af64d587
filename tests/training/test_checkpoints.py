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

from implicitref import activations, datasets, errors, networks, training
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
    with pytest.raises(errors.HypothesisError, match="holds the model"):
        checkpoints.load(tmp_path / "c.npz", network())


def test_every_truncation_is_refused(tmp_path):
    checkpoints.save(tmp_path / "c.npz", first(), {})
    content = (tmp_path / "c.npz").read_bytes()
    for length in [*range(0, 600, 7), *range(600, len(content), 997), len(content) - 1]:
        (tmp_path / "t.npz").write_bytes(content[:length])
        with pytest.raises(errors.HypothesisError, match=r"t\.npz"):
            checkpoints.load(tmp_path / "t.npz", network())


def test_flipped_bytes_never_give_other_parameters(tmp_path):
    state = first()
    checkpoints.save(tmp_path / "c.npz", state, {})
    content, rng, refused = (tmp_path / "c.npz").read_bytes(), np.random.default_rng(0), 0
    for position in rng.integers(len(content), size=150):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        (tmp_path / "f.npz").write_bytes(damaged)
        try:
            assert identical(checkpoints.load(tmp_path / "f.npz", network())[0], state)
        except errors.HypothesisError:
            refused += 1
    assert refused > 100


def rewritten(tmp_path, **changes):
    """A checkpoint with another header."""
    checkpoints.save(tmp_path / "c.npz", first(), {})
    with np.load(tmp_path / "c.npz") as arrays:
        kept = dict(arrays)
    header = json.loads(str(kept.pop("header"))) | changes
    np.savez(tmp_path / "c.npz", header=np.array(json.dumps(header)), **kept)
    return tmp_path / "c.npz"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3, "package": "9.0"}, r"version 3, written by implicitref 9\.0"),
        ({"schema": "other"}, "no checkpoint"),
        ({"steps": "4"}, "nonsense under steps"),
        ({"steps": -1, "config": [1]}, "nonsense under config, steps"),
        ({"rng": {}}, "nonsense under rng"),
        ({"rng": {"bit_generator": "MT19937"}}, "nonsense under rng"),
        ({"history": [{"epoch": 1}]}, "nonsense under history"),
        ({"history": 3}, "nonsense under history"),
        ({"epoch": [{"minibatch": 1}]}, "nonsense under epoch"),
    ],
)
def test_newer_versions_other_schemas_and_altered_headers_are_refused(tmp_path, changes, message):
    with pytest.raises(errors.HypothesisError, match=message):
        checkpoints.load(rewritten(tmp_path, **changes), network())


@pytest.mark.parametrize(
    "header",
    [None, np.array("not json"), np.array("[1]"), np.array("[" * 100_000), np.zeros(3), np.array(["a", "b"])],
    ids=range(6),
)
def test_foreign_archives_are_refused(tmp_path, header):
    extra = {} if header is None else {"header": header}
    np.savez(tmp_path / "foreign.npz", x=np.ones(3), **extra)
    with pytest.raises(errors.HypothesisError, match=r"foreign\.npz is no checkpoint"):
        checkpoints.load(tmp_path / "foreign.npz", network())


def test_a_damaged_npy_header_is_refused(tmp_path):
    checkpoints.save(tmp_path / "c.npz", first(), {})
    content = (tmp_path / "c.npz").read_bytes()
    start = content.index(b"'descr'")
    for position in range(start - 11, start + 110):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            (tmp_path / "f.npz").write_bytes(damaged)
            with pytest.raises(errors.HypothesisError, match=r"f\.npz"):
                checkpoints.load(tmp_path / "f.npz", network())


def test_an_archive_that_unpacks_to_far_more_than_a_checkpoint_is_refused_unread(tmp_path):
    zeros = np.zeros(2**27, dtype=np.uint8)
    np.savez_compressed(tmp_path / "bomb.npz", header=np.array("x"), a=zeros)
    assert (tmp_path / "bomb.npz").stat().st_size < 2**18
    with pytest.raises(errors.HypothesisError, match="more than the"):
        checkpoints.load(tmp_path / "bomb.npz", network())


class Trap:
    """Would say so if it were unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickled object was loaded",))


def test_pickled_objects_are_refused_without_being_loaded(tmp_path):
    np.savez(tmp_path / "p.npz", header=np.array([Trap()], dtype=object))
    with pytest.raises(errors.HypothesisError, match="pickled Python objects"):
        checkpoints.load(tmp_path / "p.npz", network())


def test_other_architectures_are_refused(tmp_path):
    checkpoints.save(tmp_path / "c.npz", first(), {})
    for other in (network(m=0.5), network(activation=activations.tanh)):
        with pytest.raises(errors.HypothesisError, match="holds the model"):
            checkpoints.load(tmp_path / "c.npz", other)
    for other in (network(hidden=13), network(dtype=np.float64)):
        with pytest.raises(errors.HypothesisError, match="params must be"):
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
        training.archives.write_atomically(path, full)
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
