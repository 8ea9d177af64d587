"""Negative controls of GREEDY section IV: each planted bug makes a verdict of its claim come out wrong."""

from __future__ import annotations

import importlib

import pytest
from planted import check_noticed

from implicitref import claims, losses, sequential
from implicitref.sequential import convex, solvers, training
from implicitref.sequential import problem as subproblem

run = importlib.import_module(f"{claims.validation().__name__}.run")


def gradients_scaled(patch, name, factor):
    right = subproblem.value_and_gradients

    def wrong(problem, solved, gradients=True):
        value, grads = right(problem, solved, gradients)
        return value, grads._replace(**{name: factor * getattr(grads, name)})

    for module in (subproblem, solvers, sequential):
        patch.setattr(module, "value_and_gradients", wrong)


def half_dropped(patch):
    gradients_scaled(patch, "V", 2)


def sign_of_dc(patch):
    gradients_scaled(patch, "C", -1)


def penalty_left_out_of_the_gradient(patch):
    right = solvers.Eliminated.value_and_gradient

    def wrong(self, flat):
        value, gradient = right(self, flat)
        return value, gradient - self.lam * flat / len(self.u)

    patch.setattr(solvers.Eliminated, "value_and_gradient", wrong)


def half_loss_dropped(patch):
    right = losses.squared_error
    patch.setitem(subproblem.LOSSES, "squared", lambda p, t: tuple(2 * part for part in right(p, t)))


def labels_exchanged(patch):
    right = losses.cross_entropy
    patch.setitem(subproblem.LOSSES, "cross-entropy", lambda p, t: right(p, 1 - t))


def everything_accepted(patch):
    patch.setattr(solvers, "accepted", lambda problem, old, new, rounding=0.0: new)
    right = solvers._shallow_step
    patch.setattr(solvers, "_shallow_step", lambda problem, now, steps: now._replace(V=-right(problem, now, steps).V))


def rank_cut_too_low(patch):
    patch.setattr(importlib.import_module("implicitref.sequential.least_squares"), "eps", lambda z: 1e-2)


def worse_block_kept(patch):
    def wrong(problem, solver, rng):
        found = solver(problem, rng)
        found = found._replace(C=found.C + 1)
        value = subproblem.value(problem, found)
        return found, value, value

    patch.setattr(training, "_block", wrong)


def other_numbers_after_resuming(patch):
    draws = iter(range(10**6))
    patch.setattr(training, "seed_of", lambda random_state: next(draws))


def features_not_counted(patch):
    right = training.memory
    patch.setattr(sequential, "memory", lambda sizes, m, p, q: right(sizes, 0, p, q))


def hopeful_dual(patch):
    right = convex._dual
    patch.setattr(convex, "_dual", lambda residual, y, beta, reach: right(residual, y, beta, reach) + 1e-3 * y @ y / 2)


CONTROLS = [
    (half_dropped, "GREEDY-Rem2"),
    (sign_of_dc, "GREEDY-Rem2"),
    (penalty_left_out_of_the_gradient, "GREEDY-Rem2"),
    (half_loss_dropped, "GREEDY-Eq8"),
    (labels_exchanged, "GREEDY-Eq9"),
    (everything_accepted, "GREEDY-Alg2"),
    (rank_cut_too_low, "GREEDY-Alg2"),
    (hopeful_dual, "GREEDY-Alg2"),
    (worse_block_kept, "GREEDY-Alg1"),
    (other_numbers_after_resuming, "GREEDY-Alg1"),
    (features_not_counted, "GREEDY-Rem5"),
]


@pytest.mark.parametrize(("plant", "claim"), CONTROLS, ids=[f"{p.__name__}-{c}" for p, c in CONTROLS])
def test_a_planted_bug_is_noticed(plant, claim, monkeypatch):
    check_noticed(run, plant, claim, monkeypatch)
