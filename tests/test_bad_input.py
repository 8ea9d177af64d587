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
    first, again = (ir.mon.equilibrium(narrow, B, TANH, tol=1e-9) for _ in range(2))
    assert first.z.dtype == np.float64
    assert first.inclusion.W is again.inclusion.W  # converted and factored once


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

    with pytest.raises(ir.HypothesisError, match="zero is singular"):
        inverse(np.zeros((2, 2)), "zero")


def test_huge_and_tiny_injections():
    for t in (1e-150, 1e-12, 1e12, 1e100):
        solution = ir.mon.equilibrium(W, t * B, ir.activations.relu, tol=1e-9 * t)
        assert np.isfinite(solution.z).all()
        assert_close(solution.z / t, laws.exact(W, B, ir.activations.relu), scale=1, tol=1e-8)


# ------------------------------------------------------------------------------------------------
# The ends of the range of the dtype


@pytest.mark.parametrize("scale", [1e-250, 1e-170, 1e160, 1e250])
@pytest.mark.parametrize("method", ["peaceman-rachford", "forward-backward"])
def test_certificates_where_squares_leave_the_range(scale, method):
    # the squares underflow to a distance of 0, or overflow to one of inf: neither is true
    relu = ir.activations.relu
    truth = laws.exact(W, B, relu)
    solution = ir.mon.equilibrium(W, scale * B, relu, method=method, tol=1e-6 * scale)
    error = np.linalg.norm(solution.z / scale - truth, axis=1)
    assert (error <= solution.bound / scale + 1e-14).all()
    assert (solution.bound > 0).all()
    assert (solution.bound / scale <= 1e-6).all()
    grads, _ = ir.mon.equilibrium_vjp(W, B, TANH, Z, scale * DZ, tol=1e-9 * scale)
    assert_close(grads["injection"] / scale, GRADS["injection"], scale=1, tol=1e-8)


@pytest.mark.parametrize("scale", [1e-15, 1e-8, 1e12])
def test_weight_normalised_gradients_do_not_depend_on_the_size_of_the_factors(scale):
    # W depends on A/||A|| and B/||B||, so the gradients times the scale are the same; ||A||^4 leaves float32
    narrow = {name: p.astype(np.float32) for name, p in {"A": W.A, "B": W.B}.items()}
    one, other = (ir.operators.MonotoneDense(s * narrow["A"], s * narrow["B"], 1.0, g=0.5, h=0.7) for s in (1, scale))
    z, dy = B.astype(np.float32), DZ.astype(np.float32)
    desired, found = one.vjp(z, dy), other.vjp(z, dy)
    for name in "AB":
        assert_close(found[name] * scale, desired[name], scale=size(desired[name]), tol=1e-5)
    for name in "gh":
        assert_close(found[name], desired[name], scale=size(desired[name]), tol=1e-5)


@pytest.mark.parametrize("alpha", [1e-6, 0.3, 1.0, 2.0, 1e6])
@pytest.mark.parametrize("name", laws.ACTIVATIONS)
def test_activations_at_infinity(name, alpha):
    activation = laws.ACTIVATIONS[name]
    x = np.array([[np.inf, -np.inf, 0.3]])
    np.testing.assert_array_equal(activation.prox(x, alpha)[0, :2], activation(x)[0, :2])
    assert activation.prox(x, alpha)[0, 2] == activation.prox(np.array([[0.3]]), alpha)[0, 0]
    assert np.isfinite(activation.derivative(x, alpha)).all()
    assert not np.isnan(activation.value(np.array([[1e300, -1e300]]))).any()
    wide = np.array([[3e38, -3e38]], dtype=np.float32)
    assert ((activation.derivative(wide) >= 0) & (activation.derivative(wide) <= 1)).all()


# ------------------------------------------------------------------------------------------------
# Arguments that are almost right


@pytest.mark.parametrize("alpha", [np.asarray(0.5), np.float32(0.5), 0.5])
def test_alpha_is_any_scalar_by_name_or_by_place(alpha):
    V = W.resolvent(0.5).to_dense()
    assert W.resolvent(alpha).to_dense() is V
    assert W.resolvent(alpha=alpha).to_dense() is V
    inclusion = ir.mon.forward_inclusion(W, B, TANH)
    for splitting in (ir.splitting.peaceman_rachford, ir.splitting.forward_backward, ir.splitting.douglas_rachford):
        np.testing.assert_array_equal(
            next(splitting(inclusion, alpha, 0 * B)).z, next(splitting(inclusion, 0.5, 0 * B)).z
        )


@pytest.mark.parametrize("alpha", [0, -1.0, np.nan, np.inf, None, "0.5", [0.5], np.ones(2)])
@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_steps_of_the_generators_are_checked(alpha, name):
    inclusion = ir.mon.forward_inclusion(W, B, laws.ACTIVATIONS[name])
    for splitting in (ir.splitting.peaceman_rachford, ir.splitting.forward_backward, ir.splitting.douglas_rachford):
        with pytest.raises(ir.HypothesisError, match=r"^alpha must be a"):
            next(splitting(inclusion, alpha, 0 * B))
    with pytest.raises(ir.HypothesisError, match=r"^alpha must be a"):
        W.resolvent(alpha)


@pytest.mark.parametrize("name", ["g", "h"])
@pytest.mark.parametrize("value", ["1", 1j, [1.0], np.nan, np.ones(2)])
def test_scales_are_refused_by_name(name, value):
    with pytest.raises(ir.HypothesisError, match=rf"^{name} must be a finite scalar"):
        W.replace(**{name: value})


@pytest.mark.parametrize("count", [0, -1, True, 1.5, np.asarray(1.5), "3", None, 10.0])
def test_counts_are_refused_by_name(count):
    with pytest.raises(ir.HypothesisError, match=r"^max_iter must be an integer >= 1"):
        ir.mon.equilibrium(W, B, TANH, max_iter=count)


@pytest.mark.parametrize("tol", [0, -1, np.nan, np.inf, "1e-6", None])
def test_tolerances_are_refused_by_name(tol):
    with pytest.raises(ir.HypothesisError, match=r"^tol must be a"):
        ir.mon.equilibrium(W, B, TANH, tol=tol)


def test_both_theorems_check_their_arguments():
    with pytest.raises(ir.ShapeError, match=r"^injection must have shape \(batch, 4\).*injection\[None\]"):
        ir.mon.forward_inclusion(W, B[0], TANH)
    with pytest.raises(ir.HypothesisError, match=r"^activation must be one of"):
        ir.mon.forward_inclusion(W, B, "tanh")
    with pytest.raises(ir.HypothesisError, match=r"^injection must be finite"):
        ir.mon.forward_inclusion(W, B * np.nan, TANH)
    with pytest.raises(ir.ShapeError, match=r"^jac must have the shape of dz, \(3, 4\)"):
        ir.mon.backward_inclusion(W, B[:1], DZ)
    for jac in (np.full_like(B, 1.5), np.full_like(B, -0.1)):
        with pytest.raises(ir.HypothesisError, match=r"^jac must lie in \[0, 1\]"):
            ir.mon.backward_inclusion(W, jac, DZ)


def test_masked_arrays_are_refused_and_subclasses_are_plain():
    masked = np.ma.masked_array(B, mask=B > 0)
    for call in (lambda: ir.mon.equilibrium(W, masked, TANH), lambda: W.matvec(masked), lambda: TANH(masked)):
        with pytest.raises(TypeError, match=r"must be an array.*MaskedArray"):
            call()

    class Tagged(np.ndarray):
        pass

    assert type(W.matvec(B.view(Tagged))) is np.ndarray
    assert {type(gradient) for gradient in W.vjp(B.view(Tagged), B).values()} <= {np.ndarray, np.float64}


def test_no_weight_at_all_is_a_shape_error():
    with pytest.raises(ir.ShapeError, match="n >= 1"):
        ir.operators.MonotoneDense.from_weight(np.zeros((0, 0)), 1.0)


def test_torch_parameters_leave_no_graph():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    operator = ir.operators.MonotoneDense(*(torch.nn.Parameter(torch.tensor(p)) for p in (W.A, W.B)), W.m)
    injection = torch.tensor(B, requires_grad=True)
    solution = ir.mon.equilibrium(operator, injection, TANH)
    grads, _ = ir.mon.equilibrium_vjp(operator, injection, TANH, solution.z, torch.tensor(DZ))
    assert not solution.z.requires_grad
    assert not any(gradient.requires_grad for gradient in grads.values())


# ------------------------------------------------------------------------------------------------
# Slow is not stuck


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_slow_step_size_is_not_taken_for_the_floor(dtype):
    # rho = 0.999: steps come down to rounding long before the distance does
    one = np.ones((1, 1))
    slow = ir.operators.MonotoneDense(0 * one, 0 * one, 0.05)
    tol = 2e4 * float(np.finfo(dtype).eps)
    solution = ir.mon.equilibrium(slow, one.astype(dtype), ir.activations.relu, alpha=0.01, tol=tol, max_iter=100000)
    assert_close(solution.z, [[20.0]], scale=1, tol=tol)


def test_the_floor_of_float64_names_no_wider_type():
    with pytest.raises(ir.ConvergenceError, match=r"floor of float64.*Ask for tol >= [^,]*$") as caught:
        ir.mon.equilibrium(W, B, TANH, tol=1e-18)
    tol = 2.2 * float(caught.value.solution.bound.max())
    assert ir.mon.equilibrium(W, B, TANH, tol=tol).converged.all()
