"""Negative controls of well-posedness: each planted bug makes the verdict that is there to notice it come out wrong."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest
from planted import check_noticed

from implicitref import claims, networks, well_posed

run = importlib.import_module(f"{claims.validation().__name__}.run")


def timid_ratio(patch):
    right = well_posed.cone_ratio
    patch.setattr(well_posed, "cone_ratio", lambda phi, x, y: right(phi, x, y) / 1.02)


def signed_matrix(patch):
    # the spectral radius of A instead of |A|
    def wrong(A):
        radius = float(np.abs(np.linalg.eigvals(A)).max())
        return radius, radius

    patch.setattr(well_posed, "perron_interval", wrong)


def a_few_power_steps(patch):
    def wrong(A):
        v = np.ones(len(A))
        for _ in range(5):
            v = np.abs(A) @ v
            v /= v.max() or 1
        return well_posed.collatz_wielandt(np.abs(A) + 1e-300, v + 1e-300)

    patch.setattr(well_posed, "perron_interval", wrong)


def low_interval(patch):
    right = well_posed.perron_interval
    patch.setattr(well_posed, "perron_interval", lambda A: tuple(0.999 * end for end in right(A)))


def one_norm(patch):
    patch.setattr(well_posed, "norm_inf", lambda A: float(np.abs(A).sum(axis=0).max()))


def residual_as_bound(patch):
    right = well_posed._comparison
    patch.setattr(well_posed, "_comparison", lambda A: right(0 * A))


def euclidean_bound(patch):
    right = well_posed.bound

    def wrong(A, x, b, activation):
        found = right(A, x, b, activation)
        return np.linalg.norm(found, axis=1, keepdims=True) + 0 * found

    patch.setattr(well_posed, "bound", wrong)


def untransposed_adjoint(patch):
    right = well_posed.adjoint_bound
    patch.setattr(well_posed, "adjoint_bound", lambda A, q, jac, dx: right(A.T, q, jac, dx))


def early_stop(patch):
    right = well_posed.solve
    patch.setattr(well_posed, "solve", lambda *problem, tol=1e-6, **named: right(*problem, tol=100 * tol, **named))


def leading_minors_only(patch):
    def wrong(A):
        G = np.eye(len(A)) - A
        return all(np.linalg.det(G[:k, :k]) > 0 for k in range(1, len(G) + 1))

    patch.setattr(well_posed, "relu_well_posed", wrong)


def doubtful_minors(patch):
    patch.setattr(well_posed, "_complement", lambda exact, S, i: np.eye(len(exact) - i))


def symmetric_part_decides(patch):
    # sufficient, not necessary
    patch.setattr(
        well_posed, "relu_well_posed", lambda A: bool(np.linalg.eigvalsh(np.eye(len(A)) - (A + A.T) / 2)[0] > 0)
    )


def damped_picard(patch):
    def wrong(A, b, activation, x):
        while True:
            x = 0.5 * x + 0.5 * activation(x @ A.T + b)
            yield x

    patch.setattr(well_posed, "picard", wrong)


def rows_scaled_back(patch):
    def wrong(A, radius):
        return A * np.minimum(1, radius / np.maximum(np.abs(A).sum(axis=1, keepdims=True), 1e-300))

    patch.setattr(well_posed, "project", wrong)


def columns_projected(patch):
    right = well_posed.project
    patch.setattr(well_posed, "project", lambda A, radius: right(A.T, radius).T)


def wide_ball(patch):
    right = well_posed.project
    patch.setattr(well_posed, "project", lambda A, radius: right(A, 1.01 * radius))


def gradient_of_one_step(patch):
    # without the fixed-point equation of the adjoint: J g
    def wrong(self, z, injection, dz, **options):
        jac = self.activation.derivative(z @ self.A.T + injection)
        return well_posed.solve(0 * self.A, dz, well_posed.Slopes(jac))

    patch.setattr(networks.ImplicitModel, "adjoint", wrong)


def untransposed_gradient(patch):
    right = networks.ImplicitModel.gradients

    def wrong(self, *arguments, **named):
        found = right(self, *arguments, **named)
        return found._replace(grads={**found.grads, "A": found.grads["A"].T})

    patch.setattr(networks.ImplicitModel, "gradients", wrong)


def ascent(patch):
    right = networks.ImplicitModel.gradients

    def wrong(self, *arguments, **named):
        found = right(self, *arguments, **named)
        return found._replace(grads={name: -g for name, g in found.grads.items()})

    patch.setattr(networks.ImplicitModel, "gradients", wrong)


def hidden_bias(patch):
    right = networks.ImplicitModel.inject
    patch.setattr(networks.ImplicitModel, "inject", lambda self, x: right(self, x) + 0.1)


def activation_forgotten(patch):
    right = networks.ImplicitModel.solve

    def wrong(self, x, **options):
        found = right(self, x, **options)
        return dataclasses.replace(found, z=found.z @ self.A.T + self.inject(x))

    patch.setattr(networks.ImplicitModel, "solve", wrong)


CONTROLS = [
    (timid_ratio, "GREEDY-Def2"),
    (signed_matrix, "GREEDY-SecI-perron"),
    (a_few_power_steps, "GREEDY-SecI-perron"),
    (low_interval, "GREEDY-SecI-perron"),
    (low_interval, "GREEDY-SecII-norm"),
    (one_norm, "GREEDY-SecII-norm"),
    (residual_as_bound, "NEW-cert-G1"),
    (euclidean_bound, "NEW-cert-G1"),
    (untransposed_adjoint, "NEW-cert-G1"),
    (early_stop, "GREEDY-Thm1"),
    (leading_minors_only, "NEW-relu-wellposed"),
    (doubtful_minors, "NEW-relu-wellposed"),
    (symmetric_part_decides, "NEW-relu-wellposed"),
    (damped_picard, "GREEDY-Thm1"),
    (rows_scaled_back, "GREEDY-Rem4"),
    (columns_projected, "GREEDY-Rem4"),
    (wide_ball, "GREEDY-Rem4"),
    (wide_ball, "GREEDY-SecII-relaxation"),
    (gradient_of_one_step, "GREEDY-Eq4"),
    (untransposed_gradient, "GREEDY-Eq4"),
    (ascent, "GREEDY-Eq4"),
    (hidden_bias, "GREEDY-Asm2"),
    (activation_forgotten, "GREEDY-Asm2"),
]


@pytest.mark.parametrize(("plant", "claim"), CONTROLS, ids=[f"{p.__name__}-{c}" for p, c in CONTROLS])
def test_a_planted_bug_is_noticed(plant, claim, monkeypatch):
    check_noticed(run, plant, claim, monkeypatch)
