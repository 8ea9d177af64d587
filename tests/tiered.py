"""Multi-tier operators by the definition of appendix C in matrices, and cases of them, for the tests."""

from __future__ import annotations

import functools
import math

import laws
import numpy as np
from oracles import correlation

from implicitref.operators import MonotoneMultiTier

# ------------------------------------------------------------------------------------------------
# The definition


def scaled(K, c):
    return np.asarray(K) if c is None else c * np.asarray(K) / np.sqrt(np.square(K).sum())


def selection(size, stride, out):
    """The 0-1 matrix of every r-th pixel, in the top left corner of `out`."""
    source = np.arange(math.prod(size)).reshape(size)[:: stride[0], :: stride[1]]
    place = np.arange(math.prod(out)).reshape(out)[: source.shape[0], : source.shape[1]]
    U = np.zeros((math.prod(out), math.prod(size)))
    U[place.ravel(), source.ravel()] = 1
    return U


def factors(A, B, S, m, sizes, stride=2, g=None, gs=None, h=None):
    """A and B of W = (1 - m) I - A'A + B - B', both block lower bidiagonal (C1, C4), analytic in every parameter."""
    stride, L = stride if isinstance(stride, tuple) else (stride, stride), len(A)
    g, gs, h = (scales or [None] * L for scales in (g, gs, h))
    A = [correlation(scaled(K, c and c**0.5), s) for K, c, s in zip(A, g, sizes, strict=True)]
    B = [correlation(scaled(K, c), s) for K, c, s in zip(B, h, sizes, strict=True)]
    S = [
        np.kron(np.eye(K.shape[0]), selection(sizes[i], stride, sizes[i + 1]))
        @ correlation(scaled(K, gs[i] and gs[i] ** 0.5), sizes[i])
        for i, K in enumerate(S)
    ]
    ends = np.cumsum([0] + [len(K) for K in A])
    whole_A, whole_B = (np.zeros((ends[-1], ends[-1]), np.result_type(*A, *B, *S)) for _ in range(2))
    for i in range(L):
        here = slice(ends[i], ends[i + 1])
        whole_A[here, here], whole_B[here, here] = A[i], B[i]
        if i + 1 < L:
            below = slice(ends[i + 1], ends[i + 2])
            whole_A[below, here], whole_B[below, here] = S[i], -A[i + 1].T @ S[i]
    return whole_A, whole_B, ends


def weight(m, **params):
    A, B, _ = factors(m=m, **params)
    return (1 - m) * np.eye(len(A)) - A.T @ A + B - B.T


laws.WEIGHTS[MonotoneMultiTier] = lambda W: functools.partial(weight, sizes=W.sizes, stride=W.stride)


def draw(sizes, channels, stride=2, kernel=(3, 3, 3), m=0.5, seed=0, g=False, gs=False, h=False):
    """Random parameters of a MonotoneMultiTier; kernel: the sides of A, B, S."""
    rng, L = np.random.default_rng(seed), len(sizes)
    pair = lambda k: (k, k) if isinstance(k, int) else k  # noqa: E731
    new = lambda o, i, k: rng.normal(size=(o, i, *pair(k))) / (o * i) ** 0.25 / math.prod(pair(k)) ** 0.5  # noqa: E731
    n = channels
    params = {
        "A": [new(c, c, kernel[0]) for c in n],
        "B": [new(c, c, kernel[1]) for c in n],
        "S": [new(n[i + 1], n[i], kernel[2]) for i in range(L - 1)],
        "m": m,
        "sizes": sizes,
        "stride": stride,
    }
    for name, wanted, count in (("g", g, L), ("gs", gs, L - 1), ("h", h, L)):
        if wanted:
            params[name] = list(rng.uniform(0.3, 1.5, size=count) * (rng.choice([-1, 1], count) if name == "h" else 1))
    return params


def tiers(to, **params):
    """MonotoneMultiTier in the backend's arrays."""
    lists = {name: [to(x) for x in params[name]] for name in ("A", "B", "S", "g", "gs", "h") if name in params}
    return MonotoneMultiTier(m=params["m"], sizes=params["sizes"], stride=params["stride"], **lists)


CASES = {
    "one tier": draw([(3, 4)], [2], seed=1),
    "one tier, scales": draw([(3, 4)], [2], seed=2, g=True, gs=True, h=True),
    "two tiers": draw([(4, 4), (2, 2)], [2, 2], seed=3),
    "two tiers, scales": draw([(4, 4), (2, 2)], [1, 3], seed=4, g=True, gs=True, h=True),
    "two tiers, g alone": draw([(2, 4), (1, 2)], [2, 1], seed=5, g=True),
    "zero-filled": draw([(4, 2), (3, 2)], [2, 2], seed=6, gs=True),
    "three tiers, even kernels": draw([(4, 4), (4, 2), (2, 2)], [1, 2, 1], kernel=(2, 4, 2), seed=7, h=True),
    "stride 3": draw([(3, 6), (1, 2)], [1, 2], 3, seed=8, m=0.1),
    "stride by axis": draw([(3, 4), (3, 2), (3, 1)], [1, 2, 1], (1, 2), ((1, 3), (3, 1), (3, 2)), seed=9),
    "kernels beyond the image": draw([(4, 2), (2, 1)], [1, 2], kernel=((5, 3), 4, (3, 5)), seed=10, g=True),
    "five tiers": draw([(1, 16), (1, 8), (1, 4), (1, 2), (1, 1)], [1, 1, 2, 1, 1], (1, 2), ((1, 3),) * 3, seed=11),
    "stride 1": draw([(3, 3), (3, 3)], [1, 1], 1, seed=12, gs=True),
    "one pixel": draw([(2, 2), (1, 1)], [1, 2], kernel=(1, 1, 1), seed=13),
}
