"""Negative controls of block-triangular models: each planted bug makes the verdict that is there to notice it fail."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest
from planted import check_noticed

from implicitref import claims
from implicitref import sequential as seq
from implicitref.sequential import counts, theorems

run = importlib.import_module(f"{claims.validation().__name__}.run")
Model = seq.BlockTriangularModel


def blocks_in_the_other_order(patch):
    right = Model.features
    patch.setattr(Model, "features", lambda self, x: right(self, x)[:, ::-1])


def input_left_out(patch):
    """Of all blocks but the first."""
    right = Model.features

    def wrong(self, x):
        first = np.arange(len(self.A))[:, None] >= len(self.A) - self.sizes[0]
        return right(dataclasses.replace(self, B=self.B * first), x)

    patch.setattr(Model, "features", wrong)


def own_block_only(patch):
    """Gradients that do not pass on to earlier blocks."""
    right = Model.features_vjp
    patch.setattr(
        Model, "features_vjp", lambda self, x, z, dz: right(dataclasses.replace(self, A=0 * self.A), x, z, dz)
    )


def gradient_without_slope(patch):
    right = Model.features_vjp

    def wrong(self, x, z, dz):
        linear = dataclasses.replace(self.activation, slope=np.ones_like)
        return right(dataclasses.replace(self, activation=linear), x, z, dz)

    patch.setattr(Model, "features_vjp", wrong)


def order_forgotten(patch):
    right = seq.from_implicit
    patch.setattr(seq, "from_implicit", lambda A, B, C: (right(A, B, C)[0], tuple(range(len(A)))))


def stray_connection(patch):
    right = seq.feed_forward

    def wrong(weights, activation):
        model = right(weights, activation)
        return dataclasses.replace(model, A=np.asarray(model.mask()) * 1e-20 + model.A)

    patch.setattr(seq, "feed_forward", wrong)


def readout_scaled(patch):
    right = seq.feed_forward
    patch.setattr(seq, "feed_forward", lambda W, phi: right([*W[:-1], (1 + 1e-13) * W[-1]], phi))


def a_alone(patch):
    right = counts.surplus
    patch.setattr(counts, "surplus", lambda sizes, p, q: right(sizes, 0, 0))


def uniform_partition(patch):
    """The remainder of the last block forgotten."""
    right = counts.surplus
    patch.setattr(counts, "surplus", lambda sizes, p, q: right((sizes[0],) * len(sizes), p, q))


def input_not_connected(patch):
    right = counts.connections
    patch.setattr(counts, "connections", lambda model: [e for e in right(model) if e.source])


def neighbours_only_to_the_output(patch):
    right = counts.connections
    patch.setattr(
        counts, "connections", lambda m: [e for e in right(m) if e.target <= len(m.sizes) or e.source == len(m.sizes)]
    )


def replaced(patch, name, wrong):
    for module in (seq, theorems):
        patch.setattr(module, name, wrong)


def input_not_divided(patch):
    right = theorems.remove_self_loops
    replaced(patch, "remove_self_loops", lambda A, B: (right(A, B)[0], B))


def divided_by_the_sum(patch):
    right = theorems.remove_self_loops

    def wrong(A, B):
        a = np.diagonal(A)[:, None]
        return tuple(rows * (1 - a) / (1 + a) for rows in right(A, B))

    replaced(patch, "remove_self_loops", wrong)


def columns_divided(patch):
    right = theorems.remove_self_loops

    def wrong(A, B):
        scale = np.ones(A.shape[1])
        scale[: len(A)] -= np.diagonal(A)
        return np.triu(A, 1) / scale, right(A, B)[1]

    replaced(patch, "remove_self_loops", wrong)


def eps_on_the_wrong_side(patch):
    right = theorems.add_self_loops
    replaced(patch, "add_self_loops", lambda gamma, lam, eps: right(gamma, lam, 2 - eps))


def input_not_multiplied(patch):
    right = theorems.add_self_loops
    replaced(patch, "add_self_loops", lambda gamma, lam, eps: (right(gamma, lam, eps)[0], lam))


def diagonal_not_differentiated(patch):
    right = theorems.remove_self_loops_vjp

    def wrong(A, B, dgamma, dlam):
        dA, dB = right(A, B, dgamma, dlam)
        return np.triu(dA, 1), dB

    patch.setattr(theorems, "remove_self_loops_vjp", wrong)


CONTROLS = [
    (blocks_in_the_other_order, "GREEDY-Asm3"),
    (input_left_out, "GREEDY-Asm3"),
    (own_block_only, "GREEDY-Asm3"),
    (gradient_without_slope, "GREEDY-Asm3"),
    (order_forgotten, "GREEDY-Asm3"),
    (stray_connection, "GREEDY-SecIII-feedforward"),
    (readout_scaled, "GREEDY-SecIII-feedforward"),
    (a_alone, "GREEDY-SecIII-count"),
    (uniform_partition, "GREEDY-SecIII-count"),
    (input_not_connected, "GREEDY-SecIII-connections"),
    (neighbours_only_to_the_output, "GREEDY-SecIII-connections"),
    (input_not_divided, "GREEDY-Thm2"),
    (input_not_divided, "GREEDY-Thm3"),
    (divided_by_the_sum, "GREEDY-Thm2"),
    (divided_by_the_sum, "GREEDY-Eq13"),
    (columns_divided, "GREEDY-Thm3"),
    (eps_on_the_wrong_side, "GREEDY-Thm3"),
    (input_not_multiplied, "GREEDY-Thm2"),
    (input_not_multiplied, "GREEDY-Thm3"),
    (diagonal_not_differentiated, "GREEDY-Eq13"),
]


@pytest.mark.parametrize(("plant", "claim"), CONTROLS, ids=[f"{p.__name__}-{c}" for p, c in CONTROLS])
def test_a_planted_bug_is_noticed(plant, claim, monkeypatch):
    check_noticed(run, plant, claim, monkeypatch)
