"""Memory of a training step: independent of the number of fixed-point iterations."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from implicitref import claims, fixed_point, networks

bench = importlib.import_module(f"{claims.validation().__name__}.bench_jfb")


def problem():
    rng = np.random.default_rng(0)
    network = networks.jfb_mnist(rng, (1, 3, 3), 3, blocks=1, gamma=0.999, batch_norm=False)
    return bench.slow(network), rng.normal(size=(32, 1, 3, 3)).astype(np.float32), rng.integers(3, size=32)


@pytest.mark.claim("JFB-Eq16")
def test_a_step_after_1000_iterations_peaks_where_one_after_10_does():
    network, x, labels = problem()
    few, many = (bench.peak(network, x, labels, "jfb", max_iter) for max_iter in (10, 1000))
    assert (few["iterations"], many["iterations"]) == (10, 1000)
    # the residuals, a number an iteration, are the history that is kept; a state takes 36,864 bytes
    assert many["peak"] - few["peak"] < 200 * 1000


def test_the_measure_sees_a_rule_that_keeps_its_iterates():
    def hoarding(T, z, x, g):
        kept = [np.array(g) for _ in range(100)]
        return fixed_point.jfb(T, z, x, kept[-1])

    network, x, labels = problem()
    frugal, wasteful = (bench.peak(network, x, labels, rule, 10)["states"] for rule in ("jfb", hoarding))
    assert wasteful - frugal > 80
