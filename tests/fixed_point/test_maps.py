"""Fixed-point maps: every K v and K' g against differences, every parameter gradient, the steps of a MON as T."""

from __future__ import annotations

import laws
import numpy as np
import oracles
import pytest
from oracles import assert_close, size

import implicitref as ir

fp = ir.fixed_point
relu, tanh = ir.activations.relu, ir.activations.tanh


def one_layer(n=4, d=3, gamma=0.8, activation=tanh, seed=0):
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(n, n))
    W *= gamma / np.linalg.norm(W, 2)
    return fp.OneLayer(W, rng.normal(size=(n, d)), rng.normal(size=n), activation)


def mon(seed=0, activation=tanh, alpha=None, kind=fp.PeacemanRachford):
    W = ir.operators.MonotoneDense(**laws.factors(4, 0.5, seed))
    return kind(W, activation, alpha)


MAPS = {
    "one layer": (one_layer(), 3),
    "one layer, softplus": (one_layer(activation=ir.activations.softplus, seed=1), 3),
    "forward-backward": (mon(kind=fp.ForwardBackward), 4),
    "forward-backward, small step": (mon(kind=fp.ForwardBackward, alpha=0.05, seed=1), 4),
    "Peaceman-Rachford": (mon(), 4),
    "Peaceman-Rachford, elu": (mon(activation=ir.activations.elu(0.5), alpha=0.3, seed=2), 4),
    "linear": (fp.LinearMap(*(np.random.default_rng(5).normal(size=s) / 3 for s in ((4, 4), (6, 4), (6,)))), 4),
}


def drawn(name, batch=3, seed=7):
    (T, d), rng = MAPS[name], np.random.default_rng(seed)
    return T, rng.normal(size=(batch, 4)), rng.normal(size=(batch, d)), rng


@pytest.mark.claim("JFB-Eq6")
@pytest.mark.claim("FPN-Eq4")
@pytest.mark.parametrize("name", MAPS)
def test_jacobian_products_against_differences_and_each_other(name):
    T, z, x, rng = drawn(name)
    v, g = rng.normal(size=z.shape), rng.normal(size=z.shape)
    Kv = (T(z + 1e-6 * v, x) - T(z - 1e-6 * v, x)) / 2e-6
    assert_close(T.jvp_state(z, x, v), Kv, scale=size(Kv), tol=1e-8)
    left, right = (T.jvp_state(z, x, v) * g).sum(axis=1), (v * T.vjp_state(z, x, g)).sum(axis=1)
    assert_close(left, right, scale=size(left), tol=1e-13)
    K = fp.linearise(T, z, x)
    assert_close(K.matvec(v), T.jvp_state(z, x, v), scale=size(v), tol=1e-14)
    assert_close(K.rmatvec(g), T.vjp_state(z, x, g), scale=size(g), tol=1e-14)
    dense = fp.maps.dense_jacobian(T, z, x)
    assert_close(np.einsum("bij,bj->bi", dense, v), K.matvec(v), scale=size(v), tol=1e-13)
    assert_close(fp.maps.at(T, x)(z), T(z, x), scale=size(z), tol=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_parameter_gradients_of_a_layer_against_complex_steps(seed):
    T, rng = one_layer(activation=tanh, seed=seed), np.random.default_rng(seed)
    z, x, g = rng.normal(size=(2, 4)), rng.normal(size=(2, 3)), rng.normal(size=(2, 4))

    def loss(**params):
        p = {**T.params, **params}
        return (g * np.tanh(z @ p["W"].T + x @ p["U"].T + p["b"])).sum()

    found = T.vjp_params(z, x, g)
    assert set(found) == {"W", "U", "b"}
    for name, value in T.params.items():
        exact = oracles._complex_steps(lambda p, name=name: loss(**{name: p}), value)
        assert_close(found[name], exact, scale=size(exact), tol=1e-13)


def test_parameter_gradient_of_the_linear_map():
    T, z, x, rng = drawn("linear")
    g, direction = rng.normal(size=z.shape), rng.normal(size=6)
    moved = fp.LinearMap(T.K, T.M, T.theta + direction)
    change = (g * (moved(z, x) - T(z, x))).sum()
    assert_close(T.vjp_params(z, x, g)["theta"] @ direction, change, scale=size(change), tol=1e-13)


@pytest.mark.claim("JFB-Sec1-mon-case")
@pytest.mark.parametrize("activation", [relu, tanh, ir.activations.softplus], ids=repr)
@pytest.mark.parametrize("kind", [fp.ForwardBackward, fp.PeacemanRachford])
def test_steps_of_a_mon_have_its_equilibrium_and_its_gradients(kind, activation):
    W = ir.operators.MonotoneDense(**laws.factors(5, 0.5, 3))
    rng = np.random.default_rng(4)
    b, dz = rng.normal(size=(3, 5)), rng.normal(size=(3, 5))
    z_star = ir.mon.equilibrium(W, b, activation, tol=1e-12).z
    exact, _ = ir.mon.equilibrium_vjp(W, b, activation, z_star, dz, tol=1e-12)
    T = kind(W, activation)
    assert 0 < T.gamma < 1
    solution = fp.iterate(T, b, np.zeros_like(b), tol=1e-12, max_iter=5000)
    read = kind is fp.PeacemanRachford
    assert_close(T.read(solution.z) if read else solution.z, z_star, scale=size(z_star), tol=1e-11)
    g = T.read_vjp(solution.z, dz) if read else dz
    for rule in (fp.implicit("dense"), fp.implicit(tol=1e-12, max_iter=5000)):
        found = fp.gradients(T, solution.z, b, g, rule)
        assert set(found) == set(exact)
        for name in exact:
            assert_close(found[name], exact[name], scale=size(exact[name]), tol=1e-10)


@pytest.mark.parametrize("name", [n for n in MAPS if n != "linear"])
def test_gamma_bounds_every_jacobian(name):
    T, z, x, _ = drawn(name, batch=50)
    norms = np.linalg.norm(fp.maps.dense_jacobian(T, 3 * z, x), 2, axis=(1, 2))
    assert norms.max() <= T.gamma * (1 + 1e-12)


@pytest.mark.parametrize(
    "offered", [lambda T: {}, lambda T: {"at": T.at, "linearise": T.linearise}], ids=["bare", "full"]
)
def test_a_generic_map_does_what_the_record_does(offered):
    T, z, x, rng = drawn("one layer")
    g = rng.normal(size=z.shape)
    copy = fp.Map(T.__call__, T.vjp_state, T.vjp_params, T.jvp_state, gamma=T.gamma, **offered(T))
    ours, theirs = (fp.iterate(t, x, z, tol=1e-10) for t in (T, copy))
    np.testing.assert_array_equal(ours.z, theirs.z)
    for rule in (fp.jfb, fp.neumann(3), fp.implicit(), fp.implicit("cgnr"), fp.implicit("dense")):
        a, b = (fp.gradients(t, ours.z, x, g, rule) for t in (T, copy))
        for name in a:
            assert_close(a[name], b[name], scale=size(b[name]), tol=1e-13)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: fp.OneLayer(np.ones((2, 3)), np.ones((2, 1)), np.ones(2)), ir.ShapeError, "W, U, b must have shapes"),
        (lambda: fp.OneLayer([[1.0]], np.ones((1, 1)), np.ones(1)), TypeError, "W must be an array"),
        (lambda: fp.Map(None, None, None, gamma=1.0), ir.HypothesisError, r"gamma must lie in \[0, 1\)"),
        (lambda: mon(alpha=-1.0), ir.HypothesisError, "alpha must be a finite number > 0"),
    ],
)
def test_bad_maps_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()
