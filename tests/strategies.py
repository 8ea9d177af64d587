"""Random problems for Hypothesis: the spectrum is drawn, so conditioning is bounded and nothing is rejected."""

from __future__ import annotations

from typing import Any

import laws
import numpy as np
from hypothesis import strategies as st

import implicitref as ir

seeds = st.integers(0, 2**32 - 1)
names = st.sampled_from(sorted(laws.ACTIVATIONS))
steps = st.sampled_from([0.05, 0.2, 0.5, 1.0, 2.0, 7.0])


def orthogonal(rng: np.random.Generator, n: int) -> np.ndarray:
    """A random orthogonal matrix."""
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


@st.composite
def gaps(draw: st.DrawFn, largest_n: int = 5) -> tuple[np.ndarray, float]:
    """G = I - W with symmetric part of drawn spectrum >= m, and m."""
    n = draw(st.integers(1, largest_n))
    m = draw(st.sampled_from([0.1, 0.3, 1.0, 2.0]))
    spectrum = np.array([0.0, *draw(st.lists(st.floats(0, 3), min_size=n - 1, max_size=n - 1))])
    rotation, rng = draw(st.floats(0, 3)), np.random.default_rng(draw(seeds))
    Q, K = orthogonal(rng, n), rng.normal(size=(n, n))
    return m * np.eye(n) + Q @ np.diag(spectrum) @ Q.T + rotation * (K - K.T) / (2 * n**0.5), m


@st.composite
def problems(draw: st.DrawFn, activation: Any = None) -> tuple[Any, np.ndarray, Any]:
    """An operator, an injection (batch 2) and an activation."""
    G, m = draw(gaps())
    n = G.shape[0]
    W = ir.operators.MonotoneDense.from_weight(np.eye(n) - G, m * (1 - 1e-12))
    b = np.random.default_rng(draw(seeds)).normal(size=(2, n)) * draw(st.sampled_from([0.1, 1.0, 5.0]))
    return W, b, activation or laws.ACTIVATIONS[draw(names)]
