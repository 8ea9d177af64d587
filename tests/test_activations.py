"""Activations: sigma = prox^1_f and prox^alpha_f for every alpha > 0 (MON section 3.2, appendix A)."""

from __future__ import annotations

import copy
import math
import pickle
import warnings

import laws
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import ACTIVATIONS
from oracles import DEFINITIONS, assert_close

import implicitref as ir
from implicitref import activations
from implicitref.activations import newton

each = pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
SMOOTH = {name: act for name, act in ACTIVATIONS.items() if act.closed_root is None}
each_smooth = pytest.mark.parametrize("activation", SMOOTH.values(), ids=SMOOTH)
ALPHAS = (1e-6, 1e-3, 0.05, 0.25, 1.0, 4.0, 300.0, 1e6)
FEW = (-1e8, -50.0, -2.5, -0.6, -1e-4, 1e-7, 0.37, 0.93, 1.4, 6.0, 1e8)


def test_registry_covers_every_activation_by_name():
    # "leaky_relu(0.3)" stands for leaky_relu: nobody adds an activation without its laws
    assert {name.split("(")[0] for name in ACTIVATIONS} == set(activations.NAMES)
    assert set(ACTIVATIONS) == set(DEFINITIONS)


@pytest.mark.claim("MON-Eq4")
@pytest.mark.claim("MON-EqA7")
@pytest.mark.claim("MON-Sec3.2-prox")
@pytest.mark.claim("NEW-prox-alpha")
@each
def test_prox_minimises(activation):
    hard = repr(activation) == "softplus"  # the dilogarithm in 50 digits takes a millisecond a value
    laws.check_prox(activation, (1e-6, 0.05, 1.0, 300.0) if hard else ALPHAS, np.array(FEW[2:-2] if hard else FEW))


@pytest.mark.claim("MON-EqA5")
@each
def test_root_and_moreau(activation, backend):
    for alpha in (1e-6, 0.05, 1.0, 4.0, 1e6):
        laws.check_root(activation, backend, alpha)


@each_smooth
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.claim("NEW-prox-alpha")
def test_newton_takes_at_most_25_steps_and_never_overflows(activation, dtype):
    with np.errstate(all="raise", under="ignore"):
        for alpha in np.logspace(-6, 6, 49):
            x = laws.grid(1e8).astype(dtype)
            w, steps = newton(activation.sigma, activation.slope, x, float(alpha))
            assert 0 <= steps <= 25, f"alpha = {alpha:g}: {steps} steps"
            assert w.dtype == dtype
            z, jac = activation.prox(x, float(alpha)), activation.derivative(x, float(alpha))
            assert np.isfinite(z).all()
            assert ((jac >= 0) & (jac <= 1)).all()
            # sigma(w) lies where the residual puts it: backward error of a few eps
            terms = alpha * np.abs(w) + abs(1 - alpha) * np.abs(z) + np.abs(x)
            residual = (alpha * w.astype(float) + (1 - alpha) * z.astype(float) - x) / terms
            assert_close(residual, np.zeros(x.shape), scale=1, tol=32 * float(np.finfo(dtype).eps))


@each
def test_everything_is_finite_far_away(activation, backend):
    x = np.array([-1e8, -1e4, -90.0, 0.0, 90.0, 1e4, 1e8])
    for alpha in (1e-6, 1.0, 1e6):
        for values in (activation.prox(backend(x), alpha), activation.derivative(backend(x), alpha)):
            assert np.isfinite(backend.numpy(values)).all()


@each
@pytest.mark.claim("NEW-prox-alpha")
def test_derivative_is_the_slope(activation):
    for alpha in (0.05, 0.3, 1.0, 4.0, 50.0):
        laws.check_derivative(activation, alpha)


@each
def test_derivative_by_the_curvature_of_f(activation):
    # J_alpha = 1/(1 + alpha f''(z)) for every alpha, also where differences are useless
    x = np.array([-1.9, -0.8, 0.21, 0.64])
    for alpha in (1e-6, 0.05, 1.0, 40.0, 1e6):
        z, jac = activation.prox(x, alpha), activation.derivative(x, alpha)
        low, high = DEFINITIONS[repr(activation)]["domain"]
        kinks_of_f = (0.0,)
        for value, slope in zip(z, jac, strict=True):
            if min(value - low, high - value, *(abs(value - kink) for kink in kinks_of_f)) > 1e-3:
                curvature = oracles.curvature(repr(activation), value)
                assert_close(slope, 1 / (1 + alpha * curvature), scale=1, tol=1e-9)


@each
def test_calling_is_the_prox_with_step_one_bitwise(activation, backend):
    x = laws.grid()
    for got, want in (
        (activation(backend(x)), activation.prox(backend(x), 1.0)),
        (activation.derivative(backend(x)), activation.derivative(backend(x), 1.0)),
    ):
        np.testing.assert_array_equal(backend.numpy(got), backend.numpy(want))
    assert activation(backend(x)).dtype == backend(x).dtype


@each
def test_sigma_and_slope_are_their_definitions(activation, backend):
    x = np.linspace(-8, 8, 65) + 0.003
    entry = DEFINITIONS[repr(activation)]
    held = backend.numpy(backend(x)).astype(float)
    assert_close(backend.numpy(activation(backend(x))), entry["sigma"](held), scale=8, tol=4 * backend.eps)
    assert_close(backend.numpy(activation.derivative(backend(x))), entry["slope"](held), scale=1, tol=32 * backend.eps)


@each
def test_firmly_nonexpansive(activation, backend):
    for alpha in (1e-3, 1.0, 30.0):
        laws.check_firmly_nonexpansive(activation, backend, alpha)


@pytest.mark.claim("MON-EqA5")
@each
def test_reflection_is_the_cayley_operator(activation, backend):
    for alpha in (0.1, 1.0, 6.0):
        laws.check_reflection(activation, backend, alpha)


@pytest.mark.claim("MON-AppA-subdifferential")
@each
def test_w_minus_z_is_a_subgradient(activation):
    laws.check_subgradient(activation)


@each
def test_value_is_convex_and_is_f_up_to_a_constant(activation):
    low, high = (
        max(-2.0, DEFINITIONS[repr(activation)]["domain"][0]),
        min(2.0, DEFINITIONS[repr(activation)]["domain"][1]),
    )
    z = np.linspace(low, high, 33)[1:-1]
    value = activation.value(z)
    assert (value[:-2] + value[2:] - 2 * value[1:-1] >= -1e-14 * (1 + np.abs(value[1:-1]))).all()
    desired = np.array([float(DEFINITIONS[repr(activation)]["f"](t)) for t in z])
    assert_close(value - value[0], desired - desired[0], scale=oracles.size(desired), tol=1e-14)


@each
def test_value_is_infinite_outside_the_domain_and_finite_in_it(activation, backend):
    low, high = DEFINITIONS[repr(activation)]["domain"]
    outside = [end + sign for end, sign in ((low, -0.5), (high, 0.5)) if math.isfinite(end)]
    values = backend.numpy(activation.value(backend(np.array([*outside, 0.3]))))
    assert np.isposinf(values[:-1]).all()
    assert np.isfinite(values[-1])


@pytest.mark.parametrize(
    ("name", "ends"),
    [("relu", [0.0]), ("hardtanh", [-1.0, 1.0]), ("tanh", [-1, 1]), ("sigmoid", [0, 1]), ("elu(0.5)", [-0.5])],
)
def test_closed_domains_include_their_ends(name, ends):
    assert np.isfinite(ACTIVATIONS[name].value(np.array(ends, dtype=float))).all()


@pytest.mark.claim("MON-Eq8")
@each
def test_alpha_free_says_whether_the_prox_depends_on_alpha(activation):
    x = laws.grid(10.0)
    same = np.array_equal(activation.prox(x, 3.7), activation(x))
    assert same == (activation.alpha_free or repr(activation) == "leaky_relu(1)")


@pytest.mark.claim("NEW-strong-prox")
@each
def test_strong_is_what_the_lipschitz_constant_gives(activation):
    steepest = activation.derivative(np.linspace(-20, 20, 8001)).max()
    assert_close(1 / steepest - 1, activation.strong, scale=1, tol=1e-5)


@each
def test_clarke_elements_at_kinks_lie_in_the_interval(activation):
    name = repr(activation)
    for alpha in (0.1, 1.0, 8.0):
        for kink in DEFINITIONS[name]["kinks"]:
            at = kink * (alpha if name.startswith("soft") else 1.0)
            found = float(activation.derivative(np.array([at]), alpha)[0])
            sides = activation.derivative(np.array([at - 1e-9, at + 1e-9]), alpha)
            assert sides.min() - 1e-8 <= found <= sides.max() + 1e-8


@given(
    x=st.floats(-1e8, 1e8, allow_subnormal=False),
    y=st.floats(-10, 10, allow_subnormal=False),
    log_alpha=st.floats(-6, 6),
    name=st.sampled_from(sorted(ACTIVATIONS)),
)
def test_prox_anywhere(x, y, log_alpha, name):
    # no point of the domain has a smaller objective; never NaN; nondecreasing
    activation, alpha = ACTIVATIONS[name], 10.0**log_alpha
    z = activation.prox(np.array([x]), alpha)
    assert np.isfinite(z).all()
    at = [float((x - t[0]) ** 2 / 2 + alpha * activation.value(t)[0]) for t in (z, activation(np.array([y])))]
    if math.isfinite(at[0]):
        assert at[0] <= at[1] + 1e-12 * (1 + abs(at[1]) + x * x + alpha)


# ------------------------------------------------------------------------------------------------
# zero border


def test_zero_border_on_images_and_on_flat_states(backend):
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    inside = np.zeros((4, 5), dtype=bool)
    inside[1:-1, 1:-1] = True
    image = activations.zero_border(activations.tanh, 1)
    flat = activations.zero_border(activations.tanh, 1, shapes=[(3, 4, 5)])
    for alpha in (0.3,) if backend.name == "jax" else (0.3, 1.0, 5.0):  # JAX compiles every operation anew
        for of in ("prox", "derivative", "root"):
            got = backend.numpy(getattr(image, of)(backend(x), alpha))
            want = np.where(inside, backend.numpy(getattr(activations.tanh, of)(backend(x), alpha)), 0)
            if of == "root":
                want = np.where(inside, want, backend.numpy(backend(x)) / alpha)
            assert_close(got, want, scale=oracles.size(x) / min(1, alpha), tol=8 * backend.eps)
            again = backend.numpy(getattr(flat, of)(backend(x.reshape(2, -1)), alpha))
            np.testing.assert_array_equal(again.reshape(x.shape), got)
        reflected = backend.numpy(image.reflection(alpha)(backend(x)))
        desired = 2 * backend.numpy(image.prox(backend(x), alpha)) - backend.numpy(backend(x))
        assert_close(reflected, desired, scale=oracles.size(x), tol=8 * backend.eps)
    np.testing.assert_array_equal(backend.numpy(image(backend(x))), backend.numpy(image.prox(backend(x), 1.0)))


def test_zero_border_value_and_tiers():
    image = activations.zero_border(activations.relu, 1)
    z = np.zeros((1, 1, 3, 3))
    assert (image.value(z) == 0).all()
    z[0, 0, 0, 0], z[0, 0, 1, 1] = 1.0, -1.0  # nonzero border, negative inside
    value = image.value(z)
    assert np.isposinf(value[0, 0, [0, 1], [0, 1]]).all()
    assert np.isfinite(value).sum() == 7
    tiers = activations.zero_border(activations.relu, 1, shapes=[(2, 3, 3), (1, 4, 4)])
    assert tiers(np.ones((1, 18 + 16))).sum() == 2 * 1 + 4
    assert (tiers.alpha_free, tiers.strong) == (True, 0.0)
    assert activations.zero_border(activations.sigmoid, 1).strong == 3.0
    assert repr(image) == "zero_border(relu, 1)"
    np.testing.assert_array_equal(activations.zero_border(activations.relu, 0)(z), activations.relu(z))


@pytest.mark.parametrize("width", [-1, 1.5, True, None])
def test_zero_border_refuses_a_bad_width(width):
    with pytest.raises(ir.HypothesisError, match="width"):
        activations.zero_border(activations.relu, width)


def test_zero_border_refuses_states_of_another_shape():
    with pytest.raises(ir.ShapeError, match="shapes"):
        activations.zero_border(activations.relu, 1)(np.ones((2, 9)))
    with pytest.raises(ir.ShapeError, match="9 entries"):
        activations.zero_border(activations.relu, 1, shapes=[(1, 3, 3)])(np.ones((2, 8)))
    with pytest.raises(ir.HypothesisError, match="activation"):
        activations.zero_border("relu", 1)


# ------------------------------------------------------------------------------------------------
# refusals


@pytest.mark.claim("NEW-not-prox")
@pytest.mark.parametrize("name", ["gelu", "silu", "mish", "selu"])
def test_what_is_no_prox_is_refused_with_the_reason(name):
    for ask in (getattr(activations, name), lambda: activations.get(name)):
        with pytest.raises(ir.HypothesisError, match=rf"{name} is not a proximal operator.*slope.*NEW-not-prox"):
            ask()


@pytest.mark.claim("NEW-not-prox")
@pytest.mark.parametrize(
    ("name", "sigma", "slopes"),
    [
        ("gelu", lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / 2**0.5)), (-0.13, 1.13)),
        ("silu", lambda x: x / (1 + np.exp(-x)), (-0.1, 1.1)),
        ("mish", lambda x: x * np.tanh(np.logaddexp(0, x)), (-0.11, 1.09)),
        ("selu", lambda x: 1.0507 * np.where(x > 0, x, 1.67326 * np.expm1(np.minimum(x, 0))), (0.0, 1.758)),
    ],
)
def test_the_reasons_are_true(name, sigma, slopes):
    # slopes outside [0, 1] somewhere, where the messages put them
    x = np.linspace(-8, 8, 20001)
    found = np.diff(sigma(x)) / np.diff(x)
    assert_close([found.min(), found.max()], slopes, scale=1, tol=0.015)
    assert found.min() < -0.01 or found.max() > 1.01


@pytest.mark.parametrize(
    ("make", "value", "message"),
    [
        (activations.elu, 1.2, "a > 1"),
        (activations.elu, 0.0, "a"),
        (activations.elu, math.nan, "a"),
        (activations.leaky_relu, 0.0, "slope"),
        (activations.leaky_relu, 2.0, "slope"),
        (activations.leaky_relu, -0.1, "slope"),
        (activations.soft_threshold, -1.0, "lam"),
        (activations.soft_threshold, math.inf, "lam"),
    ],
)
def test_parameters_outside_their_range_are_refused(make, value, message):
    with pytest.raises(ir.HypothesisError, match=message):
        make(value)


@each
@pytest.mark.parametrize("alpha", [0, -1.0, math.nan, math.inf, None, "large"])
def test_alpha_must_be_positive(activation, alpha):
    x = np.ones(3)
    for call in (activation.prox, activation.derivative):
        with pytest.raises(ir.HypothesisError, match="alpha"):
            call(x, alpha)


@each
def test_only_real_floating_arrays_are_accepted(activation):
    for bad in (np.array([1, 2]), np.array([True]), np.array([1j])):
        for call in (activation, activation.prox, activation.derivative, activation.value):
            with pytest.raises(ir.HypothesisError, match="dtype"):
                call(bad)
        with pytest.raises(ir.HypothesisError, match="dtype"):
            activation.prox(bad, 2.0)
    with pytest.raises(TypeError, match="array"):
        activation([1.0, 2.0])


@each
def test_infinite_arguments_do_not_hang_or_warn(activation):
    # refused at public entrances of the solvers; an elementwise function must at least return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert activation.prox(np.array([math.nan, 1.0]), 2.0).shape == (2,)


@each
def test_pickle_and_copy(activation):
    x = laws.grid(10.0)
    for again in (pickle.loads(pickle.dumps(activation)), copy.copy(activation), copy.deepcopy(activation)):
        assert repr(again) == repr(activation)
        np.testing.assert_array_equal(again.prox(x, 2.0), activation.prox(x, 2.0))
        np.testing.assert_array_equal(again.reflection(2.0)(x), activation.reflection(2.0)(x))


def test_get_by_name():
    assert activations.get("relu") is activations.relu
    assert repr(activations.get("soft_threshold", 0.25)) == "soft_threshold(0.25)"
    assert repr(activations.get("leaky_relu")) == repr(activations.leaky_relu())
    with pytest.raises(ir.HypothesisError, match="activation must be one of"):
        activations.get("swish")
    with pytest.raises(ir.HypothesisError, match=r"relu has no parameter; got 0\.5"):
        activations.get("relu", 0.5)
    with pytest.raises(ir.HypothesisError, match=r"leaky_relu has one parameter; got 0\.1, 0\.2"):
        activations.get("leaky_relu", 0.1, 0.2)


def test_one_number_is_an_array_without_axes():
    assert [float(activations.relu(np.asarray(value))) for value in (-1.0, 2.0)] == [0.0, 2.0]
