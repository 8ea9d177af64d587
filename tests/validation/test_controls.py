"""Negative controls: each planted bug makes the verdict that is there to notice it come out wrong."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest
from planted import check_noticed

from implicitref import activations, claims, mon
from implicitref.operators import MonotoneDense, dense
from implicitref.splitting import Inclusion, certificates, rates

run = importlib.import_module(f"{claims.validation().__name__}.run")


def flipped_skew(patch):
    right = dense.weight
    patch.setattr(dense, "weight", lambda A, B, m, g=None, h=None: right(A, B.T, m, g, h))


def certificate_without_m(patch):
    right = certificates.distance

    def wrong(inclusion, alpha, u):
        z, bound = right(inclusion, alpha, u)
        return z, bound * inclusion.m

    patch.setattr(certificates, "distance", wrong)


def printed_denominator(patch):
    # the resolvent of (I + D) u - v throughout, so that nothing is inconsistent and only the answer is wrong
    def prox(self, u, alpha=1.0):
        return self.jac * (u + alpha * self.dz) / (self.jac + alpha)

    def root(self, u, alpha):
        return (u + alpha * self.dz) * (self.jac + 1) / (self.jac + alpha) - self.dz

    for name, wrong in (("prox", prox), ("root", root)):
        patch.setattr(mon.AdjointProx, name, wrong)
    patch.setattr(mon.AdjointProx, "resolvent", lambda self, alpha: lambda u: self.prox(u, alpha))
    patch.setattr(mon.AdjointProx, "reflection", lambda self, alpha: lambda u: 2 * self.prox(u, alpha) - u)


def sigma_for_prox(patch):
    patch.setattr(activations.Activation, "prox", lambda self, x, alpha=1.0: self.sigma(x))


def rate_without_root(patch):
    for name in ("forward_backward_class", "peaceman_rachford_class"):
        right = getattr(rates, name)
        patch.setattr(rates, name, lambda m, L, alpha, right=right: right(m, L, alpha) ** 2)


def backward_not_transposed(patch):
    patch.setattr(mon, "Transpose", lambda W: W)


def doubled_vjp(patch):
    right = MonotoneDense.vjp
    patch.setattr(MonotoneDense, "vjp", lambda self, z, dy: {k: 2 * g for k, g in right(self, z, dy).items()})


def injection_subtracted(patch):
    right = Inclusion.resolvent_A

    def wrong(self, alpha):
        return right(dataclasses.replace(self, b=-self.b), alpha)

    patch.setattr(Inclusion, "resolvent_A", wrong)


def halved_step_search(patch):
    right = rates.best_peaceman_rachford
    patch.setattr(rates, "best_peaceman_rachford", lambda G: 2 * right(G))


def short_cocoercivity(patch):
    right = rates.cocoercivity
    patch.setattr(rates, "cocoercivity", lambda W: right(W, 1))


def timid_limit(patch):
    def wrong(G):
        m, L = rates.constants(G)
        return 2 * m / L**2

    patch.setattr(rates, "forward_backward_limit", wrong)


def shrunk_norms(patch):
    patch.setattr(certificates, "adjoint_norm_bounds", lambda m, norm_W: (1.0, norm_W / m))


def careless_sensitivity(patch):
    patch.setattr(certificates, "sensitivity", lambda m, change: np.linalg.norm(change, axis=1))


def wrong_slope(patch):
    right = activations.Activation.derivative
    patch.setattr(activations.Activation, "derivative", lambda self, x, alpha=1.0: 0.9 * right(self, x, alpha))


def refactored_every_time(patch):
    patch.setattr(MonotoneDense, "_resolvent", MonotoneDense._resolvent.__wrapped__)


def negative_scale_accepted(patch):
    patch.setattr(dense, "scale_of", lambda name, value, like_: None if value is None else np.asarray(float(value)))


CONTROLS = [
    (flipped_skew, "MON-Prop1"),
    (flipped_skew, "MON-AppD.2-weightnorm"),
    (certificate_without_m, "NEW-cert-C1"),
    (certificate_without_m, "NEW-cert-C3"),
    (certificate_without_m, "NEW-cert-B1"),
    (printed_denominator, "MON-Alg3"),
    (printed_denominator, "MON-Alg4"),
    (printed_denominator, "MON-Eq24"),
    (printed_denominator, "MON-Thm3"),
    (sigma_for_prox, "NEW-prox-alpha"),
    (sigma_for_prox, "MON-AppA-subdifferential"),
    (rate_without_root, "NEW-rate-fb"),
    (rate_without_root, "NEW-rate-pr"),
    (rate_without_root, "MON-AppA-cayley"),
    (backward_not_transposed, "MON-Thm3"),
    (backward_not_transposed, "MON-Thm2"),
    (backward_not_transposed, "NEW-backward-zero"),
    (doubled_vjp, "MON-Thm2"),
    (doubled_vjp, "MON-AppD.1-readout"),
    (injection_subtracted, "MON-Eq9"),
    (injection_subtracted, "MON-EqA6"),
    (halved_step_search, "NEW-best-alpha"),
    (short_cocoercivity, "NEW-best-alpha"),
    (timid_limit, "MON-Sec3.4-alpha"),
    (shrunk_norms, "NEW-adjoint-norms"),
    (careless_sensitivity, "NEW-sensitivity"),
    (wrong_slope, "MON-Thm2"),
    (wrong_slope, "MON-Eq10"),
    (refactored_every_time, "MON-Sec4.1-cost"),
    (negative_scale_accepted, "MON-AppD.2-weightnorm"),
]


@pytest.mark.parametrize(("plant", "claim"), CONTROLS, ids=[f"{p.__name__}-{c}" for p, c in CONTROLS])
def test_a_planted_bug_is_noticed(plant, claim, monkeypatch):
    check_noticed(run, plant, claim, monkeypatch)
