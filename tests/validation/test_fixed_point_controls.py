"""Negative controls of FPN and JFB: each planted bug makes the verdict that is there to notice it come out wrong."""

from __future__ import annotations

import dataclasses
import importlib

import pytest
from planted import check_noticed

from implicitref import claims
from implicitref import fixed_point as fp
from implicitref.fixed_point import examples, rules, theory

run = importlib.import_module(f"{claims.validation().__name__}.run")


def scaled(patch, name, factor):
    right = getattr(theory, name)
    patch.setattr(theory, name, lambda *arguments, **named: factor * right(*arguments, **named))


def untransposed(patch):
    for kind in (fp.OneLayer, fp.LinearMap):
        right = kind.linearise

        def wrong(self, z, x, right=right):
            K = right(self, z, x)
            return fp.Jacobian(K.rmatvec, K.matvec)

        patch.setattr(kind, "linearise", wrong)


def state_left_out(patch):
    right = fp.OneLayer.vjp_params
    patch.setattr(fp.OneLayer, "vjp_params", lambda self, z, x, g: right(self, 0 * z, x, g))


def one_power_less(patch):
    right = fp.neumann
    patch.setattr(fp, "neumann", lambda k: right(max(k - 1, 0)))


def jacobian_kept(patch):
    patch.setattr(fp, "jfb", fp.neumann(1))


def plus_sign(patch):
    scaled(patch, "preconditioner", -1)


def preconditioner_untransposed(patch):
    right = theory.preconditioner
    patch.setattr(theory, "preconditioner", lambda M, K: right(M, K.T))


def bold_threshold(patch):
    scaled(patch, "descent_threshold", 1.1)


def timid_threshold(patch):
    patch.setattr(theory, "descent_threshold", lambda gamma, k=0: 1 / gamma ** (k + 1))


def threshold_without_k(patch):
    right = theory.descent_threshold
    patch.setattr(theory, "descent_threshold", lambda gamma, k=0: right(gamma ** (k + 2)))


def printed_constant(patch):
    patch.setattr(theory, "descent_constant", lambda gamma, low, high: 2 * (low - gamma * high))


def timid_constant(patch):
    scaled(patch, "descent_constant", 0.9)


def careless_certificate(patch):
    patch.setattr(theory, "residual_interval", lambda r, gamma: (r / (1 + gamma), r))


def inverted_interval(patch):
    patch.setattr(theory, "residual_interval", lambda r, gamma: (r / (1 - gamma), r / (1 - gamma)))


def careless_coercivity(patch):
    patch.setattr(theory, "inverse_coercivity", lambda gamma: 1.0)


def wide_radius(patch):
    scaled(patch, "corollary_radius", 3)


def low_norm(patch):
    scaled(patch, "spectral_norm", 0.9)


def hopeful_neumann(patch):
    scaled(patch, "neumann_error", 0.5)


def root_of_kappa(patch):
    right = theory.conditioning
    patch.setattr(theory, "conditioning", lambda M: right(M) ** 0.5)


def slope_without_state(patch):
    scaled(patch, "one_layer_slope", 0.5)


def slope_of_the_wrong_sign(patch):
    scaled(patch, "one_layer_slope", -1)


def one_solve_too_few(patch):
    patch.setattr(rules.Implicit, "__call__", lambda self, T, z, x, g: g)


def loose_solver(patch):
    right = fp.implicit
    patch.setattr(fp, "implicit", lambda solver="picard", **named: right(solver, **(named | {"tol": 1e-2})))


def mean_for_sum(patch):
    right = examples.two_samples
    patch.setattr(examples, "two_samples", lambda: right()._replace(g=right().g / 2))


def early_stop(patch):
    right = fp.iterate

    def wrong(T, x, z, *, tol=1e-6, **named):
        return right(T, x, z, tol=100 * tol, **named)

    patch.setattr(fp, "iterate", wrong)


def bound_in_units_of_r(patch):
    right = fp.iterate

    def wrong(*arguments, **named):
        found = right(*arguments, **named)
        return dataclasses.replace(found, bound=found.bound * (1 - (found.gamma or 0.0)))

    patch.setattr(fp, "iterate", wrong)


def toy_of_degree_three(patch):
    right = examples.toy
    patch.setattr(examples, "toy", lambda: dataclasses.replace(right(), forward=lambda y, d: d + y**5 + 1e-9 * y**3))


CONTROLS = [
    (untransposed, "JFB-Eq13"),
    (untransposed, "JFB-Eq22"),
    (untransposed, "JFB-Thm3.1"),
    (untransposed, "FPN-Eq40"),
    (state_left_out, "JFB-Eq13"),
    (state_left_out, "JFB-Eq16"),
    (state_left_out, "JFB-Asm3.3"),
    (one_power_less, "JFB-Eq22"),
    (jacobian_kept, "JFB-Eq16"),
    (jacobian_kept, "JFB-Thm3.1"),
    (plus_sign, "JFB-Eq19"),
    (plus_sign, "FPN-Eq45"),
    (preconditioner_untransposed, "JFB-Eq19"),
    (bold_threshold, "NEW-jfb-threshold"),
    (bold_threshold, "NEW-neumann-descent"),
    (timid_threshold, "NEW-jfb-threshold"),
    (timid_threshold, "NEW-neumann-descent"),
    (threshold_without_k, "NEW-neumann-descent"),
    (printed_constant, "NEW-descent-constant"),
    (printed_constant, "FPN-Eq56"),
    (timid_constant, "NEW-descent-constant"),
    (careless_certificate, "NEW-cert-F1"),
    (inverted_interval, "NEW-cert-F1"),
    (bound_in_units_of_r, "NEW-cert-F1"),
    (careless_coercivity, "FPN-Eq12"),
    (wide_radius, "JFB-Cor3.1"),
    (low_norm, "JFB-Asm2.1"),
    (hopeful_neumann, "JFB-Eq22"),
    (root_of_kappa, "JFB-Asm3.3"),
    (slope_without_state, "NEW-jfb-relu-descent"),
    (slope_of_the_wrong_sign, "NEW-jfb-relu-descent"),
    (one_solve_too_few, "JFB-Eq13"),
    (one_solve_too_few, "NEW-jfb-batch"),
    (loose_solver, "JFB-Eq13"),
    (loose_solver, "JFB-Tab2"),
    (mean_for_sum, "NEW-jfb-batch"),
    (early_stop, "JFB-Alg1"),
    (early_stop, "JFB-Thm2.1"),
    (toy_of_degree_three, "JFB-Eq4"),
    (untransposed, "JFB-Tab2"),
]


@pytest.mark.parametrize(("plant", "claim"), CONTROLS, ids=[f"{p.__name__}-{c}" for p, c in CONTROLS])
def test_a_planted_bug_is_noticed(plant, claim, monkeypatch):
    check_noticed(run, plant, claim, monkeypatch)
