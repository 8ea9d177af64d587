"""What users really pass: every layout works or is refused by an error that names the argument."""

from __future__ import annotations

import laws
import numpy as np
import pytest
from oracles import assert_close, size

import implicitref as ir

W, B, TANH = laws.problem("tanh", n=4, batch=3, seed=1)
Z = laws.exact(W, B, TANH)
DZ = np.random.default_rng(2).normal(size=B.shape)
GRADS, _ = ir.mon.equilibrium_vjp(W, B, TANH, Z, DZ, tol=1e-11)


def spread(x: np.ndarray) -> np.ndarray:
    """The same values with gaps between them in memory."""
    wide = np.full((2 * x.shape[0], 3 * x.shape[1]), np.nan)
    wide[::2, ::3] = x
    return wide[::2, ::3]


def readonly(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "read-only": readonly,
    "gaps": spread,
    "negative strides": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "byte-swapped": lambda x: x.astype(">f8"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_states(layout):
    to = LAYOUTS[layout]
    given = {"injection": to(B), "start": to(np.zeros_like(B))}
    before = {name: value.copy() for name, value in given.items()}
    solution = ir.mon.equilibrium(W, given["injection"], TANH, start=given["start"], tol=1e-11)
    assert_close(solution.z, Z, scale=1, tol=1e-10)
    grads, _ = ir.mon.equilibrium_vjp(W, given["injection"], TANH, to(Z), to(DZ), tol=1e-11)
    for name, gradient in grads.items():
        assert_close(gradient, GRADS[name], scale=size(GRADS[name]), tol=1e-9)
    for name, value in given.items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_parameters(layout):
    to = LAYOUTS[layout]
    operator = ir.operators.MonotoneDense(to(W.A), to(W.B), W.m)
    assert_close(operator.to_dense(), W.to_dense(), scale=size(W.to_dense()), tol=1e-14)
    again = ir.operators.MonotoneDense.from_weight(to(np.asarray(W.to_dense())), W.m * 0.999)
    assert_close(again.to_dense(), W.to_dense(), scale=size(W.to_dense()), tol=1e-13)
    assert_close(ir.mon.equilibrium(operator, B, TANH, tol=1e-11).z, Z, scale=1, tol=1e-10)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_losses(layout):
    to = LAYOUTS[layout]
    value, gradient = ir.losses.squared_error(to(B), to(DZ))
    desired, slope = ir.losses.squared_error(B, DZ)
    assert value == desired
    np.testing.assert_array_equal(gradient, slope)
    value, gradient = ir.losses.cross_entropy(to(B), np.array([0, 3, 1]))
    desired, slope = ir.losses.cross_entropy(B, np.array([0, 3, 1]))
    assert_close(value, desired, scale=1, tol=1e-15)
    assert_close(gradient, slope, scale=1, tol=1e-15)


def test_float32_results_follow_the_injection():
    solution = ir.mon.equilibrium(W, B.astype(np.float32), TANH, tol=1e-4)
    assert solution.z.dtype == solution.u.dtype == np.float32
    assert_close(solution.z, Z, scale=1, tol=1e-4)
    grads, _ = ir.mon.equilibrium_vjp(W, B.astype(np.float32), TANH, solution.z, DZ.astype(np.float32), tol=1e-4)
    for name, gradient in grads.items():
        assert gradient.dtype == np.float32
        assert_close(gradient, GRADS[name], scale=10 * size(GRADS[name]), tol=1e-4)


def test_narrow_operator_with_wide_injection():
    narrow = W.replace(**{name: p.astype(np.float32) for name, p in W.params.items()})
    assert ir.mon.equilibrium(narrow, B, TANH, tol=1e-9).z.dtype == np.float64


# (argument, value, error, message) for equilibrium; then for equilibrium_vjp
STATES = {
    "NaN": (np.full((3, 4), np.nan), ir.HypothesisError, "must be finite; it holds 12 NaN"),
    "inf": (np.where(np.eye(3, 4) > 0, np.inf, 0.0), ir.HypothesisError, "must be finite; it holds 3 NaN or infinite"),
    "integers": (np.ones((3, 4), dtype=int), ir.HypothesisError, "must be float32 or float64; got dtype int64"),
    "booleans": (np.ones((3, 4), dtype=bool), ir.HypothesisError, "must be float32 or float64; got dtype bool"),
    "complex": (np.ones((3, 4), dtype=complex), ir.HypothesisError, "must be float32 or float64; got dtype complex128"),
    "float16": (np.ones((3, 4), dtype=np.float16), ir.HypothesisError, "must be float32 or float64; got dtype float16"),
    "objects": (np.full((3, 4), None), ir.HypothesisError, "must be float32 or float64"),
    "one unit missing": (np.ones((3, 3)), ir.ShapeError, "must have"),
    "no batch axis": (np.ones(4), ir.ShapeError, "must have"),
    "one axis more": (np.ones((1, 3, 4)), ir.ShapeError, "must have"),
    "a number": (1.0, TypeError, "must be an array"),
    "a list": ([[1.0] * 4] * 3, TypeError, "must be an array"),
    "nothing": ("x", TypeError, "must be an array"),
}


@pytest.mark.parametrize("what", STATES)
@pytest.mark.parametrize("argument", ["injection", "start", "z", "dz"])
def test_bad_states_are_refused_by_name(argument, what):
    value, error, message = STATES[what]
    given = {"injection": B, "z": Z, "dz": DZ, "start": None} | {argument: value}
    with pytest.raises(error, match=rf"^{argument} {message}"):
        ir.mon.equilibrium_vjp(W, given["injection"], TANH, given["z"], given["dz"], start=given["start"])
    if argument in ("injection", "start"):
        with pytest.raises(error, match=rf"^{argument} {message}"):
            ir.mon.equilibrium(W, given["injection"], TANH, start=given["start"])


def test_a_vector_is_told_to_add_the_batch_axis():
    with pytest.raises(ir.ShapeError, match=r"injection\[None\]"):
        ir.mon.equilibrium(W, np.ones(4), TANH)


@pytest.mark.parametrize("operator", [np.eye(4), None, "W", 1.0])
def test_what_is_no_operator_is_refused(operator):
    with pytest.raises(TypeError, match="W must be an operator"):
        ir.mon.equilibrium(operator, B, TANH)
    with pytest.raises(TypeError, match="W must be an operator"):
        ir.mon.equilibrium_vjp(operator, B, TANH, Z, DZ)


@pytest.mark.parametrize("activation", ["relu", np.tanh, None, 1.0])
def test_what_is_no_activation_is_refused(activation):
    with pytest.raises(ir.HypothesisError, match="activation must be one of"):
        ir.mon.equilibrium(W, B, activation)
    with pytest.raises(ir.HypothesisError, match="activation must be one of"):
        ir.mon.equilibrium_vjp(W, B, activation, Z, DZ)


@pytest.mark.parametrize("argument", ["start", "z", "dz"])
def test_states_of_two_libraries_are_a_type_error(argument):
    strict = pytest.importorskip("array_api_strict", reason="array_api_strict is not installed")
    given = {"z": Z, "dz": DZ, "start": None} | {argument: strict.asarray(Z)}
    with pytest.raises(TypeError, match=rf"^{argument} must come from the library of the first array, numpy"):
        ir.mon.equilibrium_vjp(W, B, TANH, given["z"], given["dz"], start=given["start"])


def test_factors_of_two_libraries_are_a_type_error():
    strict = pytest.importorskip("array_api_strict", reason="array_api_strict is not installed")
    with pytest.raises(TypeError, match=r"^B must come from the library of the first array"):
        ir.operators.MonotoneDense(np.eye(2), strict.eye(2), 1.0)
    with pytest.raises(TypeError, match=r"^target must come from the library of the first array"):
        ir.losses.squared_error(np.ones((1, 2)), strict.ones((1, 2)))


def test_singular_shift_is_an_error_not_inf():
    # cannot happen for I - W >= m I; the check is there for libraries that return inf without a word
    from implicitref.operators.linear import inverse

    with pytest.raises((ArithmeticError, np.linalg.LinAlgError), match=r"singular|Singular"):
        inverse(np.zeros((2, 2)), "zero")


def test_huge_and_tiny_injections():
    for t in (1e-150, 1e-12, 1e12, 1e100):
        solution = ir.mon.equilibrium(W, t * B, ir.activations.relu, tol=1e-9 * t)
        assert np.isfinite(solution.z).all()
        assert_close(solution.z / t, laws.exact(W, B, ir.activations.relu), scale=1, tol=1e-8)
